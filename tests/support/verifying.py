"""People who verify each other, with clients that sync all the while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web

from client_pairs import ALICE, BOB, ROOM, Person, people
from cryptostore import Account, CrossSigningKeys, VerificationCancelled
from cryptostore import Verification as VerificationRecord
from cryptostore.nio.trust.verification import Verification
from cryptostore.nio.trust.vouching import Verified
from cryptostore.trust.cross_signing import Seeds
from small_homeserver import Json, Request, SmallHomeserver
from small_identities import Identities

#: Seconds in which something has to happen.
SOON = 20.0


class Town:
    """Alice and Bob, who both have identities, and what the homeserver knows of them."""

    def __init__(self, server: SmallHomeserver, alice: Person, bob: Person) -> None:
        self.server = server
        self.alice = alice
        self.bob = bob
        self.known = Identities(server)
        self.seeds = {person.account.user_id: self.give_identity(person) for person in (alice, bob)}

    def give_identity(self, person: Person) -> Seeds:
        """A person's client has made an identity, and signed its device."""
        seeds = Seeds.new()
        self.known.set_identity(person.account.user_id, seeds)
        for name, seed in seeds.by_name().items():
            person.store.secrets.put(name, seed)
        self.sign(person, seeds)
        return seeds

    def sign(self, person: Person, seeds: Seeds) -> None:
        """An identity signs a person's device."""
        user, device = person.account.user_id, person.account.device_id
        signed = seeds.sign_device(user, self.server.device_keys[user, device])
        assert self.known._sign(user, {user: {device: signed}}) == {}

    def has_signed(self, person: Person, other: Person) -> bool:
        """Whether the homeserver shows that a person has verified the other's master key."""
        user, other_user = person.account.user_id, other.account.user_id
        key = f"ed25519:{self.seeds[user].public.user_signing}"
        return (key, other_user, self.seeds[other_user].public.master) in self.known.signatures

    def sent(self, person: Person) -> list[str]:
        """The kinds of the verification events that a person's client has sent, also by to-device messages."""
        kinds = []
        for request in self.server.requests:
            is_own = request.user == person.account.user_id and request.method == "PUT"
            if is_own and request.is_for("sendToDevice/m.key.verification"):
                kinds.append(request.parts[1])
            elif is_own and request.is_for("/send/"):
                kinds.append(request.body.get("msgtype") or request.parts[3])
        return [kind.removeprefix("m.key.verification.") for kind in kinds]

    def write(self, sender: str, receiver: Account, kind: str, content: Json) -> None:
        """A to-device message of a verification, made by hand."""
        message = {receiver.user_id: {receiver.device_id: content}}
        self.server._send_to_device(sender, f"m.key.verification.{kind}", message)

    def say(self, sender: str, kind: str, content: Json, device_id: str = "ANY") -> str:
        """An event in the room, made by hand."""
        number = f"transaction {self.server._advance()}"
        return self.server._say((sender, device_id), ROOM, kind, number, content)


@asynccontextmanager
async def town(url: str, bob_url: str = "", **options: Any) -> AsyncIterator[Town]:
    """Alice and Bob in one encrypted room, with identities."""
    async with people(url, bob_url, **options) as (server, alice, bob):
        yield Town(server, alice, bob)


@asynccontextmanager
async def syncing(*persons: Person) -> AsyncIterator[None]:
    """Clients that sync."""

    async def rounds(person: Person) -> None:
        while True:
            await person.round()

    tasks = [asyncio.create_task(rounds(person)) for person in persons]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


async def until(is_so: Callable[[], Any]) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(SOON):
        while not is_so():  # noqa: ASYNC110  # what happens elsewhere sets no event
            await asyncio.sleep(0.01)


class Asked:
    """The requests that a client was asked, in order."""

    def __init__(self, person: Person) -> None:
        self.came: asyncio.Queue[Verification] = asyncio.Queue()
        person.client.on_verification(self.came.put_nowait)

    async def next(self) -> Verification:
        """The next one."""
        async with asyncio.timeout(SOON):
            return await self.came.get()


async def compared(first: Verification, second: Verification) -> None:
    """Wait until both sides show the same."""
    async with asyncio.timeout(SOON):
        seen = [await each.comparison() for each in (first, second)]
    assert seen[0] == seen[1]
    assert len(first.emoji) == 7
    assert first.decimals == second.decimals


async def requested(place: Town, room: str | None = None) -> tuple[Verification, Verification]:
    """A verification that Alice has asked for, and that waits for Bob."""
    asked = Asked(place.bob)
    alices = await place.alice.client.request_verification(BOB.user_id, room)
    return alices, await asked.next()


async def begun(place: Town, room: str | None = None) -> tuple[Any, Any]:
    """A verification that Bob has accepted."""
    alices, bobs = await requested(place, room)
    await bobs.accept()
    await compared(alices, bobs)
    return alices, bobs


async def ended(*verifications: Verification) -> list[Verified]:
    """How verifications ended."""
    async with asyncio.timeout(SOON):
        return [await each.finished() for each in verifications]


async def cancelled_with(code: str, *verifications: Verification) -> None:
    """Wait until verifications are cancelled with a code."""
    for verification in verifications:
        with pytest.raises(VerificationCancelled) as caught:
            await ended(verification)
        assert caught.value.code == code


def fault(part: str, status: int, errcode: str = "M_UNKNOWN") -> Callable[[Request], web.StreamResponse | None]:
    """A homeserver that refuses the requests with this part."""

    def answer(asked: Request) -> web.StreamResponse | None:
        is_meant = asked.is_for(part)
        return web.json_response({"errcode": errcode, "error": "no"}, status=status) if is_meant else None

    return answer


def is_verified(person: Person, other: Person) -> bool:
    """Whether the database says that a person has verified the other."""
    rows = person.stored(CrossSigningKeys)
    return any(row.verified for row in rows if row.user_id == other.account.user_id)


def left_over(person: Person) -> list[str]:
    """The verifications that the database holds."""
    return [row.transaction_id for row in person.stored(VerificationRecord)]


__all__ = ["ALICE", "BOB", "ROOM", "Asked", "Town", "compared", "ended", "is_verified", "left_over", "syncing", "town"]
