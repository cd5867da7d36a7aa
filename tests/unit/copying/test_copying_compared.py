"""Copies that are read back and compared, and do not agree with their source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from copied import PLAIN, contents, handle, refuses, token
from cryptostore import (
    AccountElsewhere,
    TrackedUser,
)
from cryptostore.store import comparing
from cryptostore.store.copying import How, Place, copy
from cryptostore.store.keys import encode_key
from cryptostore.store.marks import MARK_KEY, decode_mark, encode_mark
from cryptostore.store.ring import RING_KEYS
from example_records import ALICE
from sealed_database import plant, rows_of


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda rows, key: rows.update({key: b"other"}), "is not the same at the destination"),
        (lambda rows, key: rows.pop(key), "is missing at the destination"),
        (lambda rows, key: rows.update({key + b"\0": b"more"}), "is at the destination alone"),
    ],
)
def test_a_destination_that_keeps_something_else(
    source: Place, destination: Place, spoil: Callable[[dict[bytes, bytes], bytes], object], reason: str
) -> None:
    key = encode_key(TrackedUser, ("@9:x",))

    def spoiled(_number: int) -> None:
        records = handle(destination).shared.records[next(iter(handle(destination).shared.accounts.values())).id]
        if key in records.values:
            handle(destination).after = lambda _number: None
            spoil(records.values, key)
            records.order[:] = sorted(records.values)

    handle(destination).after = spoiled
    copied = copy(source, destination, ALICE, PLAIN)
    assert [each.reason for each in copied.different] == [reason]
    assert token(source) == "s1"
    refuses(destination, "is not complete")


def test_a_ring_that_is_kept_as_something_else(source: Place, destination: Place) -> None:
    def spoiled(_number: int) -> None:
        rows = rows_of(destination.backend, ALICE)
        if RING_KEYS[1] in rows:
            rows[RING_KEYS[1]] = b"other"

    handle(destination).after = spoiled
    copied = copy(source, destination, ALICE, How(leave_source=True))
    assert [each.key for each in copied.different] == [RING_KEYS[1]]


@pytest.mark.parametrize("leave_source", [True, False])
def test_a_ring_that_is_lost(source: Place, destination: Place, leave_source: bool) -> None:
    def lost(_number: int) -> None:
        if RING_KEYS[1] in rows_of(destination.backend, ALICE):
            del rows_of(destination.backend, ALICE)[RING_KEYS[0]], rows_of(destination.backend, ALICE)[RING_KEYS[1]]

    handle(destination).after = lost
    copied = copy(source, destination, ALICE, How(leave_source=leave_source))
    assert [each.key for each in copied.different] == [*RING_KEYS]
    assert copied.is_source_marked == (not leave_source)
    handle(destination).after = lambda _number: None
    destination.backend.delete_account(ALICE)
    again = copy(source, destination, ALICE, How(even_if_moved=not leave_source))
    assert (again.different, token(destination)) == ([], "s1")


def test_no_more_differences_are_named_than_fit_into_memory(
    source: Place, destination: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "_MOST_NAMED", 5)

    def spoiled(_number: int) -> None:
        rows = rows_of(destination.backend, ALICE)
        rows.update({key: b"other" for key in rows if key[0] == TrackedUser.kind_number})

    handle(destination).after = spoiled
    assert len(copy(source, destination, ALICE, PLAIN).different) == 5


def test_a_mark_that_does_not_fit_the_source_is_believed_by_nobody(source: Place, destination: Place) -> None:
    copy(source, destination, ALICE, PLAIN)
    mark = decode_mark(ALICE, contents(source)[MARK_KEY])
    plant(destination.backend, ALICE, MARK_KEY, encode_mark(ALICE, replace(mark, other_id=3)))
    with pytest.raises(AccountElsewhere):
        copy(source, destination, ALICE, PLAIN)
