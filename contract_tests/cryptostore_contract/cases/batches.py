"""Batches: all or nothing, one operation a key, in their order."""

from __future__ import annotations

import contextlib
import gc
import threading
from pathlib import Path

import pytest

from cryptostore import (
    KINDS,
    Batch,
    Changes,
    CryptoStore,
    Device,
    OlmAccount,
    OlmMessage,
    ReadOnlyStore,
    Record,
    Row,
    SyncToken,
    Value,
)
from cryptostore_contract.cases.base import CaseGroup, nothing_in_the_way
from cryptostore_contract.handles import Handles, by_kind, put, read
from cryptostore_contract.manifest import case
from cryptostore_contract.raw import RawOwner, found, rows_of
from cryptostore_contract.samples import ALICE, changed, one_of_each, sample, samples

_MEBIBYTE = 2**20

#: So many that each would be seen to leave something.
_MANY_REFUSALS = 112

#: More than a pool has connections.
_REFUSALS = 12


class BatchCases(CaseGroup):
    """What belongs together stays together."""

    @case("BATCHES-1", checks=("APPLY-6", "COMMIT-7", "COMMIT-1"))
    def test_one_batch_puts_and_deletes_records_of_every_kind(self, store: CryptoStore, handles: Handles) -> None:
        kept, gone = one_of_each(1), [record for record in one_of_each(2) if record.key]
        # Of these an account has one: the Olm account is replaced, and the others are deleted.
        only = [record for record in kept if not record.key]
        put(store, *gone, *only)
        new = [record for record in kept if record.key] + [sample(OlmAccount, 9)]
        deleted = [*gone, *[record for record in only if not isinstance(record, OlmAccount)]]
        store.apply(Changes(new, [(type(record), record.key) for record in deleted]))
        assert handles.everything() == by_kind(new)

    @case("BATCHES-2", checks=("COMMIT-1", "COMMIT-4", "FIND-1"))
    def test_a_commit_answers_with_the_accounts_row_as_it_is_then(self, raw: RawOwner, handles: Handles) -> None:
        before = raw.row
        for number, deletes in enumerate(([], [b"key 1"], [b"key 2", b"never there"]), 1):
            batch = raw.batch({b"key %d" % number: b"value"}, deletes, written_at=number)
            answer = raw.commit(batch)
            assert answer == before._replace(sequence=number, written_at=number)
            # What was answered is there for everybody else.
            assert found(handles.open().database) == answer
            raw.row = answer
        assert raw.everything() == {b"key 3": b"value"}

    @case("BATCHES-3", checks=("COMMIT-5", "COMMIT-7"))
    @pytest.mark.parametrize("position", [0, 1, 2], ids=["first", "middle", "last"])
    def test_a_failure_in_the_middle_leaves_nothing_of_the_batch(
        self, raw: RawOwner, handles: Handles, position: int
    ) -> None:
        before = {b"key 0": b"0", b"key 1": b"0", b"key 2": b"0", b"key 3": b"deleted"}
        raw.put(before)
        batch = raw.batch({b"key 0": b"1", b"key 1": b"1", b"key 2": b"1"}, [b"key 3"])
        with contextlib.suppress(Exception):
            raw.commit(with_a_bad_value(batch, position))
        with handles.open() as backend:
            after, row = rows_of(backend.database, raw.row.id), found(backend.database)
        # A backend that keeps live objects, as the in-memory model does, may take it; but then all of the batch.
        assert (after, row) == (before, raw.row) or (len(after), row.sequence) == (3, batch.number)

    @case("BATCHES-4", checks=("APPLY-1",))
    def test_an_empty_batch_does_nothing(self, store: CryptoStore, handles: Handles) -> None:
        put(store, sample(SyncToken))
        before = handles.open().accounts()
        store.apply(Changes())
        assert handles.open().accounts() == before
        assert handles.everything() == by_kind([sample(SyncToken)])

    @case("BATCHES-5", checks=("APPLY-6", "COMMIT-7", "SCAN-1"))
    def test_fifty_thousand_records_are_one_batch(self, store: CryptoStore, handles: Handles) -> None:
        sent = samples(Device, 40_000)
        put(store, *sent, *samples(OlmMessage, 10_000))
        assert handles.open().accounts()[ALICE].sequence == 1
        reader = handles.read()
        assert list(reader.scan(Device)) == sent
        assert sum(1 for _ in reader.scan(OlmMessage)) == 10_000
        store.apply(Changes(deletes=[(Device, device.key) for device in sent[1:]]))
        assert handles.stored(Device) == sent[:1]

    @case("BATCHES-6", checks=("COMMIT-1",))
    @pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind_name)
    def test_deleting_what_is_not_there_is_no_error(
        self, store: CryptoStore, handles: Handles, kind: type[Record]
    ) -> None:
        gone = sample(kind, 2)
        put(store, gone)
        store.apply(Changes(deletes=[(kind, gone.key)]))
        other: type[Record] = OlmAccount if kind is SyncToken else SyncToken
        store.apply(Changes([sample(other)], [(kind, gone.key)]))
        assert handles.everything() == by_kind([sample(other)])

    @case("BATCHES-7", checks=("APPLY-7", "COMMIT-1"))
    def test_batches_commit_in_the_order_of_their_calls_and_are_counted(
        self, store: CryptoStore, handles: Handles
    ) -> None:
        backend = handles.open()
        record = sample(Value)
        for number in range(1, 6):
            put(store, changed(record, number))
            assert backend.accounts()[ALICE].sequence == number
            assert handles.stored(Value) == [changed(record, number)]
        store.apply(Changes(deletes=[(Value, record.key)]))
        put(store, record)
        assert backend.accounts()[ALICE].sequence == 7
        assert handles.stored(Value) == [record]

    @case("BATCHES-8", checks=("APPLY-2",))
    def test_a_reader_cannot_write(self, store: CryptoStore, handles: Handles) -> None:
        put(store, sample(SyncToken))
        reader = read(handles.open())
        for changes in (Changes([sample(SyncToken, 2)]), Changes(deletes=[(SyncToken, ())]), Changes()):
            with pytest.raises(ReadOnlyStore, match=r"Mode\.OWN"):
                reader.apply(changes)
        assert handles.everything() == by_kind([sample(SyncToken)])

    @case("BATCHES-9", checks=("COMMIT-5", "APPLY-6"))
    def test_refused_batches_leave_the_store_usable(self, raw: RawOwner, handles: Handles) -> None:
        with nothing_in_the_way("refused batches keep what later ones need"):
            for _ in range(_REFUSALS):
                with contextlib.suppress(Exception):
                    raw.commit(with_a_bad_value(raw.batch({b"key": b"refused"}), 0))
                raw.row = found(raw.database)
            raw.put({b"key": b"value"})
        assert rows_of(handles.open().database, raw.row.id) == {b"key": b"value"}

    @case("BATCHES-10", checks=("COMMIT-2", "COMMIT-5", "COMMIT-7", "DATABASE-3"))
    @pytest.mark.parametrize("mebibytes", [1, 5, 17])
    def test_a_large_batch_that_is_refused_leaves_nothing(
        self, raw: RawOwner, handles: Handles, mebibytes: int
    ) -> None:
        rows = {b"key %03d" % number: bytes([number]) * (_MEBIBYTE // 4) for number in range(4 * mebibytes)}
        raw.put({b"key 000": b"before"})
        assert raw.commit(raw.batch(rows, ahead=2)) == raw.row, "a batch that was not the next one"
        assert raw.everything() == {b"key 000": b"before"}, "a batch that was not the next one has left rows"
        refused = with_a_bad_value(raw.batch(rows), len(rows) - 1)
        with contextlib.suppress(Exception):
            raw.commit(refused)
        reader = handles.open().database
        raw.row, left = found(reader), rows_of(reader, raw.row.id)
        assert len(left) in (1, len(rows)), f"{len(left)} of {len(rows)} rows are there"
        assert (len(left) == 1) == (raw.row.sequence < refused.number)
        raw.put(rows)
        _assert_same(raw.everything(), rows)

    @case("BATCHES-11", checks=("COMMIT-5",))
    def test_a_hundred_refused_batches_leave_nothing_open(self, raw: RawOwner) -> None:
        for number in range(_MANY_REFUSALS):
            if number == _REFUSALS:
                before = open_handles()
            with contextlib.suppress(Exception):
                raw.commit(with_a_bad_value(raw.batch({b"key": b"refused"}), 0))
            raw.row = found(raw.database)
        raw.put({b"key": b"value"})
        left = open_handles() - before
        assert left < _REFUSALS, f"{left} files, connections or threads more than {_MANY_REFUSALS} refusals before"


def _assert_same(stored: dict[bytes, bytes], rows: dict[bytes, bytes]) -> None:
    """By their lengths first: megabytes that differ are compared for minutes to show where."""
    assert {key: len(value) for key, value in stored.items()} == {key: len(value) for key, value in rows.items()}
    assert [key for key, value in rows.items() if stored[key] != value] == []


def open_handles() -> int:
    """How many files, connections and threads this process has."""
    # What is garbage is not kept.
    gc.collect()
    return len(list(Path("/dev/fd").iterdir())) + threading.active_count()


def with_a_bad_value(batch: Batch, position: int) -> Batch:
    """The batch without a value in this place, which no database stores: it fails inside the backend."""
    puts = list(batch.puts)
    puts[position] = Row(puts[position].key, None)  # type: ignore[arg-type]  # that is what is wrong with it
    return batch._replace(puts=puts)
