"""The mark of an account that is not at home where it is stored."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from cryptostore import Account, SchemaTooNew, UnreadableRecord
from cryptostore.store import marks
from cryptostore.store.marks import Mark, Whereabouts, decode_mark, elsewhere, encode_mark

ALICE, BOB = Account("@alice:example.org", "A"), Account("@bob:example.org", "B")
MOVED = Mark(
    Whereabouts.MOVED, 7, 42, "postgresql://db.example.org/keys", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), b"\x04x"
)
#: What is stored in databases: it must be readable for ever.
GOLDEN = bytes.fromhex(
    "8286ab776865726561626f757473a56d6f766564a86f746865725f696407a873657175656e63652aa5706c616365d920706f"
    "737467726573716c3a2f2f64622e6578616d706c652e6f72672f6b657973a26174d6ff695735a5a772656163686564c40204"
    "786db1019fee215a7a"
)


def test_what_was_ever_written_can_be_read_and_is_written_still() -> None:
    assert decode_mark(ALICE, GOLDEN) == MOVED
    assert encode_mark(ALICE, MOVED) == GOLDEN


def test_the_mark_lies_between_the_ring_and_all_records() -> None:
    assert b"\x00" < marks.MARK_KEY < b"\x01"


@pytest.mark.parametrize("damaged", [b"", GOLDEN[:-1], GOLDEN[:9] + b"?" + GOLDEN[10:], b"\x82" + GOLDEN[1:-8]])
def test_a_damaged_mark(damaged: bytes) -> None:
    with pytest.raises(UnreadableRecord, match=r"the mark that @alice:example\.org A is being moved"):
        decode_mark(ALICE, damaged)


def test_another_accounts_mark() -> None:
    with pytest.raises(UnreadableRecord):
        decode_mark(BOB, GOLDEN)


def test_a_newer_programs_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "_VERSION", b"\x83")
    newer = encode_mark(ALICE, MOVED)
    monkeypatch.undo()
    with pytest.raises(SchemaTooNew, match="newer version"):
        decode_mark(ALICE, newer)


def test_a_whole_mark_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "_encode", lambda _mark: b"\xc0")
    with pytest.raises(UnreadableRecord):
        decode_mark(ALICE, encode_mark(ALICE, MOVED))


def test_each_error_names_what_to_do() -> None:
    assert "moved to postgresql://db.example.org/keys on 2026-01-02 03:04 UTC: give its client" in str(
        elsewhere(ALICE, MOVED)
    )
    coming = replace(MOVED, whereabouts=Whereabouts.COMING)
    assert "from postgresql://db.example.org/keys is not complete here: run the same `cryptostore copy` again" in str(
        elsewhere(ALICE, coming)
    )
    restoring = replace(MOVED, whereabouts=Whereabouts.RESTORING, place="/backups/alice")
    assert "run the same `cryptostore restore` of /backups/alice again" in str(elsewhere(ALICE, restoring))
