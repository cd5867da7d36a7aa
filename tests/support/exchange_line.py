"""Two sides of a verification, and the messages that are under way between them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from cryptostore.trust import exchange_contents as contents
from cryptostore.trust.exchange import Exchange, Message, Phase
from cryptostore.trust.exchange_contents import Code, Flow
from cryptostore.trust.sas import DeviceId, key_ids

ALICE: Final = DeviceId("@alice:example.org", "ALICEDEVICE")
BOB: Final = DeviceId("@bob:example.org", "BOBDEVICE")
ALICES_KEYS: Final = key_ids(ALICE, "alice's device key", "alicesmaster")
BOBS_KEYS: Final = key_ids(BOB, "bob's device key", "bobsmaster")
FLOWS: Final = (Flow("transaction", is_in_room=False), Flow("$request", is_in_room=True))
NOW: Final = 1_000.0
#: Takes the first message of a kind, on its way.
Change = Callable[[dict[str, Any]], None]


class Line:
    """Two sides, and what is under way between them, in order for each direction."""

    def __init__(self, flow: Flow = FLOWS[0], alice: DeviceId = ALICE, bob: DeviceId = BOB) -> None:
        times = {"asked_at": NOW, "now": NOW}
        self.alice = Exchange(flow, alice, ALICES_KEYS, DeviceId(bob.user_id, ""), we_asked=True, **times)
        self.bob = Exchange(flow, bob, BOBS_KEYS, alice, we_asked=False, **times)
        self.alice.know(BOBS_KEYS)
        self.bob.know(ALICES_KEYS)
        self.under_way: dict[Exchange, list[Message]] = {self.alice: [], self.bob: []}
        self.sent: list[tuple[str, str]] = []
        self.changes: dict[str, Change] = {}

    def send(self, sender: Exchange, messages: list[Message]) -> None:
        """A side sends messages, which are on their way then."""
        receiver = self.bob if sender is self.alice else self.alice
        for kind, content in messages:
            self.sent.append((sender.own.user_id[1:].split(":")[0], kind.removeprefix(contents.PREFIX)))
            # As on the wire.
            copy = json.loads(json.dumps(content))
            if change := self.changes.pop(kind, None):
                change(copy)
            self.under_way[receiver].append(Message(kind, copy))

    def deliver(self, receiver: Exchange) -> None:
        """A side gets the next message, and its answers are on their way."""
        message = self.under_way[receiver].pop(0)
        self.send(receiver, receiver.receive(*message))

    def settle(self) -> None:
        """Deliver until nothing is under way."""
        while any(self.under_way.values()):
            for receiver, waiting in self.under_way.items():
                if waiting:
                    self.deliver(receiver)

    def until_comparing(self) -> None:
        """Bob takes the request, and both go on until people compare."""
        self.send(self.bob, self.bob.take())
        self.settle()
        if self.alice.phase is Phase.READY:
            self.send(self.alice, self.alice.start())
            self.settle()

    def until_verified(self) -> None:
        """Both go on until people have said that it is the same."""
        self.until_comparing()
        for each in (self.alice, self.bob):
            if each.phase is Phase.COMPARING:
                self.send(each, each.confirm())
                self.settle()

    def ends_with(self, code: Code) -> None:
        """Both have ended with this code, which one of them gave."""
        self.settle()
        for each in (self.alice, self.bob):
            assert each.cancellation is not None
            assert (each.phase, each.cancellation.code) == (Phase.CANCELLED, code)
        assert {each.cancellation.by_us for each in (self.alice, self.bob) if each.cancellation} == {True, False}
        assert not self.alice.receive(contents.KEY, {})
        assert not self.bob.cancel()
