"""Records: every kind comes back as it was put, down to the last byte."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryptostore import (
    KINDS,
    Changes,
    CryptoStore,
    FieldType,
    InboundGroupSession,
    InvalidRecord,
    Record,
    fields_of,
    key_fields_of,
)
from cryptostore_contract import strategies
from cryptostore_contract.cases.base import CaseGroup
from cryptostore_contract.handles import Handles, put
from cryptostore_contract.manifest import case
from cryptostore_contract.samples import (
    LONGEST_IDENTIFIER,
    changed,
    exact,
    extremes,
    in_key_order,
    sample,
    samples,
)

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind_name)

_KEYED: Final = [kind for kind in KINDS if kind.key_fields]

keyed_kinds = pytest.mark.parametrize("kind", _KEYED, ids=lambda kind: kind.kind_name)

#: Identifiers that no record may have, by what is wrong with them.
_BAD_IDENTIFIERS: Final = {
    "empty": "",
    "256 bytes": "x" * 256,
    "256 bytes in fewer characters": "é" * 128,
    "NUL": "a\0b",
    "lone surrogate": "a\ud800",
}

#: For each type a value of another type.
_WRONG_TYPE: Final = {
    FieldType.IDENTIFIER: b"bytes",
    FieldType.TEXT: None,
    FieldType.BYTES: "text",
    FieldType.FLAG: 1,
    FieldType.COUNT: True,
    FieldType.INTEGER: 1.0,
    FieldType.TIME: 1_700_000_000,
    FieldType.NAMES: "abc",
    FieldType.SCALARS: [("a", 1)],
    FieldType.PAIRS: ["ab", "cd"],
    FieldType.TRUST: "sometimes",
}

#: Hypothesis writes all its examples to the one database of the test, under whatever keys it likes: that is meant.
_examples = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


class RecordCases(CaseGroup):
    """What goes in comes out."""

    @case("RECORDS-1", checks=("COMMIT-8", "GET-1"))
    @every_kind
    def test_a_record_comes_back_as_it_was_put(self, store: CryptoStore, handles: Handles, kind: type[Record]) -> None:
        record = sample(kind)
        put(store, record)
        found = handles.read().get(kind, [record.key])
        assert list(found) == [record.key]
        assert exact(found[record.key]) == exact(record)

    @case("RECORDS-2", checks=("COMMIT-8", "GET-1", "SELECT-1"))
    @every_kind
    def test_extreme_values_of_every_field_come_back_exactly(
        self, store: CryptoStore, handles: Handles, kind: type[Record]
    ) -> None:
        sent = list(extremes(kind))
        for batch in [sent] if kind.key_fields else [[record] for record in sent]:
            put(store, *batch)
            stored = handles.stored(kind)
            assert [exact(record) for record in stored] == [exact(record) for record in in_key_order(batch)]

    @case("RECORDS-3", checks=("COMMIT-8", "GET-1"))
    @every_kind
    @_examples
    @given(data=st.data())
    def test_any_record_comes_back_as_it_was_put(
        self, store: CryptoStore, reader: CryptoStore, kind: type[Record], data: st.DataObject
    ) -> None:
        batch = {record.key: record for record in data.draw(strategies.batches(kind))}
        put(store, *batch.values())
        found = reader.get(kind, batch)
        assert {key: exact(record) for key, record in found.items()} == {
            key: exact(record) for key, record in batch.items()
        }

    @case("RECORDS-4", checks=("GET-1", "GET-2", "COMMIT-8"))
    @keyed_kinds
    def test_identifiers_of_255_bytes_stand_in_every_key_field_at_once(
        self, store: CryptoStore, handles: Handles, kind: type[Record]
    ) -> None:
        names = [name for name, field_type in key_fields_of(kind) if field_type is FieldType.IDENTIFIER]
        longest = sample(kind, 1, **dict.fromkeys(names, LONGEST_IDENTIFIER))
        neighbours = [changed_in_the_last_byte(longest, name, number) for number, name in enumerate(names, 2)]
        put(store, longest, *neighbours)
        assert handles.stored(kind) == in_key_order([longest, *neighbours])

    @case("RECORDS-5", checks=("GET-4", "SELECT-4", "SCAN-3"))
    @keyed_kinds
    @pytest.mark.parametrize("value", list(_BAD_IDENTIFIERS.values()), ids=list(_BAD_IDENTIFIERS))
    def test_bad_identifiers_are_refused_by_kind_and_field(
        self, store: CryptoStore, kind: type[Record], value: str
    ) -> None:
        for position, (name, field_type) in enumerate(key_fields_of(kind)):
            if field_type is not FieldType.IDENTIFIER:
                continue
            key = sample(kind).key
            bad = (*key[:position], value, *key[position + 1 :])
            for attempt in (
                lambda name=name: sample(kind, **{name: value}),
                lambda bad=bad: Changes(deletes=[(kind, bad)]),
                lambda key=key, bad=bad: store.get(kind, [key, bad]),
                lambda bad=bad: store.select(kind, [(), bad]),
                lambda bad=bad: store.scan(kind, bad),
            ):
                with pytest.raises(InvalidRecord) as refused:
                    attempt()
                assert (refused.value.kind, refused.value.field) == (kind.kind_name, name)

    @case("RECORDS-6", checks=("COMMIT-8", "GET-1"))
    @pytest.mark.parametrize(
        "kind",
        [kind for kind in KINDS if any(field_type is FieldType.BYTES for _, field_type in fields_of(kind))],
        ids=lambda kind: kind.kind_name,
    )
    def test_a_pickle_of_a_mebibyte_comes_back_whole(
        self, store: CryptoStore, handles: Handles, kind: type[Record]
    ) -> None:
        names = [name for name, field_type in fields_of(kind) if field_type is FieldType.BYTES]
        record = sample(kind, **dict.fromkeys(names, bytes(range(256)) * 4_096))
        put(store, record)
        assert handles.stored(kind) == [record]

    @case("RECORDS-7", checks=("COMMIT-8",))
    def test_a_forwarding_chain_keeps_its_order_and_shrinks(self, store: CryptoStore, handles: Handles) -> None:
        for chain in [("c", "a", "b", "a"), ("a", "b"), ("b", "a"), (), ("z",)]:
            put(store, sample(InboundGroupSession, forwarding_chain=chain))
            assert [session.forwarding_chain for session in handles.stored(InboundGroupSession)] == [chain]

    @case("RECORDS-8", checks=("COMMIT-8",))
    @every_kind
    def test_a_put_replaces_every_field(self, store: CryptoStore, handles: Handles, kind: type[Record]) -> None:
        first = samples(kind, 3)
        put(store, *first)
        replaced = [changed(record, 77) for record in first]
        put(store, *replaced)
        assert [exact(record) for record in handles.stored(kind)] == [exact(record) for record in replaced]

    @case("RECORDS-9", checks=("COMMIT-8",))
    @every_kind
    def test_a_put_takes_every_field_back_to_its_least_value(
        self, store: CryptoStore, handles: Handles, kind: type[Record]
    ) -> None:
        record = sample(kind, 5)
        put(store, record)
        least = least_values(record)
        put(store, least)
        assert [exact(record) for record in handles.stored(kind)] == [exact(least)]

    @case("RECORDS-10", checks=("COMMIT-8", "GET-1"))
    @every_kind
    def test_a_deleted_record_is_gone_and_its_neighbours_are_not(
        self, store: CryptoStore, handles: Handles, kind: type[Record]
    ) -> None:
        stored = samples(kind, 3)
        put(store, *stored)
        gone = stored[len(stored) // 2]
        store.apply(Changes(deletes=[(kind, gone.key)]))
        assert handles.stored(kind) == [record for record in stored if record is not gone]
        assert handles.read().get(kind, [gone.key]) == {}

    @case("RECORDS-11", checks=("GET-1",))
    @every_kind
    def test_a_value_of_the_wrong_type_is_refused_by_field(self, store: CryptoStore, kind: type[Record]) -> None:
        for name, field_type in fields_of(kind):
            with pytest.raises(InvalidRecord) as refused:
                sample(kind, **{name: _WRONG_TYPE[field_type]})
            assert (refused.value.kind, refused.value.field) == (kind.kind_name, name)
        assert store.select(kind, [()]) == {(): []}


def changed_in_the_last_byte(record: Record, name: str, number: int) -> Record:
    """A record of other values whose key differs in the last byte of one field."""
    values = {field: getattr(record, field) for field in record.key_fields}
    return sample(type(record), number, **values | {name: LONGEST_IDENTIFIER[:-1] + "\U0001d56d"})


def least_values(record: Record) -> Record:
    """The record with every field beside its key as empty as its type allows."""
    least: dict[FieldType, Any] = {
        FieldType.IDENTIFIER: "-",
        FieldType.TEXT: "",
        FieldType.BYTES: b"",
        FieldType.FLAG: False,
        FieldType.COUNT: 0,
        FieldType.INTEGER: -(2**63),
        FieldType.NAMES: (),
        FieldType.SCALARS: {},
        FieldType.PAIRS: (),
        FieldType.TRUST: "unset",
    }
    emptied = {name: least[kind] for name, kind in fields_of(type(record)) if kind in least}
    key = {name: getattr(record, name) for name in record.key_fields}
    return sample(type(record), 5, **emptied | key)
