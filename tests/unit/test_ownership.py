"""What became of a batch, decided from the account's row."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from clock import to_microseconds
from cryptostore import (
    AccountNotFound,
    AccountRow,
    BackendInvalid,
    Batch,
    CryptoStoreError,
    DatabaseWentBack,
    FencedOut,
    Ownership,
)
from cryptostore.store.ownership import confirm, from_microseconds
from example_records import ALICE

MOMENT = datetime(2026, 11, 28, 1, 2, 3, 456789, tzinfo=UTC)
ROW = AccountRow(17, ALICE.user_id, ALICE.device_id, 5, 99, 8, "the other", to_microseconds(MOMENT))
BATCH = Batch(5, 99, 8, [], [])


def test_a_batch_is_committed_where_its_number_is_stored() -> None:
    confirm(ALICE, BATCH, ROW)


@pytest.mark.parametrize(
    ("found", "error", "message"),
    [
        (None, AccountNotFound, "was deleted since it was opened"),
        (ROW._replace(epoch=6), FencedOut, "was taken over by the other at 2026-11-28 01:02:03"),
        (ROW._replace(incarnation=100), FencedOut, "was taken over by the other"),
        (ROW._replace(epoch=4), DatabaseWentBack, "up to batch 7; it is as it was after batch 8"),
        (ROW._replace(epoch=4, sequence=3), DatabaseWentBack, "it is as it was after batch 3"),
        (ROW._replace(sequence=6), DatabaseWentBack, "up to batch 7; it is as it was after batch 6"),
        (ROW._replace(sequence=7), BackendInvalid, "did not commit batch 8"),
        (ROW._replace(sequence=9), FencedOut, "another process goes on as this owner"),
    ],
)
def test_everything_else_is_an_error(found: AccountRow | None, error: type[CryptoStoreError], message: str) -> None:
    with pytest.raises(error, match=message):
        confirm(ALICE, BATCH, found)


def test_a_fenced_owner_is_told_by_whom_and_since_when() -> None:
    for found in (ROW._replace(epoch=6), ROW._replace(sequence=9)):
        with pytest.raises(FencedOut) as caught:
            confirm(ALICE, BATCH, found)
        assert (caught.value.owner, caught.value.since) == ("the other", MOMENT)


def test_what_was_acknowledged_and_what_is_there_are_numbers_of_the_error() -> None:
    with pytest.raises(DatabaseWentBack) as caught:
        confirm(ALICE, BATCH, ROW._replace(sequence=2))
    assert (caught.value.acknowledged, caught.value.found) == (7, 2)


def test_times_are_microseconds() -> None:
    for time in (MOMENT, datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        assert from_microseconds(to_microseconds(time)) == time
    with pytest.raises(ValueError, match="is out of the range of times"):
        from_microseconds(2**63 - 1)
    assert Ownership.of(ROW) == Ownership(5, 99, 8, "the other", MOMENT)
