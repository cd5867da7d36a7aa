"""How verifications end without a result: by people, by time, by a restart, by what raises."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from nio import LocalProtocolError

from cryptostore import VerificationCancelled
from cryptostore.trust import exchange
from cryptostore.trust.exchange import Phase
from verifying import (
    BOB,
    ROOM,
    Asked,
    begun,
    cancelled_with,
    compared,
    ended,
    fault,
    left_over,
    requested,
    syncing,
    town,
    until,
)


@pytest.mark.parametrize("room", [None, ROOM], ids=["between devices", "in a room"])
@pytest.mark.parametrize("who", ["alice", "bob"])
def test_a_flow_that_a_restart_cut_is_cancelled(url: str, room: str | None, who: str) -> None:
    async def scenario() -> None:
        async with town(url) as place:
            async with syncing(place.alice, place.bob):
                alices, bobs = await begun(place, room)
            restarted, other = (place.alice, bobs) if who == "alice" else (place.bob, alices)
            await restarted.come_back_after_a_crash()
            assert left_over(restarted)
            async with syncing(place.alice, place.bob):
                await cancelled_with("m.unknown_transaction", other)
                await until(lambda: not left_over(place.alice) and not left_over(place.bob))

    asyncio.run(scenario())


def test_a_cut_flow_waits_for_the_homeserver(memory_url: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place:
            async with syncing(place.alice, place.bob):
                alices, _ = await begun(place)
            await place.bob.come_back_after_a_crash()
            place.server.faults.append(fault("m.key.verification.cancel", 502))
            await place.bob.round()
            assert left_over(place.bob)
            place.server.faults.clear()
            await place.bob.round()
            await place.bob.client.flush()
            assert not left_over(place.bob)
            async with syncing(place.alice):
                await cancelled_with("m.unknown_transaction", alices)

    asyncio.run(scenario())


def test_who_closes_says_so(memory_url: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place:
            async with syncing(place.alice, place.bob):
                alices, bobs = await begun(place)
            await place.bob.client.close()
            assert bobs.phase is Phase.CANCELLED
            assert not left_over(place.bob)
            async with syncing(place.alice):
                await cancelled_with("m.user", alices)

    asyncio.run(scenario())


def test_a_request_that_nobody_decides_about_times_out(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "PROMPT", 0.2)

    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            alices, bobs = await requested(place)
            await cancelled_with("m.timeout", alices, bobs)
            with pytest.raises(LocalProtocolError, match="has ended"):
                await bobs.accept()
            with pytest.raises(VerificationCancelled, match=r"cancelled here: m\.timeout"):
                await bobs.comparison()

    asyncio.run(scenario())


def test_a_verification_that_nobody_ends_times_out(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "LIFE", 2.0)

    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            await cancelled_with("m.timeout", *await begun(place))

    asyncio.run(scenario())


def test_decisions_out_of_turn_are_errors(memory_url: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            alices, bobs = await requested(place)
            for call in (alices.accept, alices.confirm, bobs.confirm):
                with pytest.raises(LocalProtocolError, match=r"there is (no request|nothing) to"):
                    await call()
            await bobs.accept()
            with pytest.raises(LocalProtocolError, match="no request to accept"):
                await bobs.accept()
            await compared(alices, bobs)
            await bobs.cancel()
            await cancelled_with("m.user", alices, bobs)

    asyncio.run(scenario())


def test_a_callback_that_raises_ends_it(memory_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_verification: Any) -> None:
        raise ZeroDivisionError

    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            place.bob.client.on_verification(broken)
            await cancelled_with("m.user", await place.alice.client.request_verification(BOB.user_id))

    asyncio.run(scenario())
    assert "callback for verifications raised" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_what_an_event_makes_raise_ends_one_verification(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RecursionError

    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            alices, bobs = await begun(place)
            monkeypatch.setattr(bobs._exchange, "receive", broken)
            await alices.confirm()
            with pytest.raises(VerificationCancelled):
                await ended(bobs)
            monkeypatch.undo()
            await alices.cancel()
            await begun(place)

    asyncio.run(scenario())


def test_who_asks_twice_at_once_gets_neither(memory_url: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            asked = Asked(place.bob)
            first = await place.alice.client.request_verification(BOB.user_id)
            await asked.next()
            second = await place.alice.client.request_verification(BOB.user_id)
            await cancelled_with("m.unexpected_message", first, second)
            third = await place.alice.client.request_verification(BOB.user_id)
            assert (await asked.next()).transaction_id == third.transaction_id

    asyncio.run(scenario())
