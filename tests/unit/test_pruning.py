"""Pruning an account: what the rules say goes, with all that belongs to it, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from cryptostore import (
    Backend,
    ConfigurationError,
    InboundGroupSession,
    Key,
    KeyBackup,
    Mode,
    OlmSession,
    OutgoingKeyRequest,
    Record,
    ReplayPage,
    Row,
    SessionToBackUp,
    SyncToken,
)
from cryptostore.store import prunable, pruning
from cryptostore.store.keys import encode_key, encode_own_key
from cryptostore.store.prunable import Pruned, Rules
from cryptostore.store.pruning import prune
from example_records import ALICE, example
from sealed_database import KEY, backend, damage_count, rows_of, saved

__all__ = ["backend"]

NOW: Final = datetime(2026, 6, 1, tzinfo=UTC)
OLD: Final = NOW - timedelta(days=100)
ROOMS: Final = ("!one:x", "!two:x")
BEFORE: Final = Rules(received_before=NOW - timedelta(days=50))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything goes on beyond a page."""
    monkeypatch.setattr(prunable, "_PAGE", 3)
    monkeypatch.setattr(prunable, "_SESSIONS", 2)
    monkeypatch.setattr(prunable, "_DEVICES", 2)
    monkeypatch.setattr(pruning, "_BATCH", 9)


def session(number: int, room: str, received_at: datetime) -> InboundGroupSession:
    return example(InboundGroupSession, room_id=room, session_id=f"session{number}", received_at=received_at)


def pages(*sessions: InboundGroupSession) -> list[Record]:
    return [
        ReplayPage(each.session_id, each.sender_key, page, b"\x01", bytes(12)) for each in sessions for page in range(2)
    ]


#: In each room eight sessions, the first half of them old.
SESSIONS: Final = [
    session(number, room, OLD if number % 8 < 4 else NOW)
    for number, room in enumerate(room for room in ROOMS for _ in range(8))
]
OTHERS: Final[list[Record]] = [SyncToken("s1")]


def filled(backend: Backend, *more: Record) -> None:
    saved(backend, *OTHERS, *SESSIONS, *pages(*SESSIONS), *more)


def pruned(backend: Backend, rules: Rules) -> Pruned:
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        expected = prune(store, rules, dry_run=True)
    advanced: list[int] = []
    with backend.open_store(ALICE, pickle_key=KEY) as store:
        done = prune(store, rules, advance=advanced.append)
    assert done == expected
    assert sum(advanced) == done.deleted.total()
    return done


def left(backend: Backend, kind: type[Record]) -> set[Key]:
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        return set(store.keys(kind))


@pytest.mark.parametrize(
    ("rules", "goes"),
    [
        (BEFORE, lambda each: each.received_at == OLD),
        (Rules(rooms=frozenset([ROOMS[1]])), lambda each: each.room_id == ROOMS[1]),
        (
            Rules(received_before=BEFORE.received_before, rooms=frozenset([ROOMS[0], "!none:x"])),
            lambda each: each.room_id == ROOMS[0] and each.received_at == OLD,
        ),
        (Rules(received_before=OLD), lambda _each: False),
        (Rules(), lambda _each: False),
    ],
)
def test_sessions_go_with_their_pages(backend: Backend, rules: Rules, goes: object) -> None:
    assert callable(goes)
    filled(backend)
    stay = [each for each in SESSIONS if not goes(each)]
    gone = len(SESSIONS) - len(stay)
    done = pruned(backend, rules)
    assert done.deleted == {"inbound_group_session": gone, "replay_page": 2 * gone} if gone else not done.deleted
    assert left(backend, InboundGroupSession) == {each.key for each in stay}
    assert left(backend, ReplayPage) == {each.key for each in pages(*stay)}
    assert left(backend, SyncToken) == {()}


def test_a_dry_run_changes_nothing(backend: Backend) -> None:
    filled(backend)
    before = dict(rows_of(backend, ALICE))
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        assert prune(store, BEFORE, dry_run=True).deleted["inbound_group_session"] == 8
    assert rows_of(backend, ALICE) == before


def test_sessions_that_are_not_in_the_backup_yet_are_kept(backend: Backend) -> None:
    waiting = [each for each in SESSIONS if each.received_at == OLD][:5]
    notes = [SessionToBackUp(*map(str, each.key)) for each in waiting]
    filled(backend, example(KeyBackup, is_walked=True), *notes)
    done = pruned(backend, BEFORE)
    assert (done.deleted["inbound_group_session"], done.not_backed_up) == (3, 5)
    assert {each.key for each in waiting} <= left(backend, InboundGroupSession)


def test_a_backup_that_has_not_seen_all_sessions(backend: Backend) -> None:
    filled(backend, example(KeyBackup, is_walked=False))
    before = dict(rows_of(backend, ALICE))
    with backend.open_store(ALICE, pickle_key=KEY) as store:
        with pytest.raises(ConfigurationError, match="has not seen all of its sessions yet"):
            prune(store, BEFORE)
        assert prune(store, Rules(olm_sessions=1)) == Pruned()
    assert rows_of(backend, ALICE) == before


def test_a_backup_whose_record_is_damaged(backend: Backend) -> None:
    filled(backend)
    with backend.open_store(ALICE, pickle_key=KEY) as store:
        store.put_rows([Row(encode_key(KeyBackup, ()), b"damaged")])
        with pytest.raises(ConfigurationError, match="has not seen all of its sessions yet"):
            prune(store, BEFORE)


def test_a_damaged_session_and_the_others_pages_stay(backend: Backend) -> None:
    filled(backend)
    with backend.open_store(ALICE, pickle_key=KEY) as store:
        store.put_rows([Row(encode_key(InboundGroupSession, SESSIONS[0].key), b"damaged")])
        store.put_rows([Row(encode_key(ReplayPage, pages(SESSIONS[1])[0].key), b"damaged")])
    assert pruned(backend, BEFORE).deleted["inbound_group_session"] == 7
    assert SESSIONS[0].key in left(backend, InboundGroupSession)
    # A page that cannot be read goes with its session.
    assert not {each.key for each in pages(SESSIONS[1])} & left(backend, ReplayPage)


def test_a_page_whose_key_is_damaged(backend: Backend) -> None:
    filled(backend)
    damage_count(backend, ALICE, encode_own_key(pages(SESSIONS[1])[0]))
    # It may be a page of any session, and say that it was used lately.
    unused = Rules(unused_since=NOW, rooms=frozenset([ROOMS[0]]))
    assert pruned(backend, unused).deleted["inbound_group_session"] < 4
    assert SESSIONS[1].key in left(backend, InboundGroupSession)
    assert pruned(backend, BEFORE).deleted["inbound_group_session"] > 0
    assert not [each for each in SESSIONS if each.received_at == OLD and each.key in left(backend, InboundGroupSession)]


def test_olm_sessions_beyond_those_used_last(backend: Backend) -> None:
    def olm(device: int, number: int, used: int) -> OlmSession:
        at = OLD + timedelta(days=used)
        return example(OlmSession, sender_key=f"device{device}", session_id=f"{number}", last_used_at=at)

    olms = [olm(device, number, (number * 7) % 10) for device in range(3) for number in range(5)] + [olm(9, 0, 0)]
    saved(backend, *OTHERS, *olms)
    done = pruned(backend, Rules(olm_sessions=2))
    assert done.deleted == {"olm_session": 9}
    # Used on days 0, 7, 4, 1 and 8: the second and the last one are the newest.
    kept = {(f"device{device}", number) for device in range(3) for number in ("1", "4")}
    assert left(backend, OlmSession) == kept | {("device9", "0")}


def test_requests_whose_session_has_come(backend: Backend) -> None:
    requests = [
        OutgoingKeyRequest(f"request{number}", f"session{number}", ROOMS[0], "m.megolm.v1.aes-sha2")
        for number in (0, 1, 8, 99)
    ]
    filled(backend, *requests)
    assert pruned(backend, Rules(answered_requests=True)).deleted == {"outgoing_key_request": 2}
    # Session 8 is of another room.
    assert left(backend, OutgoingKeyRequest) == {("request8",), ("request99",)}


class Killed(BaseException):
    """What ends a process that is killed, as far as this process can show it."""


def test_a_kill_between_two_batches_leaves_no_page_without_its_session(
    backend: Backend,
) -> None:
    filled(backend)

    def killed(number: int) -> None:
        raise Killed

    kills = 0
    with backend.open_store(ALICE, pickle_key=KEY) as store:
        while True:
            try:
                prune(store, BEFORE, advance=killed)
            except Killed:
                kills += 1
                owned = {(key[1], key[2]) for key in left(backend, InboundGroupSession)}
                assert {key[:2] for key in left(backend, ReplayPage)} == owned
                continue
            break
    assert kills == 3
    assert left(backend, InboundGroupSession) == {each.key for each in SESSIONS if each.received_at == NOW}
