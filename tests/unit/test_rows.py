"""One unreadable row blocks nothing (promise P7)."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator

import pytest

from cryptostore import InvalidRecord, Record, SyncToken, TrackedUser, UnreadableRecord, hookimpl
from cryptostore.observers import observers
from cryptostore.rows import read_rows
from example_records import ALICE, SECRET


class Witness:
    """An observer that writes down what it is told."""

    def __init__(self) -> None:
        self.rows: list[tuple[object, str]] = []

    @hookimpl
    def cryptostore_unreadable_row(self, account: object, kind: str) -> None:
        self.rows.append((account, kind))


@pytest.fixture
def witness() -> Iterator[Witness]:
    witness = Witness()
    observers().add("witness", witness)
    yield witness
    observers().remove("witness")


REFUSALS = [ValueError(SECRET), TypeError(SECRET), InvalidRecord("tracked_user", "user_id", "must not be empty")]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_an_unreadable_row_is_skipped(refusal: Exception, witness: Witness, caplog: pytest.LogCaptureFixture) -> None:
    def decode(row: str) -> TrackedUser:
        if row == SECRET:
            raise refusal
        return TrackedUser(row)

    rows = ["@a:x", SECRET, "@b:x", SECRET]
    assert list(read_rows(ALICE, TrackedUser, rows, decode)) == [TrackedUser("@a:x"), TrackedUser("@b:x")]
    assert witness.rows == [(ALICE, "tracked_user")] * 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert str(ALICE) in caplog.text
    assert "tracked_user" in caplog.text
    assert type(refusal).__name__ in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("refusal", REFUSALS)
def test_an_accounts_only_record_raises(refusal: Exception, witness: Witness) -> None:
    def decode(row: str) -> SyncToken:
        raise refusal

    with pytest.raises(UnreadableRecord, match=r"^the sync_token of @alice:.* is damaged") as caught:
        list(read_rows(ALICE, SyncToken, [SECRET], decode))
    assert witness.rows == [(ALICE, "sync_token")]
    assert SECRET not in "".join(traceback.format_exception(caught.value, limit=0))


def test_a_bug_in_the_decoder_is_not_swallowed(witness: Witness) -> None:
    def decode(row: str) -> Record:
        raise KeyError(row)

    with pytest.raises(KeyError):
        list(read_rows(ALICE, TrackedUser, ["row"], decode))  # type: ignore[arg-type]  # it never returns
    assert witness.rows == []
