"""Mutants of the in-memory model that store other keys or values than what was put."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import pytest

from cryptostore import AccountRow, BackendUnavailable, Batch, OlmSession, Row
from cryptostore.store.memory import MemoryHandle, MemoryRecords
from cryptostore.store.ring import RING_KEYS

from .passing import change_batches, change_pages, change_values
from .registry import mutant


def _keys_alike(patch: pytest.MonkeyPatch, alike: Callable[[bytes], bytes]) -> None:
    """Let some keys be taken for others."""

    class Values(dict[bytes, bytes]):
        def __setitem__(self, key: bytes, value: bytes) -> None:
            super().__setitem__(alike(key), value)

        def __getitem__(self, key: bytes) -> bytes:
            return super().__getitem__(alike(key))

        def __contains__(self, key: object) -> bool:
            return isinstance(key, bytes) and super().__contains__(alike(key))

        def pop(self, key: bytes, *default: Any) -> Any:
            return super().pop(alike(key), *default)

    original = MemoryRecords.__init__

    def init(records: MemoryRecords) -> None:
        original(records, Values())

    patch.setattr(MemoryRecords, "__init__", init)


@mutant("RECORDS-3")
def acknowledged_and_not_stored(patch: pytest.MonkeyPatch) -> None:
    """An error is swallowed, and the batch with it."""
    change_batches(patch, lambda batch: batch._replace(puts=[], deletes=[]))


@mutant("RECORDS-1")
def keys_that_begin_with_white_space_lost(patch: pytest.MonkeyPatch) -> None:
    """A key that begins with a line's end or a tab is taken for none: those of five kinds do."""
    change_batches(patch, lambda batch: batch._replace(puts=[row for row in batch.puts if not row.key[:1].isspace()]))


@mutant("READING-1")
def case_of_keys_folded(patch: pytest.MonkeyPatch) -> None:
    """A collation takes "!A" for "!a"."""
    _keys_alike(patch, bytes.lower)


@mutant("READING-1")
def blanks_in_keys_trimmed(patch: pytest.MonkeyPatch) -> None:
    """A column of fixed width takes "!a " for "!a"."""
    _keys_alike(patch, lambda key: key.replace(b" \x00", b"\x00"))


@mutant("READING-5")
def zeros_behind_keys_trimmed(patch: pytest.MonkeyPatch) -> None:
    """A column of fixed width is filled up with zeros, and takes a key with one more for the same."""
    _keys_alike(patch, lambda key: key.rstrip(b"\x00") or key)


@mutant("RECORDS-4")
def long_keys_cut_off(patch: pytest.MonkeyPatch) -> None:
    """An index over the first 767 bytes."""
    _keys_alike(patch, lambda key: key[:767])


@mutant("RECORDS-7")
def longest_keys_cut_off(patch: pytest.MonkeyPatch) -> None:
    """A column of 1,000 bytes, which no record's key has."""
    _keys_alike(patch, lambda key: key[:1_000])


@mutant("RECORDS-6")
def values_cut_off_at_64_kibibytes(patch: pytest.MonkeyPatch) -> None:
    """A column of 64 KiB."""
    change_values(patch, lambda value: value[:65_535])


@mutant("RECORDS-2", "RECORDS-6")
def values_cut_off_at_2_mebibytes(patch: pytest.MonkeyPatch) -> None:
    """A column of 2 MiB, where 4 are promised."""
    change_values(patch, lambda value: value[: 2 * 1024 * 1024 - 1])


@mutant("RECORDS-2")
def values_read_as_text(patch: pytest.MonkeyPatch) -> None:
    """What is no text comes back as a question mark."""
    change_values(patch, lambda value: value.decode(errors="replace").encode())


@mutant("RECORDS-2", "RECORDS-9")
def zeros_behind_values_trimmed(patch: pytest.MonkeyPatch) -> None:
    """A value that ends in zeros comes back without them."""
    change_values(patch, lambda value: value.rstrip(b"\x00"))


@mutant("RECORDS-9")
def empty_values_lost(patch: pytest.MonkeyPatch) -> None:
    """A value of no bytes is NULL, and NULL is no value."""
    change_batches(
        patch,
        lambda batch: batch._replace(
            puts=[row for row in batch.puts if row.value],
            deletes=[*batch.deletes, *(row.key for row in batch.puts if not row.value)],
        ),
    )


@mutant("RECORDS-8")
def first_value_kept(patch: pytest.MonkeyPatch) -> None:
    """ON CONFLICT DO NOTHING: what is there already stays as it is."""
    original = MemoryRecords.put

    def put(records: MemoryRecords, row: Row) -> None:
        if row.key not in records.values:
            original(records, row)

    patch.setattr(MemoryRecords, "put", put)


@mutant("NIO-2")
def ratchet_not_replaced(patch: pytest.MonkeyPatch) -> None:
    """An Olm session that is there already stays as it is: its ratchet goes back at every start."""
    original = MemoryRecords.put

    def put(records: MemoryRecords, row: Row) -> None:
        if row.key[0] != OlmSession.kind_number or row.key not in records.values:
            original(records, row)

    patch.setattr(MemoryRecords, "put", put)


@mutant("BATCHES-2")
def everything_deleted(patch: pytest.MonkeyPatch) -> None:
    """A deletion forgets its condition."""
    patch.setattr(MemoryRecords, "delete", lambda records, _key: MemoryRecords.__init__(records))


@mutant("RECORDS-3")
def deleted_by_beginning(patch: pytest.MonkeyPatch) -> None:
    """A deletion takes every key that begins with the one that is meant."""
    original = MemoryRecords.delete

    def delete(records: MemoryRecords, key: bytes) -> None:
        for beginning in [each for each in records.order if each.startswith(key)]:
            original(records, beginning)

    patch.setattr(MemoryRecords, "delete", delete)


@mutant("RECORDS-10")
def neighbour_deleted_too(patch: pytest.MonkeyPatch) -> None:
    """A deletion takes the next key with it, unless that is a key ring's."""
    original = MemoryRecords.delete

    def delete(records: MemoryRecords, key: bytes) -> None:
        for following in records.order[bisect_left(records.order, key) :][:2]:
            if following not in RING_KEYS:
                original(records, following)

    patch.setattr(MemoryRecords, "delete", delete)


@mutant("PERFORMANCE-1")
def long_read_waits(patch: pytest.MonkeyPatch) -> None:
    """A look that finds fifty records waits for a time-out first."""

    def page(sound: Callable[..., Any], *asked: Any) -> Any:
        rows = sound(*asked)
        # One that waits at every look takes hours to be tried on every case.
        if len(rows) == 50:
            time.sleep(5.1)
        return rows

    change_pages(patch, page)


@mutant("RECORDS-12")
def packet_limit_taken_for_an_outage(patch: pytest.MonkeyPatch) -> None:
    """A batch above the server's packet limit is unavailable, and sent again for ever."""
    original = MemoryHandle.commit

    def commit(handle: MemoryHandle, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        if sum(len(row.value) for row in batch.puts) > 16 * 1024 * 1024:
            raise BackendUnavailable("the server has gone away")
        return original(handle, account_id, batch, timeout)

    patch.setattr(MemoryHandle, "commit", commit)
