"""Encoded keys: each delimits itself, no two are the same, and a prefix is a range."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptostore import (
    KINDS,
    FieldType,
    InboundGroupSession,
    InvalidRecord,
    Key,
    OlmSession,
    Record,
    SyncToken,
    TrackedUser,
    key_fields_of,
)
from cryptostore.store import keys
from cryptostore.store.keys import decode_key, encode_key, encode_own_key, prefix_range, range_of, successor
from example_records import example

KEYED = [kind for kind in KINDS if kind.key_fields]

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(
    lambda text: len(text.encode()) <= 255
)
base64 = st.binary(min_size=32, max_size=32).map(lambda raw: b64encode(raw).decode().rstrip("="))
almost_base64 = st.text("ABYZabyz0189+/=-_ ", min_size=42, max_size=44)
FIELDS: dict[FieldType, st.SearchStrategy[Any]] = {
    FieldType.IDENTIFIER: texts,
    FieldType.PUBLIC_KEY: base64 | texts | almost_base64,
    FieldType.COUNT: st.integers(0, 2**63 - 1),
}


@st.composite
def keys_of_a_kind(draw: st.DrawFn, count: int = 1) -> tuple[type[Record], list[Key]]:
    kind = draw(st.sampled_from(KEYED))
    key = st.tuples(*[FIELDS[field.type] for field in key_fields_of(kind)])
    return kind, draw(st.lists(key, min_size=count, max_size=count))


@given(keys_of_a_kind())
def test_round_trip(case: tuple[type[Record], list[Key]]) -> None:
    kind, [key] = case
    assert decode_key(kind, encode_key(kind, key)) == key


@given(keys_of_a_kind(2))
def test_no_two_keys_are_encoded_alike(case: tuple[type[Record], list[Key]]) -> None:
    kind, [one, other] = case
    assert (encode_key(kind, one) == encode_key(kind, other)) == (one == other)


@given(keys_of_a_kind(2), st.data())
def test_a_prefix_is_a_range(case: tuple[type[Record], list[Key]], data: st.DataObject) -> None:
    kind, [one, other] = case
    prefix = one[: data.draw(st.integers(0, len(one)))]
    within = prefix_range(kind, prefix)
    for key in (one, other):
        encoded = encode_key(kind, key)
        inside = within.start <= encoded and (within.end is None or encoded < within.end)
        assert inside == (key[: len(prefix)] == prefix)


@given(st.binary(max_size=6), st.binary(max_size=8))
def test_the_end_of_a_range_is_the_prefix_plus_one_with_carry(prefix: bytes, key: bytes) -> None:
    start, end = range_of(prefix)
    assert start == prefix
    assert (end is None) == (prefix.strip(b"\xff") == b"")
    assert (start <= key and (end is None or key < end)) == key.startswith(prefix)


@given(st.binary(max_size=4), st.binary(max_size=5))
def test_nothing_lies_between_a_key_and_its_successor(key: bytes, other: bytes) -> None:
    assert key < successor(key)
    assert not key < other < successor(key)


@pytest.mark.parametrize("kind", KINDS)
def test_a_records_own_key_is_encoded_like_any(kind: type[Record]) -> None:
    record = example(kind)
    assert encode_own_key(record) == encode_key(kind, record.key)
    assert encode_own_key(record)[0] == kind.kind_number


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_key_is_another_key_or_none(kind: type[Record]) -> None:
    encoded = encode_own_key(example(kind))
    for bit in range(8 * len(encoded)):
        flipped = (int.from_bytes(encoded, "big") ^ 1 << bit).to_bytes(len(encoded), "big")
        try:
            key = decode_key(kind, flipped)
        except ValueError:
            continue
        assert encode_key(kind, key) == flipped


def test_a_public_key_takes_33_bytes() -> None:
    canonical = "bcgRWDIV4hc1Ugfb81ZDjvWpAZNUdNQ3Hi9AUGk8SU4"
    assert len(encode_key(OlmSession, (canonical, canonical))) == 1 + 2 * 33
    # The same bytes, spelt with a spare bit set: another identifier, and another key.
    assert encode_key(OlmSession, (canonical[:-1] + "5", canonical))[1] == 2


@pytest.mark.parametrize("wrong", ["=", " ", "-", "é"])
def test_what_only_looks_like_a_public_key_is_kept_as_text(wrong: str) -> None:
    text = "A" * 20 + wrong + "A" * 22
    encoded = encode_key(OlmSession, (text, text))
    assert encoded[1] == 2
    assert decode_key(OlmSession, encoded) == (text, text)


def test_the_longest_key_has_769_bytes() -> None:
    longest = ("é" * 127 + "!", "é" * 127 + "!", "é" * 127 + "!")
    assert len(encode_key(InboundGroupSession, longest)) == 1 + 256 + 257 + 257


def test_a_key_above_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MAX_KEY_BYTES", 8)
    with pytest.raises(InvalidRecord, match=r"tracked_user\.key has 9 bytes; 8 are allowed"):
        encode_key(TrackedUser, ("@al:xyz",))


@pytest.mark.parametrize(
    ("kind", "encoded"),
    [
        (TrackedUser, b""),
        (TrackedUser, b"\x04"),
        (TrackedUser, b"\x04@alice:x"),
        (TrackedUser, b"\x04@alice:x\x00more"),
        (TrackedUser, b"\x04\xff\x00"),
        (SyncToken, b"\x02\x00"),
        (OlmSession, b"\x06\x01" + bytes(31)),
        (OlmSession, b"\x06\x01" + bytes(32) + b"\x03text\x00"),
        (OlmSession, b"\x06\x01" + bytes(32) + b"\x02" + b"A" * 43 + b"\x00"),
        (TrackedUser, b"\x04\x00"),
        (TrackedUser, b"\x04" + b"@" * 256 + b"\x00"),
        (SyncToken, b"\x04"),
    ],
)
def test_what_encodes_no_key_is_refused(kind: type[Record], encoded: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_key(kind, encoded)
