"""Verifications with a homeserver or a database that fails, answers late, or takes nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from nio import LocalProtocolError

from client_pairs import lockable, locked
from cryptostore import ConfigurationError, Device, VerificationCancelled
from cryptostore.nio.trust import verification as verifications
from small_homeserver import PAGES, Request, page
from verifying import (
    BOB,
    ROOM,
    Asked,
    begun,
    compared,
    ended,
    fault,
    is_verified,
    left_over,
    requested,
    syncing,
    town,
    until,
)


def test_a_result_that_cannot_be_saved_waits(memory_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifications, "_FIRST_PAUSE", 0.01)

    async def scenario() -> None:
        async with town(lockable(tmp_path), memory_url) as place:
            async with syncing(place.alice, place.bob):
                alices, bobs = await begun(place)
                await bobs.confirm()
                await until(lambda: alices._exchange.verified)
            with locked(tmp_path):
                confirming = asyncio.create_task(alices.confirm())
                await asyncio.sleep(1.5)
                assert "done" not in place.sent(place.alice)
                assert not is_verified(place.alice, place.bob)
            async with syncing(place.alice, place.bob):
                await confirming
                await ended(alices, bobs)
            assert is_verified(place.alice, place.bob)
            await place.alice.come_back_after_a_crash()
            device = place.alice.client.device_store[BOB.user_id][BOB.device_id]
            assert device.verified
            assert [row.trust.value for row in place.alice.stored(Device) if row.user_id == BOB.user_id] == ["verified"]

    asyncio.run(scenario())


@pytest.mark.parametrize("part", ["m.key.verification.ready", "m.key.verification.done", "keys/query", "signatures"])
def test_a_homeserver_that_is_away_is_asked_again(memory_url: str, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifications, "_FIRST_PAUSE", 0.01)

    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            alices, bobs = await requested(place)
            away = web.json_response({"errcode": "M_UNKNOWN", "error": "away"}, status=502)
            left = [away, *map(page, PAGES)]
            place.server.faults.append(lambda request: left.pop() if request.is_for(part) and left else None)
            await bobs.accept()
            await compared(alices, bobs)
            await alices.confirm()
            await bobs.confirm()
            await ended(alices, bobs)
            assert left == []

    asyncio.run(scenario())


def test_a_homeserver_that_cannot_ask_the_others_is_asked_again(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifications, "_FIRST_PAUSE", 0.01)

    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            alices, bobs = await requested(place)
            failures = {"device_keys": {}, "failures": {"small": {"status": 503}}}
            left = [web.json_response(failures) for _ in range(3)]

            def is_bobs(request: Request) -> bool:
                return request.is_for("keys/query") and request.user == BOB.user_id

            place.server.faults.append(lambda request: left.pop() if is_bobs(request) and left else None)
            await bobs.accept()
            await compared(alices, bobs)

    asyncio.run(scenario())


def test_an_answer_that_comes_before_the_id_of_the_request_counts(memory_url: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            asked, ours = Asked(place.bob), place.alice.client._trust.verifications
            ask = ours._requests.ask

            async def slowly(*path: str, **content: Any) -> Any:
                answer = await ask(*path, **content)
                if "m.room.message" in path:
                    await (await asked.next()).accept()
                    await until(lambda: ours._early)
                return answer

            ours._requests.ask = slowly  # type: ignore[method-assign]
            alices = await place.alice.client.request_verification(BOB.user_id, ROOM)
            async with asyncio.timeout(20):
                assert (await alices.comparison()).emoji
            assert not ours._early

    asyncio.run(scenario())


def test_a_room_that_takes_nothing_ends_it(memory_url: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            _, bobs = await requested(place, ROOM)
            place.server.faults.append(fault("/send/", 403, "M_FORBIDDEN"))
            with pytest.raises(LocalProtocolError, match="has ended"):
                await bobs.accept()
            await until(lambda: not left_over(place.bob))
            with pytest.raises(
                ConfigurationError, match=r"does not let @bob:small be asked in !room:small.*M_FORBIDDEN"
            ):
                await place.alice.client.request_verification(BOB.user_id, ROOM)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda place: place.server.faults.append(_refuses_signatures),
        lambda place: place.server.faults.append(_drops_signatures),
    ],
    ids=["refused", "dropped without a word"],
)
def test_without_a_signature_there_is_no_done(memory_url: str, spoil: Any) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            alices, bobs = await begun(place)
            spoil(place)
            await alices.confirm()
            await bobs.confirm()
            for each in (alices, bobs):
                with pytest.raises(VerificationCancelled):
                    await ended(each)
            assert "done" not in place.sent(place.alice) + place.sent(place.bob)
            assert not is_verified(place.alice, place.bob)

    asyncio.run(scenario())


def _refuses_signatures(asked: Request) -> web.StreamResponse | None:
    failures = {BOB.user_id: {"key": {"errcode": "M_INVALID_SIGNATURE", "error": "no"}}}
    return web.json_response({"failures": failures}) if asked.is_for("signatures/upload") else None


def _drops_signatures(asked: Request) -> web.StreamResponse | None:
    return web.json_response({"failures": {}}) if asked.is_for("signatures/upload") else None


def test_nobody_there_to_ask(memory_url: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place:
            client = place.alice.client
            with pytest.raises(ConfigurationError, match="has no device that could be asked"):
                await client.request_verification("@nobody:small")
            with pytest.raises(ConfigurationError, match="give one of them"):
                await client.request_verification(BOB.user_id, ROOM, BOB.device_id)
            place.server.faults.append(fault("sendToDevice", 403, "M_FORBIDDEN"))
            with pytest.raises(ConfigurationError, match="does not let @bob:small be asked"):
                await client.request_verification(BOB.user_id, device_id=BOB.device_id)
            assert not client._trust.verifications.under_way

    asyncio.run(scenario())
