"""Encoded values: what comes back, what is refused, and what no error shows."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptostore import (
    KINDS,
    DeviceTrust,
    EncryptedRoom,
    FieldType,
    OlmAccount,
    OutboundGroupSession,
    Record,
    SyncToken,
    TrackedUser,
    fields_of,
)
from cryptostore.store.values import NewerFormat, decode_value, encode_value
from example_records import SECRET, example

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
scalars = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts
FIELDS: dict[FieldType, st.SearchStrategy[Any]] = {
    FieldType.IDENTIFIER: texts.filter(bool),
    FieldType.PUBLIC_KEY: texts.filter(bool),
    FieldType.TEXT: texts,
    FieldType.BYTES: st.binary(max_size=300),
    FieldType.FLAG: st.booleans(),
    FieldType.COUNT: st.integers(0, 2**63 - 1),
    FieldType.TIME: st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])).filter(
        lambda time: 1 < time.year < 9999
    ),
    FieldType.NAMES: st.lists(texts, max_size=4),
    FieldType.SCALARS: st.dictionaries(texts, scalars, max_size=4),
    FieldType.PAIRS: st.frozensets(st.tuples(texts, texts), max_size=4),
    FieldType.TRUST: st.sampled_from(DeviceTrust),
}


@st.composite
def records(draw: st.DrawFn) -> Record:
    kind = draw(st.sampled_from(KINDS))
    return kind(**{field.name: draw(FIELDS[field.type]) for field in fields_of(kind)})


@given(records())
def test_round_trip(record: Record) -> None:
    assert decode_value(type(record), record.key, encode_value(record)) == record


@pytest.mark.parametrize("time", [datetime(1, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_times_at_the_ends_of_the_calendar(time: datetime) -> None:
    record = OutboundGroupSession("!r:x", b"", time)
    assert decode_value(OutboundGroupSession, record.key, encode_value(record)) == record


def test_a_set_is_the_same_bytes_in_every_process() -> None:
    program = (
        "from cryptostore import *; from cryptostore.store.values import encode_value; import sys;"
        "print(encode_value(EncryptedRoom('!r:x', {str(n): n for n in range(20)})).hex())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            check=True,
            capture_output=True,
        ).stdout
        for seed in (1, 2)
    }
    assert len(outputs) == 1
    backwards = EncryptedRoom("!r:x", {str(n): n for n in reversed(range(20))})
    assert outputs == {f"{encode_value(backwards).hex()}\n".encode()}


def test_a_newer_format_is_told_apart() -> None:
    encoded = encode_value(SyncToken("s"))
    with pytest.raises(NewerFormat, match="has format 2, and this program knows 1"):
        decode_value(SyncToken, (), b"\x02" + encoded[1:])


@pytest.mark.parametrize("encoded", [b"", b"\x00", b"\x00\x91\xa1s"])
def test_a_format_that_never_was_is_refused(encoded: bytes) -> None:
    with pytest.raises(ValueError, match="has no format that this program ever wrote"):
        decode_value(SyncToken, (), encoded)


def fields(*values: Any) -> bytes:
    return b"\x01" + msgspec.msgpack.encode(values)


@pytest.mark.parametrize(
    ("kind", "encoded"),
    [
        (SyncToken, b"\x01"),
        (SyncToken, fields()),
        (SyncToken, fields(SECRET, SECRET)),
        (SyncToken, fields(SECRET.encode())),
        (SyncToken, fields(f"{SECRET}\0")),
        (SyncToken, b"\x01\x91\xa3\xff\xfe\xfd"),
        (SyncToken, fields(SECRET) + b"more"),
        (TrackedUser, fields(SECRET, 1)),
        (TrackedUser, fields(True, -1)),
        (OlmAccount, fields(SECRET)),
    ],
)
def test_what_is_no_value_is_refused_and_not_quoted(kind: type[Record], encoded: bytes) -> None:
    key = ("@alice:x",) if kind.key_fields else ()
    with pytest.raises(ValueError, match="does not hold the fields of its kind") as caught:
        decode_value(kind, key, encoded)
    # The object of a UnicodeDecodeError is the plain text.
    assert caught.value.__context__ is None
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_the_key_is_no_part_of_the_value(kind: type[Record]) -> None:
    record = example(kind)
    others = {name: "another" if isinstance(getattr(record, name), str) else 99 for name in kind.key_fields}
    moved = example(kind, **others)
    assert encode_value(moved) == encode_value(record)
