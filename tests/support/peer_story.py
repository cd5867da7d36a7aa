"""A person with what Element runs, and a bot on our client, in one encrypted room."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from command_line import run_process
from homeserver_api import User
from homeserver_bed import Bed, Device
from homeserver_client import Client
from patience import PATIENCE
from peer import Message, Peer


def person(bed: Bed, user: User | None = None) -> Peer:
    """A person who has set everything up as Element asks for, talks to signed devices only, and syncs."""
    peer = bed.peer(user)
    peer.call("sync")
    peer.recovery_key = peer.call("bootstrap")
    return peer


class Story:
    """What the two say to each other, while the bot moves from host to host."""

    def __init__(self, bed: Bed, device: Device | None = None, reader: Peer | None = None, **start: str) -> None:
        self.bed = bed
        self.person = reader or person(bed)
        self.device = device or bed.device("bot")
        self.bot: Client = bed.start(self.device, **start)
        self.bot.call("sync")
        self.room = str(self.person.call("create_room", invite=[self.device.user.user_id]))
        bed.api.join(self.device.user, self.room)
        self.bot.call("sync")
        #: The text of every message, by its event id.
        self.said: dict[str, str] = {}

    @property
    def user_id(self) -> str:
        """The bot."""
        return self.device.user.user_id

    @property
    def device_id(self) -> str:
        """The bot's present device."""
        return self.device.config.device_id

    def ask(self, text: str) -> str:
        """The person says something; its event id."""
        return self._said(self.person.call("send", room=self.room, text=text), text)

    def answer(self, text: str) -> str:
        """The bot says something; its event id."""
        return self._said(self.bot.call("send", room=self.room, text=text), text)

    def person_sees_a_signed_device(self) -> None:
        """Fail unless the homeserver shows the person that the bot's device is signed by its present owner."""
        assert self.person.call("device", user=self.user_id, device=self.device_id)["signed_by_owner"]

    def both_are_read_and_green(self, text: str) -> None:
        """Fail unless each reads at once what the other says now, and the person sees no shield."""
        asked = self.ask(f"{text}?")
        self.bot.call("sync")
        assert self.bot.texts().get(asked) == f"{text}?", self.bot.told[-3:]
        shown = self.person.read(self.room, self.answer(f"{text}!"))
        assert (shown.text, shown.colour) == (f"{text}!", 0), shown

    def verify(self) -> None:
        """The person asks in the room to verify the bot; both see the same emoji and say so."""
        flow = self.person.call("request_verification", user=self.user_id, room=self.room)
        self._sync_until(lambda: any(each.get("id") == flow for each in self.bot.told))
        self.syncing("accept", verification=flow)
        self.person.verification("ready", id=flow)
        self.person.call("start", verification=flow)
        assert self.syncing("emoji", verification=flow) == self.person.emoji(flow)
        self.person.call("confirm", verification=flow)
        self.bot.call("confirm", verification=flow)
        assert self.syncing("finished", verification=flow) == {"user": True, "device": True}
        self.person.sees_user(self.device.user, verified=True)

    def syncing(self, do: str, **parameters: object) -> Any:
        """What a command of the bot answers that needs what comes by syncs."""
        answer = self.bot.begin(do, **parameters)
        self._sync_until(answer.done)
        return answer.result()

    def _sync_until(self, done: Callable[[], bool]) -> None:
        ends = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < ends, (self.bot.told[-5:], self.bot.tail(), self.person.told[-5:])
            self.bot.call("sync", wait=0.2)

    def bot_is_told(self, person: Peer, **wanted: object) -> None:
        """Fail unless the bot is told now that a person's identity is another one."""
        told = len(self.bot.told)
        # One to hear that something changed, after which it asks what, and one before which it is told.
        for _ in range(2):
            self.bot.call("sync")
        expected = {"event": "identity change", "user": person.user.user_id, **wanted}
        assert expected in self.bot.told[told:], self.bot.told[told:]

    def second_host(self, **changes: str) -> None:
        """The bot's process dies, and another one goes on with its database."""
        self.bot.kill()
        self.bot = self.bed.start(self.device, **changes)
        self.bot.call("sync")

    def lose_database(self, recovery_key: str) -> None:
        """The bot's process dies and its database is gone: a new device starts, with the recovery key."""
        self.bot.kill()
        self.device = self.bed.device_of(self.device.user)
        self.bot = self.bed.start(self.device, recovery_key=recovery_key)
        self.bot.call("sync")

    def recovery_key(self) -> str:
        """What an operator is shown by `cryptostore identity recovery-key`."""
        config = self.device.config
        shown = run_process(
            "identity",
            "recovery-key",
            config.store,
            "--again",
            "--json",
            env={"CRYPTOSTORE_PICKLE_KEY": config.pickle_key},
        )
        assert shown.code == 0, shown.err
        return str(shown.document["recovery_key"])

    def bot_reads(self, *texts: str) -> None:
        """Wait until the bot's callbacks were told of these messages."""
        wanted = {event_id: text for event_id, text in self.said.items() if text in texts}
        self.bot.until(
            lambda told: (
                wanted.items() <= {each["id"]: each["text"] for each in told if each["event"] == "message"}.items()
            )
        )

    def sender_trust(self, event_id: str) -> str:
        """What the bot knew of the device that sent a message when it was told of it."""
        found = {each["id"]: each["trust"] for each in self.bot.told if each["event"] == "sender"}
        return str(found[event_id])

    def unread_by_bot(self) -> list[str]:
        """The texts that the bot cannot read in the room's history."""
        history = self.bot.call("history", room=self.room)
        return [text for event_id, text in self.said.items() if history.get(event_id) != text]

    def shown(self, peer: Peer | None = None) -> dict[str, Message]:
        """Every message as the person sees it, or another device; by its text."""
        messages = (peer or self.person).messages(self.room, retry=True)
        return {text: messages[event_id] for event_id, text in self.said.items()}

    def _said(self, event_id: str, text: str) -> str:
        self.said[event_id] = text
        return event_id
