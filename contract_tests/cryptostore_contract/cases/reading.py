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
    OlmMessage,
    OutboundGroupSession,
    Range,
    Record,
    ReplayPage,
    SyncToken,
    TrackedUser,
    Value,
    key_fields_of,
)
from cryptostore_contract.cases.base import CaseGroup
from cryptostore_contract.cases.records import TEXTS, keyed_kinds
from cryptostore_contract.handles import Handles, put
from cryptostore_contract.manifest import case
from cryptostore_contract.raw import EVERYTHING, TIMEOUT, RawOwner
from cryptostore_contract.samples import IDENTIFIERS, in_key_order, public_key, sample, samples

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

#: The edges of a byte, where it is taken for a text, a signed number or the end of something.
_BYTES: Final = b"\0\x01\x1f !AZ_az\x7f\x80\xc3\xe4\xfe\xff"

#: Ranges in order that do not overlap, by what they are; with no end, to the last key.
_RANGES: Final[dict[str, list[tuple[bytes, bytes | None]]]] = {
    "all": [(b"", None)],
    "from a key": [(b"a\0", None)],
    "from between keys": [(b"a\0\0", None)],
    "before a key": [(b"a", b"a\0")],
    "behind a key": [(b"a\0", b"a\xff")],
    "the keys under a prefix": [(b"a", b"b")],
    "the keys under a prefix of 0xff": [(b"\xff", None)],
    "the keys under 0xfe": [(b"\xfe", b"\xff")],
    "of one key": [(b"m\x01", b"m\x01\0")],
    "empty": [(b"b", b"c")],
    "behind the last key": [(b"\xff\xff\0", None)],
    "adjacent": [(b"", b"a"), (b"a", b"a\x01"), (b"a\x01", b"b"), (b"b", None)],
    "apart": [(b"\0\0", b"\0\x01"), (b"b", b"c"), (b"m", b"m\0"), (b"\xfe\xff", b"\xff\0")],
    "of one key each": [(bytes([byte]), bytes([byte, 0])) for byte in range(256)],
    "none": [],
}

_PAGES: Final = (0, 1, 2, 9, 10, 11, 100, 2**31, 2**40, 2**53 + 1, 2**63 - 1)


class ReadingCases(CaseGroup):
    """get and select."""

    @case("READING-1", checks=("GET-1", "GET-2", "COMMIT-1"))
    @keyed_kinds
    def test_keys_that_look_alike_are_different_keys(
        self, store: CryptoStore, handles: Handles, kind: type[Record]
    ) -> None:
        for name, field_type in key_fields_of(kind):
            if field_type not in TEXTS:
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

    @case("READING-5", checks=("RANGES-1", "PAGE-1", "DATABASE-3"))
    def test_rows_come_in_the_order_of_their_keys_bytes(self, raw: RawOwner, handles: Handles) -> None:
        keys = [bytes(key) for length in (1, 2, 3) for key in itertools.product(_BYTES, repeat=length)]
        # Not in the order in which they were put, nor in the one that an index happens to have them in.
        for part in (keys[1::3], keys[2::3], keys[::3]):
            raw.put({key: bytes([len(key)]) for key in part})
        fresh = handles.open().database
        expected = [(key, bytes([len(key)])) for key in sorted(keys)]
        assert list(map(tuple, fresh.ranges(raw.row.id, [EVERYTHING], TIMEOUT))) == expected
        assert list(map(tuple, fresh.page(raw.row.id, EVERYTHING, len(keys), TIMEOUT))) == expected

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
        put(store, *[page_of("s", "k", page) for page in reversed(_PAGES)])
        found = handles.read().select(ReplayPage, [("s", "k")])
        assert [record.page for record in found["s", "k"]] == list(_PAGES)

    @case("READING-8", checks=("SELECT-1", "SELECT-2"))
    @keyed_kinds
    def test_a_prefix_is_made_of_whole_fields(self, store: CryptoStore, handles: Handles, kind: type[Record]) -> None:
        name = kind.key_fields[0]
        texts = [*NEAR_MISSES, *IDENTIFIERS[:-1]]
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
        stored = [page_of(f"session {number:05}", "k", page) for number in range(3_000) for page in (2, 10)]
        put(store, *stored)
        reader = handles.read()
        prefixes = [(f"session {number:05}",) for number in range(6_000)]
        found = reader.select(ReplayPage, prefixes)
        assert list(found) == prefixes
        assert [record for prefix in prefixes for record in found[prefix]] == stored
        assert reader.select(ReplayPage, []) == {}

    @case("READING-11", checks=("RANGES-1", "DATABASE-3"))
    @pytest.mark.parametrize("ranges", list(_RANGES.values()), ids=list(_RANGES))
    def test_ranges_begin_and_end_where_they_say(self, raw: RawOwner, ranges: list[tuple[bytes, bytes | None]]) -> None:
        keys = sorted(bytes(key) for length in (1, 2) for key in itertools.product(b"\0\x01am\xfe\xff", repeat=length))
        raw.put({key: key for key in keys})
        rows = raw.database.ranges(raw.row.id, [Range(*each) for each in ranges], TIMEOUT)
        assert list(map(tuple, rows)) == [
            (key, key) for start, end in ranges for key in keys if key >= start and (end is None or key < end)
        ]

    @case("READING-12", checks=("SELECT-1",))
    @pytest.mark.parametrize("kind", [OlmMessage, OutboundGroupSession, TrackedUser, SyncToken])
    def test_nothing_matches_in_an_empty_account(self, store: CryptoStore, kind: type[Record]) -> None:
        assert store.select(kind, [()]) == {(): []}
        assert store.get(kind, [sample(kind).key]) == {}
        assert list(store.scan(kind)) == []

    @case("READING-13", checks=("APPLY-6", "SELECT-2"))
    def test_a_session_is_deleted_with_its_replay_pages(self, store: CryptoStore, handles: Handles) -> None:
        gone = sample(InboundGroupSession, session_id="s", sender_key="k")
        kept = [page_of("s", "kk", 1), page_of("st", "k", 1)]
        put(store, gone, *kept, *[page_of("s", "k", page) for page in range(5)])
        store.apply(store.session_deletion(gone))
        assert handles.everything() == {ReplayPage: kept}


def page_of(session_id: str, sender_key: str, page: int) -> ReplayPage:
    """A replay page of one session."""
    return sample(ReplayPage, session_id=session_id, sender_key=sender_key, page=page)


def every_combination(kind: type[Record]) -> list[Record]:
    """A record for every combination of some key values, in key order."""
    choices_of: dict[FieldType, tuple[str | int, ...]] = {
        FieldType.COUNT: _PAGES[:4],
        FieldType.IDENTIFIER: _IN_BYTE_ORDER,
        FieldType.PUBLIC_KEY: (public_key("k", 0), public_key("k", 1), *_IN_BYTE_ORDER),
    }
    values = [choices_of[field_type] for _, field_type in key_fields_of(kind)]
    # The third field of a long key makes thousands of them, and says nothing new.
    values[2:] = [choices[:3] for choices in values[2:]]
    keys = itertools.product(*values)
    return [sample(kind, number, **dict(zip(kind.key_fields, key, strict=True))) for number, key in enumerate(keys)]
