"""What anybody may write about verifications: too many requests, nonsense, and the unknown."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from cryptostore.nio.trust import verification_limits as limits
from cryptostore.trust import exchange_contents
from small_homeserver import Json
from verifying import (
    ALICE,
    BOB,
    ROOM,
    Asked,
    begun,
    cancelled_with,
    ended,
    left_over,
    syncing,
    town,
    until,
)

STRANGER = "@mallory:small"


def request(device_id: str = "DEVICE", transaction: str = "transaction", **changes: Any) -> Json:
    content = {"from_device": device_id, "methods": ["m.sas.v1"], "timestamp": int(time.time() * 1000)}
    return {"transaction_id": transaction, **content, **changes}


def test_a_stranger_who_begins_a_thousand_is_left_alone(memory_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place:
            place.server.page_size = 10_000
            asked = Asked(place.bob)
            for number in range(1000):
                place.write(STRANGER, BOB, "request", request(f"DEVICE{number}", f"transaction {number}"))
            await place.bob.round()
            ours = place.bob.client._trust.verifications
            assert len(ours.under_way) == asked.came.qsize() == limits.MOST_OPEN_OF_USER
            assert ours._limits.refused == 1000 - limits.MOST_OPEN_OF_USER
            assert not place.sent(place.bob)
            # From many users, there are no more than so many.
            for number in range(1000):
                place.write(f"@mallory{number}:small", BOB, "request", request("DEVICE", f"transaction {number}"))
            await place.bob.round()
            assert len(ours.under_way) == limits.MOST_OPEN
            lines = [each for each in caplog.messages if "too many verifications" in each]
            assert len(lines) < 5

    with caplog.at_level(logging.INFO, "cryptostore"):
        asyncio.run(scenario())


def test_a_stranger_who_is_declined_is_declined_ten_times(memory_url: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.bob):
            for number in range(100):
                place.write(STRANGER, BOB, "request", request("DEVICE", f"transaction {number}"))
                await until(lambda: not place.bob.client._trust.verifications.under_way)
                if number % 10 == 9:
                    await asyncio.sleep(0.1)
            await asyncio.sleep(0.2)
            assert len(place.sent(place.bob)) <= limits.MOST_BEGUN_OF_USER
            assert len(place.bob.client._trust.verifications._limits._begun) <= limits.MOST_BEGUN_OF_USER

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "content",
    [
        lambda: request(timestamp=int((time.time() - 601) * 1000)),
        lambda: request(timestamp=int((time.time() + 400) * 1000)),
        lambda: request(timestamp=None),
        lambda: request(timestamp=1e400),
        lambda: request(timestamp=float("nan")),
        lambda: request(timestamp=10**400),
        lambda: request(timestamp=-(10**400)),
        lambda: request(timestamp=True),
        lambda: request(methods=["m.qr_code.scan.v1"]),
        lambda: request(methods=None),
        lambda: request(from_device=None),
        lambda: request(from_device="nul\0", transaction="nul\0"),
        lambda: request(transaction="x" * 300),
        lambda: request(transaction=5),  # type: ignore[arg-type]  # what a stranger may write
    ],
    ids=[
        "old",
        "to come",
        "no time",
        "endless",
        "no number",
        "huge",
        "tiny",
        "yes",
        "no method",
        "no methods",
        "no device",
        "NUL",
        "long",
        "number",
    ],
)
def test_requests_that_cannot_be_met_are_left_alone(memory_url: str, content: Callable[[], Json]) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place:
            asked = Asked(place.bob)
            place.write(ALICE.user_id, BOB, "request", content())
            await place.bob.round()
            await asyncio.sleep(0.1)
            assert asked.came.empty()
            assert not place.sent(place.bob)
            assert not left_over(place.bob)

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["ready", "accept", "key", "mac"])
def test_who_goes_on_with_what_is_not_known_is_told(memory_url: str, kind: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.bob):
            for _ in range(3):
                place.write(ALICE.user_id, BOB, kind, {"transaction_id": "unknown"})
            await until(lambda: place.sent(place.bob))
            await asyncio.sleep(0.2)
            assert place.sent(place.bob) == ["cancel"]
            (content,) = [each for _, each in place.server.to_device[ALICE.user_id, ALICE.device_id]]
            assert content["content"]["code"] == "m.unknown_transaction"

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["done", "cancel", "later"])
def test_what_ends_the_unknown_is_left_alone(memory_url: str, kind: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place:
            place.write(ALICE.user_id, BOB, kind, {"transaction_id": "unknown"})
            await place.bob.round()
            await asyncio.sleep(0.1)
            assert not place.sent(place.bob)

    asyncio.run(scenario())


def test_an_unknown_device_is_not_verified(memory_url: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.bob):
            asked = Asked(place.bob)
            place.write(ALICE.user_id, BOB, "request", request("UNKNOWN"))
            bobs = await asked.next()
            await bobs.accept()
            await cancelled_with("m.key_mismatch", bobs)
            assert place.sent(place.bob) == ["cancel"]

    asyncio.run(scenario())


def test_an_older_client_begins_without_asking(memory_url: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.bob):
            asked = Asked(place.bob)
            start = exchange_contents.start(ALICE.device_id)
            place.write(ALICE.user_id, BOB, "start", {**start, "transaction_id": "transaction"})
            bobs = await asked.next()
            assert not place.sent(place.bob)
            await bobs.accept()
            await until(lambda: place.sent(place.bob))
            assert place.sent(place.bob) == ["accept"]
            await bobs.cancel()

    asyncio.run(scenario())


def room_request(to: str = BOB.user_id, device_id: str = ALICE.device_id) -> Json:
    return exchange_contents.room_request(device_id, to)


def test_what_others_do_in_a_room_is_left_alone(memory_url: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place:
            asked = Asked(place.bob)
            event_id = place.say(ALICE.user_id, "m.room.message", room_request(to="@carol:small"))
            relation = {"m.relates_to": {"rel_type": "m.reference", "event_id": event_id}}
            for kind in ("ready", "start", "accept", "key", "mac", "done", "cancel", "request"):
                place.say(ALICE.user_id, f"m.key.verification.{kind}", {"from_device": "A", **relation})
                place.say(STRANGER, f"m.key.verification.{kind}", {"m.relates_to": []})
            await place.bob.round()
            await asyncio.sleep(0.1)
            assert asked.came.empty()
            assert not place.sent(place.bob)

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["ready", "cancel"])
def test_a_sibling_takes_the_request_in_a_room(memory_url: str, kind: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.bob):
            asked = Asked(place.bob)
            event_id = place.say(ALICE.user_id, "m.room.message", room_request())
            bobs = await asked.next()
            relation = {"m.relates_to": {"rel_type": "m.reference", "event_id": event_id}}
            place.say(BOB.user_id, f"m.key.verification.{kind}", {"from_device": "SIBLING", **relation})
            await cancelled_with("m.accepted", bobs)
            assert not place.sent(place.bob)
            await until(lambda: not left_over(place.bob))

    asyncio.run(scenario())


def test_an_answer_by_another_way_belongs_to_nothing(memory_url: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            alices, bobs = await begun(place, ROOM)
            place.write(ALICE.user_id, BOB, "cancel", {"transaction_id": bobs.transaction_id, "code": "m.user"})
            place.write(STRANGER, ALICE, "cancel", {"transaction_id": bobs.transaction_id, "code": "m.user"})
            await alices.confirm()
            await bobs.confirm()
            await ended(alices, bobs)

    asyncio.run(scenario())
