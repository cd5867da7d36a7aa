"""The demo's plot: Alice and Bob write to each other, and Bob is killed again and again."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from cryptostore.errors import ConfigurationError
from cryptostore.records import Account
from cryptostore.store.pickle_keys import new_pickle_key

from .audience import Audience
from .database import url_for
from .processes import PartyRun
from .protocol import PartyConfig
from .relay import WINDOW, Relay

#: How many messages may wait for their recipient before the sender pauses.
_IN_FLIGHT: Final = 10
#: A kill comes up to so many microseconds after a delivery: before, in and after its handling on a usual machine.
_LONGEST_DELAY: Final = 30_000
#: A new room key after so many messages.
_ROTATE_AFTER: Final = 4


class Settings(NamedTuple):
    """What one demo does."""

    url: str
    kills: int
    messages: int
    seed: int
    #: Seconds without any sign of life from either party after which the demo gives up.
    patience: float = 60.0


class PlannedKill(NamedTuple):
    """When Bob is to be killed: with the first delivery after so many acknowledged messages, and so much later."""

    acknowledged: int
    microseconds: int


class Kill(NamedTuple):
    """One SIGKILL that Bob got."""

    #: How many of Alice's messages Bob had acknowledged.
    acknowledged: int
    #: How many he had not, though they were sent.
    unacknowledged: int
    #: How long after a delivery it came.
    microseconds: int


class Reading(NamedTuple):
    """One process's attempt at the old messages, at its start: which text each event gave."""

    user_id: str
    texts: Mapping[str, str | None]


@dataclass
class Story:
    """What happened, for the checks."""

    alice: str
    bob: str
    #: What each event says, by its id, and who sent it.
    texts: dict[str, str] = field(default_factory=dict)
    senders: dict[str, str] = field(default_factory=dict)
    #: Every answer that each user ever gave for an event.
    readings: dict[str, dict[str, set[str | None]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(set))
    )
    kills: list[Kill] = field(default_factory=list)
    #: What each process could read of the past when it began.
    rereadings: list[Reading] = field(default_factory=list)
    final_readings: list[Reading] = field(default_factory=list)
    identities: dict[str, list[Mapping[str, str]]] = field(default_factory=lambda: defaultdict(list))
    stalled: bool = False


def planned_kills(settings: Settings) -> list[PlannedKill]:
    """The moments that the seed chooses, early enough that no kill finds all messages acknowledged.

    Raises ConfigurationError for too many kills.
    """
    # What was handled before a kill is acknowledged all the same: at most one delivery.
    if settings.kills * WINDOW > settings.messages:
        raise ConfigurationError(
            f"{settings.kills} kills with messages in flight need {settings.kills * WINDOW} messages or more; "
            "give more --messages, or fewer --kills"
        )
    chance = random.Random(settings.seed)
    after = sorted(chance.sample(range(settings.messages), settings.kills))
    latest = [settings.messages - left * WINDOW for left in range(settings.kills, 0, -1)]
    return [PlannedKill(min(pair), chance.randrange(_LONGEST_DELAY)) for pair in zip(after, latest, strict=True)]


class Conversation:
    """Runs the two parties around one relay until every message is with its recipient, or nothing moves any more."""

    def __init__(self, settings: Settings, accounts: list[Account], relay: Relay, audience: Audience) -> None:
        self._settings = settings
        self._devices = {account.user_id: account.device_id for account in accounts}
        self._relay = relay
        self._audience = audience
        self._alice, self._bob = relay.mailboxes
        self.story: Final = Story(self._alice, self._bob)
        self._plan = planned_kills(settings)
        self._pickle_keys = {user: new_pickle_key() for user in relay.mailboxes}
        self._changed = asyncio.Event()
        self._methods: Final[Mapping[str, Callable[..., Awaitable[Any]]]] = {
            "start": self._start,
            "reread": self._reread,
            "read": self._read,
            "upload_keys": self._upload_keys,
            "query_keys": self._query_keys,
            "claim_keys": self._claim_keys,
            "send_to_device": self._send_to_device,
            "send_event": self._send_event,
            "sync": self._sync,
        }
        self._patience: asyncio.Timeout
        self._killing: asyncio.Task[None]

    async def run(self) -> Story:
        """The conversation, then a last reading by fresh processes. Raises PartyFailed."""
        try:
            await self._together(self._alice, self._bob)
            self._audience.say("both start once more and read everything from the beginning")
            await self._together(self._alice, self._bob, only_read=True)
        except TimeoutError:
            self.story.stalled = True
        return self.story

    async def _together(self, *users: str, only_read: bool = False) -> None:
        self._patience = asyncio.timeout(self._settings.patience)
        try:
            async with self._patience, asyncio.TaskGroup() as parties:
                for user in users:
                    parties.create_task(self._live(user, only_read=only_read))
        except ExceptionGroup as failures:
            # Two parties on one database fail for one reason; the first to say so is enough.
            raise failures.exceptions[0] from None

    async def _live(self, user: str, *, only_read: bool) -> None:
        """One user's processes, one after the other, until one ends in peace."""
        config = PartyConfig(
            url_for(self._settings.url, self._devices[user]),
            self._pickle_keys[user],
            user,
            self._devices[user],
            self._relay.room_id,
            _ROTATE_AFTER,
            only_read,
        )
        killed = True
        while killed:
            run = PartyRun(config, self._answer)
            await run.live()
            killed = run.killed.is_set()

    async def _answer(self, run: PartyRun, method: str, params: Mapping[str, Any]) -> Any:
        self._patience.reschedule(asyncio.get_running_loop().time() + self._settings.patience)
        try:
            return await self._methods[method](run, **params)
        finally:
            self._changed.set()
            self._changed = asyncio.Event()

    async def _start(self, run: PartyRun, identity: Mapping[str, str], since: str) -> Any:
        self.story.identities[run.config.user_id].append(identity)
        return {"history": self._relay.history(since)}

    async def _reread(self, run: PartyRun, texts: Mapping[str, str | None]) -> None:
        reading = Reading(run.config.user_id, texts)
        (self.story.final_readings if run.config.only_read else self.story.rereadings).append(reading)
        await self._read(run, texts)

    async def _read(self, run: PartyRun, texts: Mapping[str, str | None]) -> None:
        for event_id, text in texts.items():
            self.story.readings[run.config.user_id][event_id].add(text)

    async def _upload_keys(self, run: PartyRun, content: Mapping[str, Any]) -> Any:
        return self._relay.upload_keys(run.config.user_id, run.config.device_id, content)

    async def _query_keys(self, _run: PartyRun) -> Any:
        while not self._relay.everybody_has_keys():
            await self._changed.wait()
        return self._relay.query_keys()

    async def _claim_keys(self, _run: PartyRun, wanted: Mapping[str, list[str]]) -> Any:
        return self._relay.claim_keys(wanted)

    async def _send_to_device(self, run: PartyRun, messages: Mapping[str, Any]) -> None:
        self._relay.send_to_device(run.config.user_id, messages)

    async def _send_event(self, run: PartyRun, transaction: str, content: Mapping[str, Any]) -> None:
        user = run.config.user_id
        event_id = self._relay.send_event(user, transaction, content)
        self.story.texts[event_id] = self._text(user, int(transaction))
        self.story.senders[event_id] = user

    async def _sync(self, run: PartyRun, since: str) -> Any:
        user = run.config.user_id
        while True:
            if run.doomed:
                await run.killed.wait()
            self._acknowledge(user, since)
            if run.killed.is_set():
                return None
            say = self._to_say(user)
            finished = self._finished()
            delivery = self._relay.deliver(user)
            if delivery["timeline"] or delivery["to_device"] or say or finished:
                self._perhaps_kill(run, delivery)
                return {**delivery, "say": say, "finished": finished}
            await self._changed.wait()

    def _acknowledge(self, user: str, since: str) -> None:
        self._relay.acknowledge(user, since)
        sender = self._alice if user == self._bob else self._bob
        done = self._sent(sender) - self._relay.unacknowledged_messages(user)
        self._audience.progress(sender, done)

    def _to_say(self, user: str) -> list[tuple[str, str]]:
        """The user's next message, while not too many are waiting for the other."""
        other = self._bob if user == self._alice else self._alice
        sent = self._sent(user)
        if sent == self._settings.messages or self._relay.unacknowledged_messages(other) >= _IN_FLIGHT:
            return []
        return [(str(sent), self._text(user, sent))]

    def _finished(self) -> bool:
        return all(self._sent(user) == self._settings.messages for user in self._relay.mailboxes) and not any(
            mailbox.waiting for mailbox in self._relay.mailboxes.values()
        )

    def _sent(self, user: str) -> int:
        return sum(1 for sender in self.story.senders.values() if sender == user)

    def _text(self, user: str, number: int) -> str:
        return f"message {number + 1} of {self._settings.messages} from {user}"

    def _perhaps_kill(self, run: PartyRun, delivery: Mapping[str, Any]) -> None:
        """Plan Bob's next kill, if it is time and this delivery holds a message for him: so one is in flight."""
        done = len(self.story.kills)
        if run.config.user_id != self._bob or done == self._settings.kills:
            return
        acknowledged = self._sent(self._alice) - self._relay.unacknowledged_messages(self._bob)
        if acknowledged >= self._plan[done].acknowledged and any(
            e["sender"] == self._alice for e in delivery["timeline"]
        ):
            run.doomed = True
            self._killing = asyncio.create_task(self._kill(run, acknowledged, self._plan[done].microseconds))

    async def _kill(self, run: PartyRun, acknowledged: int, microseconds: int) -> None:
        await asyncio.sleep(microseconds / 1e6)
        unacknowledged = self._relay.unacknowledged_messages(self._bob)
        run.kill()
        self.story.kills.append(Kill(acknowledged, unacknowledged, microseconds))
        self._audience.say(
            f"killed Bob ({len(self.story.kills)} of {self._settings.kills}) after {acknowledged} messages, "
            f"{unacknowledged} unacknowledged; he starts again"
        )
