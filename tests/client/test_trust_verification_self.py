"""Two sessions of one account verify each other: one signs the other, and hands over the secrets if it may."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from client_pairs import Person
from cryptostore import Account, CrossSigningKeys
from cryptostore.nio.trust.secret_sharing import REQUEST, SEND
from cryptostore.trust import unpadded_base64
from cryptostore.trust.cross_signing import SECRET_NAMES, Seeds
from small_homeserver import Json
from told import Told
from verifying import ALICE, BOB, Asked, Town, compared, ended, left_over, syncing, town, until

#: A session that has everything; Alice's phone is a bot whose account she made with it.
LAPTOP = Account(ALICE.user_id, "ALICELAPTOP")
BACKUP_KEY = bytes(range(32))
SECRETS = (*SECRET_NAMES, "m.megolm_backup.v1")


@asynccontextmanager
async def with_laptop(url: str) -> AsyncIterator[tuple[Town, Person]]:
    """The phone has no seeds, and its device is not signed; the laptop has all of it."""
    async with town(url) as place:
        phone, laptop = place.alice, Person(place.server, LAPTOP, url)
        seeds = Seeds.new()
        for name in SECRET_NAMES:
            phone.store.secrets.drop(name)
        place.known.set_identity(ALICE.user_id, seeds)
        place.seeds[ALICE.user_id] = seeds
        try:
            await laptop.start()
            for name, secret in {**seeds.by_name(), "m.megolm_backup.v1": BACKUP_KEY}.items():
                laptop.store.secrets.put(name, secret)
            await laptop.round()
            place.sign(laptop, seeds)
            yield place, laptop
        finally:
            await laptop.client.close()


async def verified(asker: Person, other: Person, *, share: bool, device_id: str | None = None) -> list[Any]:
    """Both sessions verify each other; the one that was asked shares secrets, or not."""
    asked = Asked(other)
    ours = await asker.client.request_verification(ALICE.user_id, device_id=device_id)
    theirs = await asked.next()
    assert ours.is_own_account
    await theirs.accept()
    await compared(ours, theirs)
    await theirs.confirm(share_secrets=share)
    await ours.confirm()
    return await ended(ours, theirs)


def secrets_of(person: Person) -> dict[str, bytes | None]:
    return {name: person.store.secrets.get(name) for name in SECRETS}


@pytest.mark.parametrize("device_id", [None, LAPTOP.device_id], ids=["all sessions", "one session"])
def test_a_verified_session_makes_another_one_whole(memory_url: str, device_id: str | None, told: Told) -> None:
    async def scenario() -> None:
        async with with_laptop(memory_url) as (place, laptop):
            phone = place.alice
            async with syncing(phone, laptop):
                seen = await verified(phone, laptop, share=True, device_id=device_id)
                # The phone cannot vouch for the identity: it learns of it here.
                assert [(each.user, each.device) for each in seen] == [(True, True), (False, True)]
                assert place.known.is_signed((ALICE.user_id, ALICE.device_id))
                await until(lambda: all(secrets_of(phone).values()))
                assert secrets_of(phone) == secrets_of(laptop)
                await until(lambda: phone.client.identity_state.name == "SIGNED")
                await until(lambda: not left_over(phone))
            rows = [row for row in phone.stored(CrossSigningKeys) if row.user_id == ALICE.user_id]
            assert [row.verified for row in rows] == [True]
            await phone.come_back_after_a_crash()
            assert secrets_of(phone) == secrets_of(laptop)

    asyncio.run(scenario())
    sent = {(name, way, to) for name, way, to in told.of("secret_exported", "secret_name", "way", "destination")}
    assert sent == {(name, "secret sharing", ALICE.device_id) for name in SECRETS}


def test_without_leave_nothing_is_handed_over(memory_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with with_laptop(memory_url) as (place, laptop), syncing(place.alice, laptop):
            await verified(place.alice, laptop, share=False)
            # It is signed all the same.
            assert place.known.is_signed((ALICE.user_id, ALICE.device_id))
            await until(lambda: len(place.server.asked("sendToDevice/m.secret.request")) == len(SECRETS))
            await until(lambda: caplog.text.count("may not have it") == len(SECRETS))
            assert not any(secrets_of(place.alice).values())

    with caplog.at_level(logging.INFO, "cryptostore"):
        asyncio.run(scenario())


def test_a_program_that_wants_no_identity_asks_for_nothing(memory_url: str) -> None:
    async def scenario() -> None:
        async with with_laptop(memory_url) as (place, laptop):
            place.alice.options["cross_signing"] = False
            await place.alice.restart()
            async with syncing(place.alice, laptop):
                await verified(place.alice, laptop, share=True)
                await asyncio.sleep(0.3)
            assert not place.server.asked("sendToDevice/m.secret.request")

    asyncio.run(scenario())


def test_what_was_not_got_is_asked_for_at_the_next_start(memory_url: str) -> None:
    async def scenario() -> None:
        async with with_laptop(memory_url) as (place, laptop), syncing(laptop):
            async with syncing(place.alice):
                await verified(place.alice, laptop, share=False)
                await until(lambda: len(place.server.asked("sendToDevice/m.secret.request")) == len(SECRETS))
            device = laptop.client.device_store[ALICE.user_id][ALICE.device_id]
            laptop.client._trust.sharing.verified(device, is_identity=False, may_ask=True)
            await place.alice.come_back_after_a_crash()
            async with syncing(place.alice):
                await until(lambda: all(secrets_of(place.alice).values()))

    asyncio.run(scenario())


def test_some_of_the_seeds_are_not_enough(memory_url: str) -> None:
    async def scenario() -> None:
        async with with_laptop(memory_url) as (place, laptop), syncing(place.alice, laptop):
            place.alice.store.secrets.put(SECRET_NAMES[1], bytes(32))
            place.alice.store.secrets.put("m.megolm_backup.v1", bytes(32))
            await verified(place.alice, laptop, share=True)
            await until(lambda: secrets_of(place.alice)[SECRET_NAMES[1]] == secrets_of(laptop)[SECRET_NAMES[1]])
            # A key that is there may be that of another backup.
            assert secrets_of(place.alice)["m.megolm_backup.v1"] == bytes(32)

    asyncio.run(scenario())


def test_a_session_without_signature_asks_the_one_that_has_everything(memory_url: str) -> None:
    async def scenario() -> None:
        async with with_laptop(memory_url) as (place, laptop), syncing(place.alice, laptop):
            asked = Asked(place.alice)
            ours = await laptop.client.request_verification(ALICE.user_id)
            theirs = await asked.next()
            await theirs.accept()
            await compared(ours, theirs)
            await ours.confirm(share_secrets=True)
            await theirs.confirm()
            await ended(ours, theirs)
            await until(lambda: all(secrets_of(place.alice).values()))

    asyncio.run(scenario())


def test_a_signature_that_the_homeserver_does_not_keep_ends_it(memory_url: str) -> None:
    async def scenario() -> None:
        async with with_laptop(memory_url) as (place, laptop), syncing(place.alice, laptop):
            key = f"ed25519:{place.seeds[ALICE.user_id].public.self_signing}"
            # That of another device which had this id.
            place.known.signatures[key, ALICE.user_id, ALICE.device_id] = "stale"
            with pytest.raises(Exception, match="was cancelled"):
                await verified(place.alice, laptop, share=True)
            assert not any(secrets_of(place.alice).values())

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("sender", "content"),
    [
        (BOB.user_id, {}),
        (ALICE.user_id, {"name": "m.secret_storage.key.abc"}),
        (ALICE.user_id, {"action": "request_cancellation"}),
        (ALICE.user_id, {"requesting_device_id": LAPTOP.device_id}),
        (ALICE.user_id, {"requesting_device_id": "UNVERIFIED"}),
        (ALICE.user_id, {"request_id": "x" * 300}),
        (ALICE.user_id, {"request_id": []}),
        (ALICE.user_id, {"name": None}),
    ],
)
def test_requests_of_others_get_nothing(memory_url: str, sender: str, content: Json) -> None:
    async def scenario() -> None:
        async with with_laptop(memory_url) as (place, laptop), syncing(laptop):
            request = {
                "action": "request",
                "name": SECRET_NAMES[0],
                "request_id": "request",
                "requesting_device_id": ALICE.device_id,
            }
            for _ in range(2):
                message = {LAPTOP.user_id: {LAPTOP.device_id: {**request, **content}}}
                place.server._send_to_device(sender, REQUEST, message)
            await until(lambda: not place.server.to_device[LAPTOP.user_id, LAPTOP.device_id])
            await asyncio.sleep(0.2)
            sent = [each for each in place.server.requests if each.is_for("m.room.encrypted")]
            assert not sent

    asyncio.run(scenario())


def test_requests_that_come_early_are_few(memory_url: str) -> None:
    async def scenario() -> None:
        async with with_laptop(memory_url) as (place, laptop), syncing(laptop):
            for number in range(100):
                request = {
                    "action": "request",
                    "name": SECRET_NAMES[0],
                    "request_id": f"request {number}",
                    "requesting_device_id": ALICE.device_id,
                }
                place.server._send_to_device(ALICE.user_id, REQUEST, {ALICE.user_id: {LAPTOP.device_id: request}})
            sharing = laptop.client._trust.sharing
            await until(lambda: len(sharing._early) == 20)
            device = laptop.client.device_store[ALICE.user_id][ALICE.device_id]
            sharing.verified(device, is_identity=False, may_ask=True)
            await asyncio.sleep(0.3)
            assert len(place.server.asked("sendToDevice/m.room.encrypted")) == 3

    asyncio.run(scenario())


async def sends_secret(place: Town, sender: Person, request_id: str, secret: Any) -> None:
    """A session of anybody sends the phone what it calls a secret."""
    machine = sender.client.machine
    await sender.client.keys_claim({ALICE.user_id: [ALICE.device_id]})
    device = machine.device_store[ALICE.user_id][ALICE.device_id]
    olm_session = machine.session_store.get(device.curve25519)
    content = {"request_id": request_id, "secret": secret}
    message = machine._olm_encrypt(olm_session, device, SEND, content)
    content_by_device = {ALICE.user_id: {ALICE.device_id: message}}
    place.server._send_to_device(sender.account.user_id, "m.room.encrypted", content_by_device)


async def asking(place: Town, laptop: Person) -> dict[str, str]:
    """The phone has asked for the secrets, and the laptop does not answer: the ids of the requests by name."""
    await verified(place.alice, laptop, share=False)
    asked = place.alice.client._trust.sharing._asked
    await until(lambda: len(asked) == len(SECRETS))
    return {name: request_id for request_id, name in asked.items()}


def test_secrets_that_are_not_the_accounts_are_refused(memory_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with with_laptop(memory_url) as (place, laptop), syncing(place.alice, laptop):
            ids = await asking(place, laptop)
            for name, secret in Seeds.new().by_name().items():
                await sends_secret(place, laptop, ids[name], unpadded_base64.encode(secret))
            await until(lambda: "not those of the account's identity" in caplog.text)
            for odd in (None, "short", 5):
                await sends_secret(place, laptop, ids[SECRET_NAMES[0]], odd)
            await until(lambda: caplog.text.count("is not 32 bytes") == 3)
            assert not any(secrets_of(place.alice).values())

    asyncio.run(scenario())


def test_a_second_answer_takes_the_place_of_nothing(memory_url: str) -> None:
    async def scenario() -> None:
        async with with_laptop(memory_url) as (place, laptop), syncing(place.alice, laptop):
            ids = await asking(place, laptop)
            right = secrets_of(laptop)
            for name in (*SECRET_NAMES, "m.megolm_backup.v1"):
                await sends_secret(place, laptop, ids[name], unpadded_base64.encode(right[name] or b""))
            await until(lambda: all(secrets_of(place.alice).values()))
            for name, secret in {**Seeds.new().by_name(), "m.megolm_backup.v1": bytes(32)}.items():
                await sends_secret(place, laptop, ids[name], unpadded_base64.encode(secret))
            # What came is acknowledged when it was handled.
            await until(lambda: not place.server.to_device[ALICE.user_id, ALICE.device_id])
            assert secrets_of(place.alice) == right

    asyncio.run(scenario())


@pytest.mark.parametrize("who", ["another user", "an unverified session", "not asked for"])
def test_secrets_of_others_are_refused(memory_url: str, caplog: pytest.LogCaptureFixture, who: str) -> None:
    async def scenario() -> None:
        async with with_laptop(memory_url) as (place, laptop), syncing(place.alice, laptop):
            ids = await asking(place, laptop)
            sender = {"another user": place.bob}.get(who, laptop)
            if who == "an unverified session":
                sender = Person(place.server, Account(ALICE.user_id, "ANOTHER"), memory_url)
                await sender.start()
                await sender.round()
                await sender.round()
            for name, secret in place.seeds[ALICE.user_id].by_name().items():
                request_id = "another" if who == "not asked for" else ids[name]
                await sends_secret(place, sender, request_id, unpadded_base64.encode(secret))
            await until(lambda: caplog.text.count("refused a secret") == 3)
            assert not any(secrets_of(place.alice).values())
            if who == "an unverified session":
                await sender.client.close()

    asyncio.run(scenario())


def test_a_request_that_another_session_can_take_is_not_declined(memory_url: str) -> None:
    async def scenario() -> None:
        async with with_laptop(memory_url) as (place, laptop):
            tablet = Person(place.server, Account(ALICE.user_id, "ALICETABLET"), memory_url)
            await tablet.start()
            await tablet.round()
            async with syncing(place.alice, laptop, tablet):
                asked = Asked(laptop)
                # The phone, a bot without a callback, leaves it to the laptop.
                await until(lambda: tablet.account.device_id in place.alice.client.device_store[ALICE.user_id])
                ours = await tablet.client.request_verification(ALICE.user_id)
                theirs = await asked.next()
                await theirs.accept()
                await compared(ours, theirs)
                # It is told that another one has taken it.
                await until(lambda: not left_over(place.alice))
                await ours.cancel()
            await tablet.client.close()

    asyncio.run(scenario())


def test_a_request_that_nobody_else_can_take_is_declined(memory_url: str) -> None:
    async def scenario() -> None:
        async with with_laptop(memory_url) as (place, laptop), syncing(place.alice, laptop):
            await until(lambda: LAPTOP.device_id in place.alice.client.device_store[ALICE.user_id])
            ours = await laptop.client.request_verification(ALICE.user_id)
            with pytest.raises(Exception, match=r"cancelled by the other side: m\.user"):
                await ended(ours)

    asyncio.run(scenario())
