"""What each rule of pruning names, and that together they name nothing twice."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from cryptostore import (
    KINDS,
    Backend,
    ConfigurationError,
    Device,
    DeviceTrust,
    EncryptedRoom,
    InboundGroupSession,
    Key,
    MissedEvents,
    Mode,
    OlmSession,
    OutboundGroupSession,
    OutgoingKeyRequest,
    Record,
    ReplayPage,
    Row,
    SharedPart,
    SyncToken,
)
from cryptostore.records.fields import day_of
from cryptostore.store import prunable, pruning
from cryptostore.store.keys import encode_key
from cryptostore.store.prunable import Pruned, Rules
from cryptostore.store.pruning import prune
from example_records import ALICE, example
from sealed_database import KEY, backend, saved

__all__ = ["backend"]

NOW: Final = datetime(2026, 6, 1, tzinfo=UTC)


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything goes on beyond a page."""
    for name, size in {"_PAGE": 3, "_SESSIONS": 2, "_DEVICES": 2}.items():
        monkeypatch.setattr(prunable, name, size)
    monkeypatch.setattr(pruning, "_BATCH", 4)


def session(number: int, room: str = "!one:x", received: float = 100) -> InboundGroupSession:
    return example(InboundGroupSession, room_id=room, session_id=f"session{number}", received_at=ago(received))


def page(of: InboundGroupSession, used: float | None, number: int = 0) -> ReplayPage:
    used_on = 0 if used is None else day_of(ago(used))
    return ReplayPage(of.session_id, of.sender_key, number, b"\x01", bytes(12), used_on)


def olm(sender_key: str, number: int, used: float) -> OlmSession:
    return example(OlmSession, sender_key=sender_key, session_id=f"{number}", last_used_at=ago(used))


def device(user: str, number: int, key: str, *, deleted: bool = True, **fields: Any) -> Device:
    keys = {"curve25519": key, "ed25519": f"signs{number}"} if key else {}
    return Device(user, f"DEVICE{number}", keys, deleted=deleted, **fields)


def left(backend: Backend, kind: type[Record]) -> set[Key]:
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        return set(store.keys(kind))


def pruned(backend: Backend, rules: Rules) -> Pruned:
    """What goes; a dry run before names the same."""
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        expected = prune(store, rules, dry_run=True)
    before = {kind: left(backend, kind) for kind in KINDS}
    with backend.open_store(ALICE, pickle_key=KEY) as store:
        done = prune(store, rules)
    assert done == expected
    gone = {kind.kind_name: len(before[kind] - left(backend, kind)) for kind in KINDS}
    assert {name: number for name, number in gone.items() if number} == done.deleted
    return done


def spoil(backend: Backend, *records: Record) -> None:
    with backend.open_store(ALICE, pickle_key=KEY) as store:
        store.put_rows([Row(encode_key(type(each), each.key), b"damaged") for each in records])


def test_sessions_that_no_message_was_read_with(backend: Backend) -> None:
    never, long_ago, lately, unknown, new, damaged = (session(number) for number in range(6))
    new = replace(new, received_at=ago(10))
    pages = [
        page(long_ago, 90),
        page(long_ago, 70, 1),
        page(lately, 90),
        page(lately, 5, 1),
        page(unknown, 90),
        page(unknown, None, 1),
        page(damaged, 90),
    ]
    saved(backend, SyncToken("s"), never, long_ago, lately, unknown, new, damaged, *pages)
    spoil(backend, pages[-1])
    done = pruned(backend, Rules(unused_since=ago(60)))
    assert done.deleted == {"inbound_group_session": 2, "replay_page": 2}
    assert left(backend, InboundGroupSession) == {each.key for each in (lately, unknown, new, damaged)}


@pytest.mark.parametrize(("used", "goes"), [(66, False), (67, True)])
def test_the_day_of_a_page_may_be_a_week_too_early(backend: Backend, used: float, goes: bool) -> None:
    one = session(1)
    saved(backend, SyncToken("s"), one, page(one, used))
    done = pruned(backend, Rules(unused_since=ago(60)))
    assert bool(done.deleted) is goes
    assert bool(pruned(backend, Rules(replay_before=ago(60))).deleted) is False


@pytest.mark.parametrize("rooms", [(), ("!one:x", "!none:x")])
def test_replay_pages_alone(backend: Backend, rooms: tuple[str, ...]) -> None:
    sessions = [session(number, room) for number, room in enumerate(["!one:x", "!two:x"] * 3)]
    pages = [page(each, used, number) for each in sessions for number, used in enumerate((90, 67, 66, None))]
    orphan = page(session(99), 90)
    saved(backend, SyncToken("s"), *sessions, *pages, orphan)
    done = pruned(backend, Rules(replay_before=ago(60), rooms=frozenset(rooms)))
    # Of rooms alone, where they are given: a page without its session is in none.
    assert done.deleted == {"replay_page": 6 if rooms else 13}
    assert left(backend, InboundGroupSession) == {each.key for each in sessions}


def test_a_room_goes_with_what_this_device_sent_there(backend: Backend) -> None:
    rooms = ["!one:x", "!two:x"]
    outbound = [example(OutboundGroupSession, room_id=room, created_at=ago(80), parts=2) for room in rooms]
    parts = [SharedPart(room, "own session", part) for room in rooms for part in range(2)]
    saved(backend, SyncToken("s"), *outbound, *parts, session(1), *map(EncryptedRoom, rooms))
    spoil(backend, parts[1])
    assert not pruned(backend, Rules(rooms=frozenset(rooms), received_before=ago(100))).deleted
    done = pruned(backend, Rules(rooms=frozenset(rooms[:1])))
    assert done.deleted == {"inbound_group_session": 1, "outbound_group_session": 1, "shared_part": 2}
    assert left(backend, SharedPart) == {each.key for each in parts[2:]}
    # It stays encrypted, whatever is forgotten of it.
    assert left(backend, EncryptedRoom) == {("!one:x",), ("!two:x",)}


def test_devices_that_are_gone_go_with_their_olm_sessions(backend: Backend) -> None:
    goes = [device("@bob:x", 1, "bobs"), device("@bob:x", 2, ""), device("@carol:x", 3, "carols")]
    stays = [
        device("@bob:x", 4, "present", deleted=False),
        device("@bob:x", 5, "used lately"),
        device("@bob:x", 6, "damaged"),
        device("@dave:x", 7, "blocked", trust=DeviceTrust.BLACKLISTED),
        device("@dave:x", 8, "verified", trust=DeviceTrust.VERIFIED),
    ]
    # Whoever says that a key is theirs takes nobody's sessions along.
    thief = device("@eve:x", 9, "present")
    sessions = [olm(str(each.keys.get("curve25519")), number, 90) for each in [*goes, *stays] for number in range(2)]
    sessions = [each for each in sessions if each.sender_key != "None"]
    used = olm("used lately", 2, 5)
    saved(backend, SyncToken("s"), *goes, *stays, thief, *sessions, used)
    spoil(backend, next(each for each in sessions if each.sender_key == "damaged"))
    done = pruned(backend, Rules(gone_before=ago(60)))
    assert done.deleted == {"device": 4, "olm_session": 4}
    assert left(backend, Device) == {each.key for each in stays}
    kept = {each.key for each in [*sessions, used]} - {(key, f"{n}") for key in ("bobs", "carols") for n in range(2)}
    assert left(backend, OlmSession) == kept


def test_two_devices_with_one_key_take_its_sessions_along_once(backend: Backend) -> None:
    both = [device("@bob:x", number, "shared") for number in (1, 2)]
    saved(backend, SyncToken("s"), *both, olm("shared", 1, 90), olm("shared", 2, 91))
    assert pruned(backend, Rules(gone_before=ago(60))).deleted == {"device": 2, "olm_session": 2}


def test_news_of_missed_events(backend: Backend) -> None:
    news = [example(MissedEvents, number=number, noticed_at=ago(days)) for number, days in enumerate((90, 60, 61, 1))]
    saved(backend, SyncToken("s"), *news)
    assert pruned(backend, Rules(missed_before=ago(60))).deleted == {"missed_events": 2}


def test_what_cannot_be_read_is_kept_and_counted(backend: Backend) -> None:
    sessions = [session(number) for number in range(8)]
    olms = [olm("bobs", number, 90) for number in range(8)]
    saved(backend, SyncToken("s"), *sessions, *olms)
    damaged = [sessions[0], sessions[4], sessions[7], olms[2]]
    spoil(backend, *damaged)
    done = pruned(backend, Rules(received_before=ago(50), olm_sessions=1))
    assert done.deleted["inbound_group_session"] == 5
    assert done.unreadable == {"inbound_group_session": 3, "olm_session": 1}
    assert {each.key for each in damaged[:3]} == left(backend, InboundGroupSession)


def test_replay_pages_are_kept_as_long_as_they_say_something() -> None:
    with pytest.raises(ConfigurationError, match="keep them for as long as sessions that are not used"):
        Rules(unused_since=ago(60), replay_before=ago(59))
    assert Rules(unused_since=ago(60), replay_before=ago(60)).has_sessions


def accounts(draw: random.Random) -> Iterator[Record]:
    """An account with everything, old and new."""
    yield SyncToken("s")
    for number in range(draw.randrange(12)):
        one = session(number, draw.choice(["!one:x", "!two:x"]), draw.uniform(0, 200))
        yield one
        yield from (page(one, draw.choice([None, 1, 70, 150]), n) for n in range(draw.randrange(3)))
        yield OutgoingKeyRequest(f"request{number}", f"session{number * 2}", one.room_id, "m.megolm.v1.aes-sha2")
    yield example(OutboundGroupSession, room_id="!one:x", created_at=ago(draw.uniform(0, 200)))
    for number in range(draw.randrange(12)):
        trust = draw.choice([DeviceTrust.UNSET, DeviceTrust.UNSET, DeviceTrust.BLACKLISTED])
        key = f"key{draw.randrange(9)}"
        yield device("@bob:x", number, key, deleted=draw.random() < 0.7, trust=trust)
    for name in range(9):
        yield from (olm(f"key{name}", number, draw.uniform(0, 200)) for number in range(draw.randrange(5)))


@pytest.mark.parametrize("run", range(12))
def test_rules_together_name_nothing_twice(backend: Backend, run: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Devices that share a key are told apart among those that are looked for together.
    monkeypatch.setattr(prunable, "_DEVICES", 12)
    draw = random.Random(f"{run}")
    saved(backend, *accounts(draw))
    rules = Rules(
        received_before=draw.choice([None, ago(120)]),
        unused_since=draw.choice([None, ago(100)]),
        rooms=draw.choice([frozenset(), frozenset(["!one:x"])]),
        replay_before=draw.choice([None, ago(100)]),
        olm_sessions=draw.choice([None, 1, 2]),
        gone_before=draw.choice([None, ago(30)]),
        answered_requests=draw.random() < 0.5,
    )
    pruned(backend, rules)
    assert not pruned(backend, rules).deleted


def test_no_batch_is_larger_than_it_may_be(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "_BATCH", 10)
    sessions = [session(number) for number in range(50)]
    saved(backend, SyncToken("s"), *sessions, *(page(each, 90, n) for each in sessions for n in range(3)))
    sizes: list[int] = []
    with backend.open_store(ALICE, pickle_key=KEY) as store:
        monkeypatch.setattr(type(store), "apply", lambda _store, changes: sizes.append(len(changes)))
        prune(store, Rules(received_before=ago(50)))
    # Two sessions with three pages each; and never a part of one.
    assert sizes == [8] * 25


def test_what_is_held_does_not_grow_with_what_is_there(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    sessions = [session(number) for number in range(3_000)]
    saved(backend, SyncToken("s"), *sessions, *(page(each, 90) for each in sessions))
    del sessions
    held: list[int] = []

    def count(_number: int = 0) -> None:
        held.append(sum(isinstance(each, InboundGroupSession | ReplayPage) for each in gc.get_objects()))

    gc.collect()
    count()
    before = held.pop()
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        done = prune(store, Rules(unused_since=ago(60)), dry_run=True, advance=count)
    assert done.deleted == {"inbound_group_session": 3_000, "replay_page": 3_000}
    assert len(held) == 6
    # Two pages of sessions, and the replay pages of a piece of one.
    assert 500 <= max(held) - before <= 2 * 500 + 2 * 100
