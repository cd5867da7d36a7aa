"""Records and rows: what was put comes back, down to the last byte."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryptostore import KINDS, Changes, CryptoStore, FieldType, InvalidRecord, Record, fields_of, key_fields_of
from cryptostore.store.interface import MAX_KEY_BYTES, MAX_STORED_BYTES
from cryptostore_contract.cases.base import CaseGroup, nothing_in_the_way
from cryptostore_contract.handles import Handles, put
from cryptostore_contract.manifest import case
from cryptostore_contract.raw import EVERYTHING, TIMEOUT, RawOwner
from cryptostore_contract.samples import LONGEST_IDENTIFIER, changed, exact, in_key_order, sample, samples

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind_name)

_KEYED: Final = [kind for kind in KINDS if kind.key_fields]

keyed_kinds = pytest.mark.parametrize("kind", _KEYED, ids=lambda kind: kind.kind_name)

#: What the fields are that hold an identifier.
TEXTS: Final = (FieldType.IDENTIFIER, FieldType.PUBLIC_KEY)

#: Identifiers that no record may have, by what is wrong with them.
_BAD_IDENTIFIERS: Final = {
    "empty": "",
    "256 bytes": "x" * 256,
    "256 bytes in fewer characters": "é" * 128,
    "NUL": "a\0b",
    "lone surrogate": "a\ud800",
}

_MEBIBYTE: Final = 2**20
_EVERY_BYTE: Final = bytes(range(256))

#: Values by what is hard about them.
_VALUES: Final = {
    "empty": b"",
    "NUL": b"\0",
    "NULs": b"\0" * 1_000,
    "every byte": _EVERY_BYTE,
    "looks like hexadecimal": b"\\x00ff",
    "looks like SQL": b"'; --",
    "no UTF-8": b"\xff\xfe\x80",
    "2 MiB": _EVERY_BYTE * (2 * _MEBIBYTE // 256),
    "the longest": _EVERY_BYTE * (MAX_STORED_BYTES // 256),
}

#: Hypothesis writes all its examples to the one database of the test: that is meant.
_examples = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

#: Few bytes, so that one key is often the beginning of another.
_keys = st.lists(st.sampled_from(b"\0\x01aA\x7f\x80\xff"), min_size=1, max_size=4).map(bytes) | st.binary(
    min_size=1, max_size=100
)


class RecordCases(CaseGroup):
    """What goes in comes out."""

    @case("RECORDS-1", checks=("COMMIT-1", "GET-1"))
    @every_kind
    def test_a_record_comes_back_as_it_was_put(self, store: CryptoStore, handles: Handles, kind: type[Record]) -> None:
        record = sample(kind)
        put(store, record)
        found = handles.read().get(kind, [record.key])
        assert list(found) == [record.key]
        assert exact(found[record.key]) == exact(record)

    @case("RECORDS-2", checks=("COMMIT-1", "ROWS-1", "DATABASE-3"))
    @pytest.mark.parametrize("value", list(_VALUES.values()), ids=list(_VALUES))
    def test_values_of_any_bytes_and_any_length_come_back(self, raw: RawOwner, handles: Handles, value: bytes) -> None:
        raw.put({b"before": b"1", b"key": value, b"key after": b"2"})
        fresh = handles.open().database
        for rows in (
            fresh.get(raw.row.id, [b"key"], TIMEOUT),
            fresh.ranges(raw.row.id, [EVERYTHING], TIMEOUT)[1:2],
            fresh.page(raw.row.id, EVERYTHING, 2, TIMEOUT)[1:],
        ):
            [(key, found)] = rows
            assert (type(found), key) == (bytes, b"key")
            # By their lengths first: megabytes that differ are compared for minutes to show where.
            assert len(found) == len(value)
            assert found == value

    @case("RECORDS-3", checks=("COMMIT-1", "ROWS-1", "RANGES-1", "PAGE-1", "DATABASE-3"))
    @_examples
    @given(rows=st.dictionaries(_keys, st.binary(max_size=200), min_size=1, max_size=12))
    def test_any_rows_come_back_as_they_were_put(self, raw: RawOwner, rows: dict[bytes, bytes]) -> None:
        before = raw.everything()
        raw.put(rows, before.keys() - rows.keys())
        in_order = sorted(rows.items())
        assert raw.get(rows.keys() | before.keys()) == rows
        assert list(map(tuple, raw.database.ranges(raw.row.id, [EVERYTHING], TIMEOUT))) == in_order
        assert list(map(tuple, raw.database.page(raw.row.id, EVERYTHING, 5, TIMEOUT))) == in_order[:5]

    @case("RECORDS-4", checks=("GET-1", "GET-2", "COMMIT-1"))
    @keyed_kinds
    def test_identifiers_of_255_bytes_stand_in_every_key_field_at_once(
        self, store: CryptoStore, handles: Handles, kind: type[Record]
    ) -> None:
        names = [name for name, field_type in key_fields_of(kind) if field_type in TEXTS]
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
            if field_type not in TEXTS:
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

    @case("RECORDS-6", checks=("COMMIT-1", "GET-1", "APPLY-11"))
    @pytest.mark.parametrize(
        "kind",
        [kind for kind in KINDS if any(field_type is FieldType.BYTES for _, field_type in fields_of(kind))],
        ids=lambda kind: kind.kind_name,
    )
    def test_a_record_of_two_mebibytes_comes_back_and_one_that_is_too_large_is_refused(
        self, store: CryptoStore, handles: Handles, kind: type[Record]
    ) -> None:
        [name, *_] = [name for name, field_type in fields_of(kind) if field_type is FieldType.BYTES]
        record = sample(kind, **{name: _EVERY_BYTE * (2 * _MEBIBYTE // 256)})
        put(store, record)
        with pytest.raises(InvalidRecord, match=kind.kind_name):
            put(store, sample(kind, **{name: bytes(MAX_STORED_BYTES)}))
        assert handles.stored(kind) == [record]

    @case("RECORDS-7", checks=("COMMIT-1", "ROWS-1", "RANGES-1", "DATABASE-3"))
    def test_keys_of_one_byte_and_of_1024_come_back(self, raw: RawOwner, handles: Handles) -> None:
        longest = b"k" * MAX_KEY_BYTES
        keys = [
            *(bytes([byte]) for byte in range(256)),
            longest,
            # They differ in the last byte alone, or in the length.
            *(longest[:-1] + bytes([byte]) for byte in (0, ord("j"), ord("l"), 255)),
            longest[:-1],
            b"\0" * MAX_KEY_BYTES,
            b"\xff" * MAX_KEY_BYTES,
        ]
        rows = {key: b"%d" % number for number, key in enumerate(keys)}
        raw.put(rows)
        fresh = handles.open().database
        assert dict(fresh.get(raw.row.id, sorted(keys), TIMEOUT)) == rows
        assert [row[0] for row in fresh.ranges(raw.row.id, [EVERYTHING], TIMEOUT)] == sorted(keys)

    @case("RECORDS-8", checks=("COMMIT-1",))
    @every_kind
    def test_a_put_replaces_every_field(self, store: CryptoStore, handles: Handles, kind: type[Record]) -> None:
        first = samples(kind, 3)
        put(store, *first)
        replaced = [changed(record, 77) for record in first]
        put(store, *replaced)
        assert [exact(record) for record in handles.stored(kind)] == [exact(record) for record in replaced]

    @case("RECORDS-9", checks=("COMMIT-1", "DATABASE-3"))
    def test_a_put_takes_a_value_back_to_nothing(self, raw: RawOwner, handles: Handles) -> None:
        for value in (b"a long value", b"short", b"", b"\0", b"", b"\0" * 10):
            raw.put({b"key": value, b"other": b"kept"})
            assert list(handles.open().database.get(raw.row.id, [b"key"], TIMEOUT)) == [(b"key", value)]

    @case("RECORDS-10", checks=("COMMIT-1", "GET-1"))
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

    @case("RECORDS-11", checks=("ROWS-1", "RANGES-1", "PAGE-1", "COMMIT-2", "COMMIT-3", "FIND-1", "DELETE-1"))
    def test_an_account_that_is_not_there_has_no_rows_and_takes_none(self, raw: RawOwner) -> None:
        raw.put({b"key": b"value"})
        gone = raw.row._replace(id=raw.row.id ^ 1)
        database = raw.database
        assert list(database.get(gone.id, [b"key"], TIMEOUT)) == []
        assert list(database.ranges(gone.id, [EVERYTHING], TIMEOUT)) == []
        assert list(database.page(gone.id, EVERYTHING, 10, TIMEOUT)) == []
        assert database.find("@nobody:example.org", raw.row.device_id, TIMEOUT) is None
        assert database.commit(gone.id, raw.batch({b"key": b"stray"}), TIMEOUT) is None
        assert list(database.ranges(gone.id, [EVERYTHING], TIMEOUT)) == []
        database.delete(gone.id, TIMEOUT)
        assert (list(database.accounts(TIMEOUT)), raw.everything()) == ([raw.row], {b"key": b"value"})

    @case("RECORDS-12", checks=("COMMIT-1", "ROWS-1", "DATABASE-3"))
    def test_the_longest_values_are_stored_and_later_batches_go_on(self, raw: RawOwner, handles: Handles) -> None:
        rows = {b"key %d" % number: _EVERY_BYTE * (MAX_STORED_BYTES // 256) for number in range(5)}
        with nothing_in_the_way("a batch of the longest values, and what came behind it"):
            raw.put(rows)
            raw.put({b"key": b"value"}, [b"key 0"])
        stored = dict(handles.open().database.get(raw.row.id, sorted([*rows, b"key"]), TIMEOUT))
        assert {key: len(value) for key, value in stored.items()} == {
            **dict.fromkeys(list(rows)[1:], MAX_STORED_BYTES),
            b"key": len(b"value"),
        }
        assert all(stored[key] == rows[key] for key in list(rows)[1:])


def changed_in_the_last_byte(record: Record, name: str, number: int) -> Record:
    """A record of other values whose key differs in the last byte of one field."""
    values = {field: getattr(record, field) for field in record.key_fields}
    return sample(type(record), number, **values | {name: LONGEST_IDENTIFIER[:-1] + "\U0001d56d"})
