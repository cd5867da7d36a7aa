"""Scans: everything in key order, page by page, while the store lives on."""

from __future__ import annotations

import itertools

import pytest

from cryptostore import BackendUnavailable, Changes, CryptoStore, Range, Record, Value
from cryptostore.store.keys import successor
from cryptostore_contract.cases.base import CaseGroup
from cryptostore_contract.cases.reading import NEAR_MISSES
from cryptostore_contract.cases.records import every_kind, keyed_kinds
from cryptostore_contract.handles import Handles, put
from cryptostore_contract.manifest import case
from cryptostore_contract.raw import EVERYTHING, TIMEOUT, RawOwner
from cryptostore_contract.samples import ALICE, in_key_order, sample, samples

#: Several of the core's pages, which have 500 rows.
_MANY = 1_600

#: Ranges to go through in pages.
_WITHIN = (EVERYTHING, Range(b"b", b"c"), Range(b"a\xff", b"b\0\xff"), Range(b"\xff", None))


class ScanningCases(CaseGroup):
    """scan."""

    @case("SCANNING-1", checks=("SCAN-1",))
    @every_kind
    def test_a_scan_gives_every_record_once_in_key_order(
        self, store: CryptoStore, handles: Handles, kind: type[Record]
    ) -> None:
        stored = samples(kind, _MANY)
        put(store, *reversed(stored))
        assert list(handles.read().scan(kind)) == stored

    @case("SCANNING-2", checks=("SCAN-1",))
    @keyed_kinds
    def test_a_scan_under_a_prefix_stays_there(self, store: CryptoStore, handles: Handles, kind: type[Record]) -> None:
        name = kind.key_fields[0]
        records = {
            record.key: record
            for text in NEAR_MISSES
            for record in (sample(kind, number, **{name: text}) for number in (2, 10))
        }
        put(store, *records.values())
        reader = handles.read()
        for text in (*NEAR_MISSES, "!", "nobody"):
            under = [record for record in in_key_order(records.values()) if record.key[0] == text]
            assert list(reader.scan(kind, (text,))) == under
        whole = next(iter(records))
        assert list(reader.scan(kind, whole)) == [records[whole]]

    @case("SCANNING-3", checks=("SCAN-1", "SCAN-2"))
    def test_pages_are_cut_at_no_field(self, store: CryptoStore, handles: Handles) -> None:
        # Every page ends within a namespace, and the next begins in the middle of it.
        stored = [sample(Value, namespace=f"n{n:02}", name=f"v{v:04}") for n in range(3) for v in range(_MANY // 3)]
        put(store, *stored, sample(Value, namespace="n01!"), sample(Value, namespace="n0"))
        reader = handles.read()
        assert list(reader.scan(Value, ("n01",))) == stored[_MANY // 3 : 2 * (_MANY // 3)]

    @case("SCANNING-4", checks=("SCAN-2",))
    def test_abandoned_scans_cost_nothing(self, store: CryptoStore, handles: Handles) -> None:
        stored = samples(Value, _MANY)
        put(store, *stored)
        reader = handles.read()
        # Kept, so that no collector gives back what the iterators hold.
        abandoned = [itertools.islice(reader.scan(Value), 1) for _ in range(200)]
        try:
            assert [next(scan) for scan in abandoned] == [stored[0]] * len(abandoned)
        except BackendUnavailable:
            pytest.fail("scans that were left half way keep what other reads need")
        assert list(reader.scan(Value)) == stored
        put(store, sample(Value, 0))
        assert reader.get(Value, [sample(Value, 0).key])
        handles.open().delete_account(ALICE)

    @case("SCANNING-5", checks=("SCAN-1", "SCAN-2", "SCAN-5"))
    def test_the_store_is_written_during_a_scan(self, store: CryptoStore) -> None:
        stored = samples(Value, _MANY)
        put(store, *stored)
        seen = []
        for number, record in enumerate(store.scan(Value)):
            seen.append(record)
            if number % 500 == 0:
                # Behind, at and far ahead of the reader; what exists throughout still comes once.
                put(
                    store,
                    sample(Value, namespace="!", name=f"{number}"),
                    sample(Value, namespace="~", name=f"{number}"),
                )
                store.apply(Changes(deletes=[(Value, ("!", f"{number - 500}")), (Value, ("~", f"{number - 500}"))]))
        assert [record for record in seen if record.namespace not in "!~"] == stored
        assert seen == in_key_order(by_key(seen).values())

    @case("SCANNING-6", checks=("SCAN-1", "SCAN-2", "SCAN-4"))
    def test_a_scan_fetches_what_is_there_when_it_gets_there(self, store: CryptoStore, handles: Handles) -> None:
        stored = samples(Value, _MANY)
        put(store, *stored)
        scan = handles.read().scan(Value)
        assert next(scan) == stored[0]
        # A scan that had fetched everything, or held a snapshot, would still show what is gone by now.
        store.apply(Changes(deletes=[(Value, record.key) for record in stored[1:]]))
        rest = list(scan)
        assert rest == stored[1 : len(rest) + 1]
        assert len(rest) < _MANY - 1

    @case("SCANNING-7", checks=("PAGE-1", "PAGE-2", "DATABASE-3"))
    @pytest.mark.parametrize("within", _WITHIN)
    def test_pages_end_after_their_size_or_with_their_range(self, raw: RawOwner, within: Range) -> None:
        keys = sorted(bytes(key) for size in (1, 2, 3) for key in itertools.product(b"\0ab\xff", repeat=size))
        raw.put({key: key[::-1] for key in keys})
        inside = [(key, key[::-1]) for key in keys if key >= within.start and (within.end is None or key < within.end)]
        for size in (1, 2, 3, len(inside) - 1, len(inside), len(inside) + 1, 10_000):
            assert in_pages(raw, within, size) == [inside[at : at + size] for at in range(0, len(inside), size)]

    @case("SCANNING-8", checks=("SCAN-1", "SCAN-5"))
    def test_many_scans_go_on_at_once(self, store: CryptoStore, handles: Handles) -> None:
        stored = samples(Value, _MANY)
        put(store, *stored)
        reader = handles.read()
        scans = [reader.scan(Value) for _ in range(20)]
        for expected, *found in itertools.zip_longest(stored, *scans):
            assert found == [expected] * len(scans)


def in_pages(raw: RawOwner, within: Range, size: int) -> list[list[tuple[bytes, bytes]]]:
    """The rows of a range, page by page, until one is empty; fails where none ever is."""
    pages: list[list[tuple[bytes, bytes]]] = []
    while rows := [(key, value) for key, value in raw.database.page(raw.row.id, within, size, TIMEOUT)]:
        assert not pages or rows[0][0] > pages[-1][-1][0], "a page does not go on behind the one before it"
        pages.append(rows)
        within = Range(successor(rows[-1][0]), within.end)
    return pages


def by_key(records: list[Value]) -> dict[tuple[str | int, ...], Value]:
    """Records by key: fewer than there were if one came twice."""
    return {record.key: record for record in records}
