"""Batches: all or nothing, one operation a key, in their order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from cryptostore import (
    KINDS,
    Changes,
    CryptoStore,
    Device,
    InboundGroupSession,
    InvalidRecord,
    Mode,
    OlmAccount,
    OlmMessage,
    ReadOnlyStore,
    Record,
    SyncToken,
    Value,
    fields_of,
)
from cryptostore_contract.cases.base import CaseGroup, nothing_in_the_way
from cryptostore_contract.handles import Handles, by_kind, put
from cryptostore_contract.manifest import case
from cryptostore_contract.samples import ALICE, changed, one_of_each, sample, samples

#: More than a pool has connections.
_REFUSALS = 12


class BatchCases(CaseGroup):
    """What belongs together stays together."""

    @case("BATCHES-1", checks=("APPLY-6", "COMMIT-7", "COMMIT-8"))
    def test_one_batch_puts_and_deletes_records_of_every_kind(self, store: CryptoStore, handles: Handles) -> None:
        kept, gone = one_of_each(1), [record for record in one_of_each(2) if record.key]
        put(store, *gone, *[record for record in kept if not record.key])
        new = [record for record in kept if record.key] + [sample(OlmAccount, 9)]
        store.apply(Changes(new, [(type(record), record.key) for record in [*gone, sample(SyncToken)]]))
        assert handles.everything() == by_kind(new)

    @case("BATCHES-2", checks=("APPLY-6",))
    @pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind_name)
    def test_a_batch_has_one_operation_for_a_key(
        self, store: CryptoStore, handles: Handles, kind: type[Record]
    ) -> None:
        record = sample(kind)
        put(store, record)
        twice = (changed(record, 2), changed(record, 3))
        attempts: list[Callable[[], Changes]] = [
            lambda: Changes(twice),
            lambda: Changes(twice[:1], [(kind, record.key)]),
            lambda: Changes(deletes=[(kind, record.key)] * 2),
        ]
        for attempt in attempts:
            with pytest.raises(InvalidRecord, match=kind.kind_name):
                attempt()
        assert handles.stored(kind) == [record]

    @case("BATCHES-3", checks=("APPLY-6", "COMMIT-5", "COMMIT-7"))
    @pytest.mark.parametrize("broken", [Value, InboundGroupSession, OlmAccount], ids=lambda kind: kind.kind_name)
    def test_a_failure_in_the_middle_leaves_nothing_of_the_batch(self, handles: Handles, broken: type[Record]) -> None:
        before = one_of_each(1)
        store = handles.own(deadline=2)
        put(store, *before)
        batch = Changes([changed(record, 2) for record in before] + [sample(Value, 3), sample(OlmMessage, 3)])
        # A value that gets past the record's own checks and that no database takes: it fails inside the backend,
        # behind the records of the kinds before it.
        spoil(batch.puts(broken)[-1])
        with contextlib.suppress(Exception):
            store.apply(batch)
        after = handles.everything()
        # A backend that keeps live objects, as the in-memory model does, may take it; but then all of the batch.
        names = {(kind, record.key) for kind, records in after.items() for record in records}
        assert after == by_kind(before) or names == set(batch.keys())

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

    @case("BATCHES-6", checks=("COMMIT-8",))
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
        reader = handles.open().open_store(ALICE, Mode.READ)
        for changes in (Changes([sample(SyncToken, 2)]), Changes(deletes=[(SyncToken, ())]), Changes()):
            with pytest.raises(ReadOnlyStore, match=r"Mode\.OWN"):
                reader.apply(changes)
        assert handles.everything() == by_kind([sample(SyncToken)])

    @case("BATCHES-9", checks=("APPLY-6", "COMMIT-5"))
    def test_refused_batches_leave_the_store_usable(self, handles: Handles) -> None:
        store = handles.own(deadline=1)
        with pytest.raises(InvalidRecord):
            put(store, sample(Value), sample(Value))
        for _ in range(_REFUSALS):
            refused = Changes([sample(Value)])
            spoil(refused.puts(Value)[0])
            with contextlib.suppress(Exception):
                store.apply(refused)
        with nothing_in_the_way("refused batches keep what later ones need"):
            put(store, changed(sample(Value), 2))
        assert handles.stored(Value) == [changed(sample(Value), 2)]


def spoil(record: Record) -> None:
    """Give the last field of a record a value that cannot be stored, behind the back of the record's checks."""
    name = fields_of(type(record))[-1].name
    object.__setattr__(record, name, object())
