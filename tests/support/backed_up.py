"""Two people with a small homeserver that has key backup, and a key of a backup for each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final
from uuid import uuid4

from client_pairs import ROOM, Person, people, say_in_new_sessions
from cryptostore.trust.cross_signing import MASTER
from cryptostore.trust.key_backup import KEY_BACKUP
from cryptostore.trust.secret_storage import KEY_DESCRIPTION, seal
from small_room_keys import RoomKeys

PRIVATE_KEY: Final = bytes(range(32))
SEED: Final = bytes(range(1, 33))
STORAGE_KEY: Final = bytes(range(2, 34))
OTHER_KEY: Final = bytes(range(100, 132))
KEY_ID: Final = "key"


@asynccontextmanager
async def backed_up(url: str, bob_url: str = "") -> AsyncIterator[tuple[RoomKeys, Person, Person]]:
    """Alice and Bob in one encrypted room. Bob has a key, in secret storage too."""
    async with people(url, bob_url) as (server, alice, bob):
        keys = RoomKeys(server)
        give_key(keys, bob)
        yield keys, alice, bob


def give_key(keys: RoomKeys, person: Person, private_key: bytes = PRIVATE_KEY, *, seed: bytes | None = SEED) -> None:
    """A person's client holds the key of the backup, and the identity's seed."""
    person.store.secrets.put(KEY_BACKUP, private_key)
    person.store.secrets.put(KEY_DESCRIPTION + KEY_ID, STORAGE_KEY)
    if seed is not None:
        person.store.secrets.put(MASTER, seed)
    keys.set_account_data(person.account.user_id, KEY_BACKUP, seal(KEY_BACKUP, KEY_ID, STORAGE_KEY, private_key))
    hurry(person)


def hurry(person: Person) -> None:
    """New sessions do not wait for others."""
    person.client._trust.key_backup.longest_delay = 0


async def new_sessions(alice: Person, count: int) -> None:
    """Messages of Alice's in so many new Megolm sessions."""
    if ROOM not in alice.client.machine.outbound_group_sessions:
        await alice.say("first")
        count -= 1
    say_in_new_sessions(alice, [str(uuid4()) for _ in range(count)])


async def hear_new_sessions(alice: Person, bob: Person, count: int) -> None:
    """Bob gets messages of Alice's in so many new Megolm sessions."""
    await new_sessions(alice, count)
    await bob.round()


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what happens in the background."""
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110  # what is waited for may be in the database
            await asyncio.sleep(0.01)
