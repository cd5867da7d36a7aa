"""Mutants of the in-memory model that answer something else than what was asked for: keys, ranges, order and pages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import chain
from typing import Any

import pytest

from cryptostore import BackendUnavailable, Range
from cryptostore.store.memory import MemoryDatabase, MemoryHandle, MemoryRecords

from .passing import Rows, change_pages, change_ranges
from .registry import mutant

#: As many connections as a pool of the mutants has.
_POOL = 10


def _search(patch: pytest.MonkeyPatch, within: Callable[[MemoryRecords, Range], list[bytes]]) -> None:
    """Let ranges and pages find other keys."""
    patch.setattr(MemoryRecords, "within", within)


def _change_get(patch: pytest.MonkeyPatch, changed: Callable[[Callable[[Sequence[bytes]], Rows], Any], Rows]) -> None:
    """Let `get` answer something else; `changed` gets the sound one to ask, and the keys."""
    original = MemoryHandle.get

    def get(handle: MemoryHandle, account_id: int, keys: Sequence[bytes], timeout: float) -> Rows:
        return changed(lambda asked: original(handle, account_id, asked, timeout), keys)

    patch.setattr(MemoryHandle, "get", get)


@mutant("ISOLATION-11")
def keys_found_by_their_beginnings(patch: pytest.MonkeyPatch) -> None:
    """A key finds every row whose key begins with it."""

    def get(handle: MemoryHandle, account_id: int, keys: Sequence[bytes], timeout: float) -> Rows:
        with handle._transaction(timeout) as shared:
            records = handle._records(shared, account_id)
            return records.rows([found for key in keys for found in records.order if found.startswith(key)])

    patch.setattr(MemoryHandle, "get", get)


@mutant("READING-2")
def one_absent_key_empties_the_answer(patch: pytest.MonkeyPatch) -> None:
    """Expects as many rows as keys, and takes fewer for no answer."""

    def get(sound: Callable[[Sequence[bytes]], Rows], keys: Sequence[bytes]) -> Rows:
        found = sound(keys)
        return found if len(found) == len(keys) else []

    _change_get(patch, get)


@mutant("READING-3")
def many_keys_cut_off(patch: pytest.MonkeyPatch) -> None:
    """A statement takes 1,000 parameters, and the rest is dropped."""
    _change_get(patch, lambda sound, keys: sound(keys[:1_000]))


@mutant("CONCURRENCY-7")
def keys_looked_up_in_chunks(patch: pytest.MonkeyPatch) -> None:
    """Many keys are several statements, each with a snapshot of its own."""
    _change_get(
        patch, lambda sound, keys: [row for at in range(0, len(keys), 500) for row in sound(keys[at : at + 500])]
    )


@mutant("READING-10")
def many_ranges_cut_off(patch: pytest.MonkeyPatch) -> None:
    """The same with ranges, whose answer then looks complete."""
    change_ranges(
        patch, lambda rows, asked: [row for row in rows if len(asked) <= 1_000 or row.key < asked[1_000].start]
    )


@mutant("READING-11", "SCANNING-7")
def end_of_ranges_included(patch: pytest.MonkeyPatch) -> None:
    """BETWEEN takes both ends in."""
    _search(
        patch,
        lambda records, wanted: [
            key for key in records.order if key >= wanted.start and (wanted.end is None or key <= wanted.end)
        ],
    )


@mutant("READING-8", "READING-11", "SCANNING-2")
def beginning_of_ranges_left_out(patch: pytest.MonkeyPatch) -> None:
    """> where >= is meant."""
    _search(
        patch,
        lambda records, wanted: [
            key for key in records.order if key > wanted.start and (wanted.end is None or key < wanted.end)
        ],
    )


@mutant("READING-11", "SCANNING-7")
def ranges_without_an_end_empty(patch: pytest.MonkeyPatch) -> None:
    """No key is below NULL."""
    _search(
        patch,
        lambda records, wanted: [
            key for key in records.order if wanted.end is not None and wanted.start <= key < wanted.end
        ],
    )


def _order_by(patch: pytest.MonkeyPatch, sort_key: Callable[[bytes], Any]) -> None:
    original = MemoryRecords.within
    _search(patch, lambda records, wanted: sorted(original(records, wanted), key=sort_key))


@mutant("READING-5")
def rows_in_the_order_of_a_language(patch: pytest.MonkeyPatch) -> None:
    """The order of a dictionary, in which small and capital letters stand together."""
    _order_by(patch, bytes.lower)


@mutant("READING-5")
def bytes_ordered_with_a_sign(patch: pytest.MonkeyPatch) -> None:
    """A byte above 127 is a negative number, and comes first."""
    _order_by(patch, lambda key: [byte ^ 0x80 for byte in key])


@mutant("READING-5")
def rows_in_the_order_of_their_writing(patch: pytest.MonkeyPatch) -> None:
    """Nothing is said about an order."""
    _search(
        patch,
        lambda records, wanted: [
            key for key in records.values if key >= wanted.start and (wanted.end is None or key < wanted.end)
        ],
    )


@mutant("READING-11")
def rows_answered_twice(patch: pytest.MonkeyPatch) -> None:
    """A join gives a row for each of two ranges that touch."""
    change_ranges(patch, lambda rows, asked: list(chain.from_iterable([row] * min(2, len(asked)) for row in rows)))


@mutant("SCANNING-1")
def page_ends_a_row_early(patch: pytest.MonkeyPatch) -> None:
    """A page has a row less than was asked for, as if nothing came after it."""
    change_pages(patch, lambda sound, within, size: sound(within, size - 1))


@mutant("SCANNING-1")
def page_of_a_size_of_its_own(patch: pytest.MonkeyPatch) -> None:
    """A page has 100 rows at most, whatever was asked for."""
    change_pages(patch, lambda sound, within, size: sound(within, min(size, 100)))


@mutant("SCANNING-6")
def page_holds_everything(patch: pytest.MonkeyPatch) -> None:
    """The size of a page is ignored."""
    change_pages(patch, lambda sound, within, _size: sound(within, 1_000_000))


@mutant("SCANNING-5")
def pages_counted_by_position(patch: pytest.MonkeyPatch) -> None:
    """LIMIT and OFFSET: what is put before a page shifts it, and what it then shows again is dropped."""
    #: By the range of the page that comes next: where its scan began, and how many rows it has given.
    following: dict[Range, tuple[bytes, int]] = {}

    def page(sound: Callable[[Range, int], Rows], within: Range, size: int) -> Rows:
        start, offset = following.pop(within, (within.start, 0))
        rows = sound(Range(start, within.end), 1_000_000)[offset : offset + size]
        if rows:
            following[Range(rows[-1].key + b"\x00", within.end)] = start, offset + len(rows)
        return [row for row in rows if row.key >= within.start]

    change_pages(patch, page)


@mutant("SCANNING-6")
def scan_holds_its_snapshot(patch: pytest.MonkeyPatch) -> None:
    """A scan is one long transaction: every page shows what was there at the first."""
    original = MemoryHandle.page

    def page(handle: MemoryHandle, account_id: int, within: Range, size: int, timeout: float) -> Rows:
        snapshots: dict[bytes | None, MemoryHandle] = handle.__dict__.setdefault("snapshots", {})
        if within.end not in snapshots:
            shared = MemoryDatabase()
            shared.records = deepcopy(handle.shared.records)
            snapshots[within.end] = MemoryHandle(shared)
        rows = original(snapshots[within.end], account_id, within, size, timeout)
        if len(rows) < size:
            del snapshots[within.end]
        return rows

    patch.setattr(MemoryHandle, "page", page)


@mutant("SCANNING-8")
def scans_share_a_cursor(patch: pytest.MonkeyPatch) -> None:
    """A second scan goes on where the first one is."""
    original = MemoryHandle.page

    def page(handle: MemoryHandle, account_id: int, within: Range, size: int, timeout: float) -> Rows:
        begin = handle.__dict__.get("cursor", within.start)
        rows = original(handle, account_id, within._replace(start=max(begin, within.start)), size, timeout)
        handle.__dict__["cursor"] = rows[-1].key + b"\x00" if len(rows) == size else b""
        return rows

    patch.setattr(MemoryHandle, "page", page)


@mutant("SCANNING-4")
def scan_holds_its_connection(patch: pytest.MonkeyPatch) -> None:
    """A scan keeps its connection until its last page, and a pool has ten."""
    original = MemoryHandle.page

    def page(handle: MemoryHandle, account_id: int, within: Range, size: int, timeout: float) -> Rows:
        taken: list[Range] = handle.__dict__.setdefault("connections", [])
        if len(taken) == _POOL:
            raise BackendUnavailable("no connection is free", outcome_unknown=False)
        taken.append(within)
        rows = original(handle, account_id, within, size, timeout)
        if len(rows) < size:
            taken.clear()
        return rows

    patch.setattr(MemoryHandle, "page", page)


@mutant("CONCURRENCY-1")
def threads_stay_in_their_first_snapshot(patch: pytest.MonkeyPatch) -> None:
    """Each thread has a connection, whose transaction begins with its first look and never ends."""
    original = MemoryHandle.get
    home = threading.current_thread()

    def get(handle: MemoryHandle, account_id: int, keys: Sequence[bytes], timeout: float) -> Rows:
        if threading.current_thread() is home:
            return original(handle, account_id, keys, timeout)
        local = handle.__dict__.setdefault("local", threading.local())
        if not hasattr(local, "snapshot"):
            with handle.shared.lock:
                local.snapshot = MemoryHandle(MemoryDatabase())
                local.snapshot.shared.records = deepcopy(handle.shared.records)
        return original(local.snapshot, account_id, keys, timeout)

    patch.setattr(MemoryHandle, "get", get)


@mutant("OWNERSHIP-7")
def written_values_answered_from_a_cache(patch: pytest.MonkeyPatch) -> None:
    """A handle that has written a value never looks for another's."""
    commit, get = MemoryHandle.commit, MemoryHandle.get

    def commit_and_keep(handle: MemoryHandle, account_id: int, batch: Any, timeout: float) -> Any:
        handle.__dict__.setdefault("kept", {}).update({(account_id, row.key): row for row in batch.puts})
        return commit(handle, account_id, batch, timeout)

    def get_kept(handle: MemoryHandle, account_id: int, keys: Sequence[bytes], timeout: float) -> Rows:
        kept = handle.__dict__.get("kept", {})
        return [kept.get((account_id, row.key), row) for row in get(handle, account_id, keys, timeout)]

    patch.setattr(MemoryHandle, "commit", commit_and_keep)
    patch.setattr(MemoryHandle, "get", get_kept)
