"""Alice and Bob on a small homeserver with key backup and account data, and a backup of Bob's database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Final
from uuid import uuid4

import pytest

from backed_up import until
from client_pairs import ALICE, BOB, ROOM, Person, abandon
from cryptostore import Backend, CryptoStoreError, DatabaseWentBack, RestoredAccount, open_backend
from cryptostore.nio.client.anchor import event_type
from cryptostore.store.restoring import mark_restored
from cryptostore_contract.samples import KEY
from held_keys import held_keys
from put_back import backup_of
from ratchet_uses import Use, megolm_use, olm_uses, used_twice
from small_homeserver import Json, SmallHomeserver, small_homeserver
from small_identities import Identities
from small_room_keys import RoomKeys

REFUSED: Final = (
    r"is older than what .* has written since.*"
    rf"`cryptostore restored .*--user-id {BOB.user_id} --device-id {BOB.device_id}`"
)
PHONE: Final = (BOB.user_id, BOB.device_id)


class Device(Person):
    """Somebody's client that logs in, and is started again with the same database."""

    async def start(self) -> Device:
        await self.client.login_or_restore("password")
        self.client._trust.key_backup.longest_delay = 0.0
        return self

    async def begin_again(self) -> None:
        """A new process, after the old one was closed, killed or refused."""
        await self.client.close()
        self.client = self._make()
        await self.start()

    async def begin_again_refused(self) -> None:
        """A new process, which sees that the database was put back."""
        with pytest.raises(DatabaseWentBack, match=REFUSED) as refused:
            await self.begin_again()
        assert refused.value.acknowledged >= refused.value.found

    async def killed(self) -> None:
        """The process ends."""
        for part in (self.client._trust.restoring, self.client._trust.anchoring):
            if part._task is not None:
                part._task.cancel()
        await abandon(self.client)

    async def is_whole(self) -> None:
        """Sync, and wait until what a backup lacked is replaced."""
        await self.round()
        await until(lambda: not self.store.restored.rows)
        await self.client.flush()
        assert not self.stored(RestoredAccount)


class Talk:
    """Two devices that write to each other."""

    def __init__(self, server: SmallHomeserver, alice: Device, bob: Device) -> None:
        self.server, self.alice, self.bob = server, alice, bob
        #: What is to be there until the end.
        self.kept_open: Backend | None = None
        self.identities = Identities(server)
        self.room_keys = RoomKeys(server)

    def anchor(self) -> Json:
        """What the homeserver keeps as Bob's anchor."""
        return self.identities.data(BOB.user_id, event_type(BOB.device_id))

    def token_of_bob(self) -> str:
        """An access token of Bob's that is good."""
        return [token for token, device in self.server.tokens.items() if device == PHONE][-1]

    def set_anchor(self, content: Json) -> None:
        """Somebody else puts something there."""
        self.identities.put(BOB.user_id, event_type(BOB.device_id), content)

    async def both_ways(self, text: str, times: int = 2) -> None:
        """Each says something, in several Megolm sessions, and fails unless the other reads it."""
        for number in range(times):
            for one, other in ((self.alice, self.bob), (self.bob, self.alice)):
                if number % 2:
                    one.client.invalidate_outbound_session(ROOM)
                await one.say(said := f"{text} {number} of {one.account.user_id}")
                await other.round()
                assert said in other.read, other.read[-3:]

    def lost_keys(self) -> list[str]:
        """The keys that the homeserver hands out for Bob, and whose private halves he does not have."""
        held = held_keys(self.bob.client.machine.account)
        handed_out = [*self.server.one_time_keys[PHONE].values(), *self.server.fallback_keys[PHONE].values()]
        return [key["key"] for key in handed_out if key["key"] not in held]

    def used_twice(self) -> list[object]:
        """The positions of ratchets with which Bob encrypted more than one thing."""
        return list(used_twice(self._uses()))

    def _uses(self) -> Iterator[Use]:
        for request in self.server.asked("", BOB.user_id):
            if request.is_for("/send/m.room.encrypted/"):
                yield megolm_use(request.body)
            elif request.is_for("/sendToDevice/m.room.encrypted/"):
                yield from olm_uses(request.body["messages"])


@asynccontextmanager
async def talking(url: str) -> AsyncIterator[Talk]:
    """Alice and Bob have met, and have written to each other."""
    async with small_homeserver() as server:
        server.make_room(ROOM, ALICE.user_id, BOB.user_id)
        alice, bob = Device(server, ALICE, f"memory://{uuid4()}"), Device(server, BOB, url)
        talk = Talk(server, alice, bob)
        try:
            for person in (alice, bob, alice, bob):
                if person.client.store is None:
                    await person.start()
                await person.round()
            await talk.both_ways("before")
            yield talk
        finally:
            for person in (alice, bob):
                with suppress(CryptoStoreError):
                    await person.client.close()
            if talk.kept_open is not None:
                talk.kept_open.close()


@asynccontextmanager
async def put_back(url: str) -> AsyncIterator[Talk]:
    """A backup of Bob's database was put back, after he has written and read more."""
    async with talking(url) as talk:
        await talk.bob.client.close()
        restore = backup_of(url)
        await talk.bob.begin_again()
        await talk.both_ways("lost", 3)
        await talk.bob.client.back_up()
        await talk.bob.client.close()
        restore()
        yield talk


def restored(url: str) -> None:
    """What the command does."""
    with open_backend(url) as backend, backend.open_store(BOB, pickle_key=KEY) as store:
        mark_restored(store)
