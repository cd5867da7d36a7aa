"""A record as one value, there and back: its fields one after the other, each behind its length."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from cryptostore import FieldType, Record, fields_of
from cryptostore.fields import to_json

R = TypeVar("R", bound=Record)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LENGTH_BYTES: Final = 4


def encode(record: Record) -> bytes:
    """The value of a record. It holds the key fields, too: then only `keys` has to know what a key looks like."""
    fields = [_TO_BYTES[field.type](getattr(record, field.name)) for field in fields_of(type(record))]
    return b"".join(len(field).to_bytes(_LENGTH_BYTES, "big") + field for field in fields)


def decode(kind: type[R], value: bytes) -> R:
    """The record of a value. Raises ValueError, TypeError or InvalidRecord for a damaged one."""
    fields = zip(fields_of(kind), _split(value), strict=True)
    return kind(*[_FROM_BYTES[field.type](content) for field, content in fields])


def _split(value: bytes) -> Iterator[bytes]:
    while value:
        end = _LENGTH_BYTES + int.from_bytes(value[:_LENGTH_BYTES], "big")
        if end > len(value):
            raise ValueError("is cut off")
        yield value[_LENGTH_BYTES:end]
        value = value[end:]


def _from_integer(value: int) -> bytes:
    return value.to_bytes(8, "big", signed=True)


def _to_integer(content: bytes) -> int:
    return int.from_bytes(content, "big", signed=True)


def _from_time(value: datetime) -> bytes:
    return _from_integer((value - _EPOCH) // _MICROSECOND)


def _to_time(content: bytes) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=_to_integer(content))
    except OverflowError:
        raise ValueError("is out of the range of times") from None


def _to_flag(content: bytes) -> bool:
    if content not in (b"\0", b"\1"):
        raise ValueError("must be 0 or 1")
    return content == b"\1"


def _from_collection(value: Any) -> bytes:
    return to_json(value).encode()


_TO_BYTES: Final[Mapping[FieldType, Callable[[Any], bytes]]] = {
    FieldType.IDENTIFIER: str.encode,
    FieldType.TEXT: str.encode,
    FieldType.BYTES: bytes,
    FieldType.FLAG: lambda value: bytes([value]),
    FieldType.COUNT: _from_integer,
    FieldType.INTEGER: _from_integer,
    FieldType.TIME: _from_time,
    FieldType.NAMES: _from_collection,
    FieldType.SCALARS: _from_collection,
    FieldType.PAIRS: _from_collection,
    FieldType.TRUST: str.encode,
}

_FROM_BYTES: Final[Mapping[FieldType, Callable[[bytes], Any]]] = {
    FieldType.IDENTIFIER: bytes.decode,
    FieldType.TEXT: bytes.decode,
    FieldType.BYTES: bytes,
    FieldType.FLAG: _to_flag,
    FieldType.COUNT: _to_integer,
    FieldType.INTEGER: _to_integer,
    FieldType.TIME: _to_time,
    FieldType.NAMES: json.loads,
    FieldType.SCALARS: json.loads,
    FieldType.PAIRS: json.loads,
    FieldType.TRUST: bytes.decode,
}
