"""How verifications end without a result: by people, by time, by a restart, by what cannot be believed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from nio import LocalProtocolError

from client_pairs import lockable, locked
from cryptostore import ConfigurationError, Device, VerificationCancelled
from cryptostore.nio.trust import verification as verifications
from cryptostore.nio.trust import verification_limits as limits
from cryptostore.trust import exchange, exchange_contents
from cryptostore.trust.cross_signing import Seeds
from cryptostore.trust.exchange import Phase
from small_homeserver import Json, Request
from verifying import (
    ALICE,
    BOB,
    ROOM,
    Asked,
    Town,
    compared,
    ended,
    is_verified,
    left_over,
    syncing,
    town,
    until,
)

STRANGER = "@mallory:small"


async def begun(place: Town, room: str | None = None) -> tuple[Any, Any]:
    """A verification that Bob has accepted."""
    asked = Asked(place.bob)
    alices = await place.alice.client.request_verification(BOB.user_id, room)
    bobs = await asked.next()
    await bobs.accept()
    await compared(alices, bobs)
    return alices, bobs


async def cancelled_with(code: str, *each: Any) -> None:
    for verification in each:
        with pytest.raises(VerificationCancelled) as caught:
            await ended(verification)
        assert caught.value.code == code


def request(device_id: str = "DEVICE", transaction: str = "transaction", **changes: Any) -> Json:
    content = {"from_device": device_id, "methods": ["m.sas.v1"], "timestamp": int(time.time() * 1000)}
    return {"transaction_id": transaction, **content, **changes}


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


def fault(part: str, status: int, errcode: str = "M_UNKNOWN") -> Any:
    def answer(asked: Request) -> web.StreamResponse | None:
        is_meant = asked.is_for(part)
        return web.json_response({"errcode": errcode, "error": "no"}, status=status) if is_meant else None

    return answer


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
            asked = Asked(place.bob)
            alices = await place.alice.client.request_verification(BOB.user_id)
            bobs = await asked.next()
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
            asked = Asked(place.bob)
            alices = await place.alice.client.request_verification(BOB.user_id)
            bobs = await asked.next()
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
            asked = Asked(place.bob)
            alices = await place.alice.client.request_verification(BOB.user_id)
            bobs = await asked.next()
            left = [3]

            def away(request: Request) -> web.StreamResponse | None:
                if not request.is_for(part) or not left[0]:
                    return None
                left[0] -= 1
                return web.json_response({"errcode": "M_UNKNOWN", "error": "away"}, status=502)

            place.server.faults.append(away)
            await bobs.accept()
            await compared(alices, bobs)
            await alices.confirm()
            await bobs.confirm()
            await ended(alices, bobs)
            assert left == [0]

    asyncio.run(scenario())


def test_a_homeserver_that_cannot_ask_the_others_is_asked_again(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifications, "_FIRST_PAUSE", 0.01)

    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            asked = Asked(place.bob)
            alices = await place.alice.client.request_verification(BOB.user_id)
            bobs = await asked.next()
            left = [3]

            def away(request: Request) -> web.StreamResponse | None:
                if not request.is_for("keys/query") or request.user != BOB.user_id or not left[0]:
                    return None
                left[0] -= 1
                return web.json_response({"device_keys": {}, "failures": {"small": {"status": 503}}})

            place.server.faults.append(away)
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


def test_a_room_that_takes_nothing_ends_it(memory_url: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            asked = Asked(place.bob)
            await place.alice.client.request_verification(BOB.user_id, ROOM)
            bobs = await asked.next()
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


def test_only_the_master_key_makes_a_user_verified(memory_url: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            # Bob's client does not know that the identity is Bob's.
            for name in Seeds.new().by_name():
                place.bob.store.secrets.drop(name)
            alices, bobs = await begun(place)
            await alices.confirm()
            await bobs.confirm()
            seen = await ended(alices, bobs)
            assert [(each.user, each.device) for each in seen] == [(False, True), (True, True)]
            assert not is_verified(place.alice, place.bob)
            assert not place.has_signed(place.alice, place.bob)
            assert place.alice.client.device_store[BOB.user_id][BOB.device_id].verified
            # Without seeds, what Bob has verified stays in his own store.
            assert is_verified(place.bob, place.alice)
            assert not place.has_signed(place.bob, place.alice)

    asyncio.run(scenario())


def test_an_identity_that_changes_meanwhile_is_not_verified(memory_url: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            alices, bobs = await begun(place)
            place.known.set_identity(BOB.user_id, Seeds.new())
            await until(lambda: place.alice.store.identities.is_changed(BOB.user_id))
            await alices.confirm()
            await bobs.confirm()
            with pytest.raises(VerificationCancelled):
                await ended(alices)
            assert not is_verified(place.alice, place.bob)

    asyncio.run(scenario())


def test_a_verified_user_with_a_new_identity_is_verified_anew(memory_url: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            master_key = place.seeds[BOB.user_id].public.master
            await until(lambda: place.alice.store.identities.set_verified(BOB.user_id, master_key))
            place.seeds[BOB.user_id] = place.give_identity(place.bob)
            await until(lambda: place.alice.store.identities.is_stopped(BOB.user_id))
            alices, bobs = await begun(place)
            await alices.confirm()
            await bobs.confirm()
            await ended(alices, bobs)
            assert is_verified(place.alice, place.bob)
            assert not place.alice.store.identities.is_stopped(BOB.user_id)

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
