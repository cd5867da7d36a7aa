"""Looking records up: by whole keys and by their beginnings, byte by byte and in key order."""

from __future__ import annotations

import itertools
import random
from typing import Any, Final

import pytest

from cryptostore import (
    Changes,
    CryptoStore,
    FieldType,
    InboundGroupSession,
    InvalidRecord,
    MessageIndex,
    OlmMessage,
    OutboundGroupSession,
    Record,
    SyncToken,
    TrackedUser,
    Value,
    key_fields_of,
)
from cryptostore_contract.cases.base import CaseGroup
from cryptostore_contract.cases.records import keyed_kinds
from cryptostore_contract.handles import Handles, put
from cryptostore_contract.manifest import case
from cryptostore_contract.samples import EXTREMES, in_key_order, sample, samples

#: Identifiers that are one and the same to some comparison rule, and none of them to ours.
NEAR_MISSES: Final = (
    *(
        "!a",
        "!ab",
        "!A",
        "!a ",
        " !a",
        "!a\t",
        "!a%",
        "!a_",
        "!a*",
        "!a?",
        "!a\\",
        "!a'",
        "%",
        "_",
        "*",
        "?",
        "%%",
        "__",
    ),
    *("!ä", "!a\u0308", "!Ä", "!ß", "!ss", "!ẞ", "!\u0131", "!i", "!I", "!İ", "!é", "!e\u0301", "!\ufb01", "!fi"),
    *(
        "1",
        "01",
        "1.0",
        "1e0",
        "+1",
        "0x1",
        "!a\x01",
        "!a\u200b",
        "!a\u00a0",
        "\ufeff!a",
        "[!a]",
        "{!a}",
        "^!a$",
        "!a|",
    ),
)

#: The order of their UTF-8 bytes; UTF-16 and most languages would have it otherwise.
_IN_BYTE_ORDER: Final = ("!", "B", "Z", "_", "a", "aB", "aa", "b", "~", "Ä", "ß", "ä", "\uffee", "\U0001d56c")

_INDICES: Final = (0, 1, 2, 9, 10, 11, 100, 2**31, 2**40, 2**53 + 1, 2**63 - 1)


class ReadingCases(CaseGroup):
    """get and select."""

    @case("READING-1", checks=("GET-1", "GET-2", "COMMIT-8"))
    @keyed_kinds
    def test_keys_that_look_alike_are_different_keys(
        self, store: CryptoStore, handles: Handles, kind: type[Record]
    ) -> None:
        for name, field_type in key_fields_of(kind):
            if field_type is not FieldType.IDENTIFIER:
                continue
            # Nothing but the field under test tells the keys apart; the values do, too.
            key = dict(zip(kind.key_fields, sample(kind).key, strict=True))
            records = [sample(kind, number, **key | {name: text}) for number, text in enumerate(NEAR_MISSES)]
            put(store, *records)
            assert handles.read().get(kind, [record.key for record in records]) == {
                record.key: record for record in records
            }
            for record in records[1::2]:
                store.apply(Changes(deletes=[(kind, record.key)]))
            assert handles.stored(kind) == in_key_order(records[::2])
            store.apply(Changes(deletes=[(kind, record.key) for record in records]))

    @case("READING-2", checks=("GET-1",))
    @keyed_kinds
    def test_absent_keys_are_left_out(self, store: CryptoStore, handles: Handles, kind: type[Record]) -> None:
        stored = samples(kind, 4)
        put(store, *stored[:2])
        assert store.get(kind, [record.key for record in stored]) == {record.key: record for record in stored[:2]}
        assert handles.read().get(kind, [record.key for record in stored[2:]]) == {}

    @case("READING-3", checks=("GET-1", "GET-3"))
    def test_any_number_of_keys_is_looked_up_at_once(self, store: CryptoStore, handles: Handles) -> None:
        stored = samples(InboundGroupSession, 12_000)
        put(store, *stored)
        reader = handles.read()
        asked = samples(InboundGroupSession, 24_000)
        random.Random(1).shuffle(asked)
        found = reader.get(InboundGroupSession, (record.key for record in asked))
        assert found == {record.key: record for record in stored}
        assert reader.get(InboundGroupSession, []) == {}

    @case("READING-4", checks=("GET-1",))
    def test_a_key_may_be_asked_for_twice(self, store: CryptoStore) -> None:
        put(store, sample(Value))
        key = sample(Value).key
        assert store.get(Value, [key, key]) == {key: sample(Value)}
        assert store.select(Value, [key[:1], key[:1]]) == {key[:1]: [sample(Value)]}

    @case("READING-5", checks=("GET-4",))
    @keyed_kinds
    def test_a_key_that_is_not_whole_is_refused(self, store: CryptoStore, kind: type[Record]) -> None:
        key = sample(kind).key
        for bad in (key[:-1], (*key, "more"), (), list(key), (None, *key[1:])):
            with pytest.raises(InvalidRecord, match=kind.kind_name):
                store.get(kind, [key, bad])  # type: ignore[list-item]  # what a client without types may pass

    @case("READING-6", checks=("SELECT-1",))
    @keyed_kinds
    def test_records_come_in_the_order_of_their_keys_bytes(
        self, store: CryptoStore, handles: Handles, kind: type[Record]
    ) -> None:
        records = every_combination(kind)
        shuffled = list(records)
        random.Random(2).shuffle(shuffled)
        put(store, *shuffled)
        assert [record.key for record in handles.stored(kind)] == [record.key for record in records]

    @case("READING-7", checks=("SELECT-1",))
    def test_integers_in_keys_are_ordered_as_numbers(self, store: CryptoStore, handles: Handles) -> None:
        put(store, *[index_of("s", "k", index) for index in reversed(_INDICES)])
        found = handles.read().select(MessageIndex, [("s", "k")])
        assert [record.index for record in found["s", "k"]] == list(_INDICES)

    @case("READING-8", checks=("SELECT-1", "SELECT-2"))
    @keyed_kinds
    def test_a_prefix_is_made_of_whole_fields(self, store: CryptoStore, handles: Handles, kind: type[Record]) -> None:
        name = kind.key_fields[0]
        texts = [*NEAR_MISSES, *EXTREMES[FieldType.IDENTIFIER][:-1]]
        records = [sample(kind, number, **{name: text}) for text in dict.fromkeys(texts) for number in range(1, 3)]
        records = list({record.key: record for record in records}.values())
        put(store, *records)
        expected: dict[Any, list[Record]] = {(text,): [] for text in texts}
        for record in in_key_order(records):
            expected[record.key[:1]].append(record)
        assert handles.read().select(kind, list(expected)) == expected

    @case("READING-9", checks=("SELECT-1", "SELECT-2"))
    def test_every_beginning_of_a_key_is_a_prefix(self, store: CryptoStore, handles: Handles) -> None:
        records = [
            sample(InboundGroupSession, room_id=room, session_id=session, sender_key=key)
            for room, session, key in itertools.product(("!a", "!ab", "!b"), ("s", "st"), ("k", "kk"))
        ]
        put(store, *records)
        prefixes: list[tuple[str, ...]] = [(), ("!a",), ("!a", "s"), ("!ab", "st", "k"), ("!",), ("!a", "k"), ("!c",)]
        found = handles.read().select(InboundGroupSession, prefixes)
        assert found == {
            prefix: [record for record in records if record.key[: len(prefix)] == prefix] for prefix in prefixes
        }

    @case("READING-10", checks=("SELECT-1", "SELECT-3"))
    def test_any_number_of_prefixes_is_looked_up_at_once(self, store: CryptoStore, handles: Handles) -> None:
        stored = [index_of(f"session {number:05}", "k", index) for number in range(3_000) for index in (2, 10)]
        put(store, *stored)
        reader = handles.read()
        prefixes = [(f"session {number:05}",) for number in range(6_000)]
        found = reader.select(MessageIndex, prefixes)
        assert list(found) == prefixes
        assert [record for prefix in prefixes for record in found[prefix]] == stored
        assert reader.select(MessageIndex, []) == {}

    @case("READING-11", checks=("SELECT-4",))
    @keyed_kinds
    def test_what_is_no_prefix_is_refused(self, store: CryptoStore, kind: type[Record]) -> None:
        key = sample(kind).key
        for bad in ((*key, "more"), list(key), (None,), key[0]):
            with pytest.raises(InvalidRecord, match=kind.kind_name):
                store.select(kind, [(), bad])  # type: ignore[list-item]  # what a client without types may pass

    @case("READING-12", checks=("SELECT-1",))
    @pytest.mark.parametrize("kind", [OlmMessage, OutboundGroupSession, TrackedUser, SyncToken])
    def test_nothing_matches_in_an_empty_account(self, store: CryptoStore, kind: type[Record]) -> None:
        assert store.select(kind, [()]) == {(): []}
        assert store.get(kind, [sample(kind).key]) == {}
        assert list(store.scan(kind)) == []

    @case("READING-13", checks=("APPLY-6", "SELECT-2"))
    def test_a_session_is_deleted_with_its_message_indices(self, store: CryptoStore, handles: Handles) -> None:
        gone = sample(InboundGroupSession, session_id="s", sender_key="k")
        kept = [index_of("s", "kk", 1), index_of("st", "k", 1)]
        put(store, gone, *kept, *[index_of("s", "k", index) for index in range(5)])
        store.apply(store.session_deletion(gone))
        assert handles.everything() == {MessageIndex: kept}


def index_of(session_id: str, sender_key: str, index: int) -> MessageIndex:
    """A message index of one session."""
    return sample(MessageIndex, session_id=session_id, sender_key=sender_key, index=index)


def every_combination(kind: type[Record]) -> list[Record]:
    """A record for every combination of some key values, in key order."""
    values: list[tuple[str | int, ...]] = [
        _INDICES[:4] if field_type is FieldType.COUNT else _IN_BYTE_ORDER for _, field_type in key_fields_of(kind)
    ]
    # The third field of a long key makes thousands of them, and says nothing new.
    values[2:] = [choices[:3] for choices in values[2:]]
    keys = itertools.product(*values)
    return [sample(kind, number, **dict(zip(kind.key_fields, key, strict=True))) for number, key in enumerate(keys)]
