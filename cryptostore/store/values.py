"""A record's fields as bytes: the format number of its kind, then the fields beside the key, in MessagePack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, TypeVar, cast

import msgspec

from cryptostore.errors import InvalidRecord
from cryptostore.records.fields import DeviceTrust, Field, FieldType, Scalar, values_getter
from cryptostore.records.record import Key, Record, fields_of

R = TypeVar("R", bound=Record)

_TYPES: Final[Mapping[FieldType, Any]] = {
    FieldType.IDENTIFIER: str,
    FieldType.PUBLIC_KEY: str,
    FieldType.TEXT: str,
    FieldType.BYTES: bytes,
    FieldType.FLAG: bool,
    FieldType.COUNT: int,
    FieldType.TIME: datetime,
    FieldType.NAMES: tuple[str, ...],
    FieldType.SCALARS: dict[str, Scalar],
    FieldType.PAIRS: frozenset[tuple[str, str]],
    FieldType.TRUST: DeviceTrust,
}


class NewerFormat(ValueError):
    """The value was written by a newer program; dropping the fields that it added would lose them."""


def encode_value(record: Record) -> bytes:
    """The record's fields beside its key."""
    return _codec(type(record)).encode(record)


def decode_value(kind: type[R], key: Key, encoded: bytes) -> R:
    """The record with this key and these fields. Raises NewerFormat, and ValueError for what is not a value."""
    return cast(R, _codec(kind).decode(key, encoded))


class _Codec:
    """How the values of one kind are written and read."""

    def __init__(self, kind: type[Record]) -> None:
        self._kind = kind
        beside_key = [field for field in fields_of(kind) if field.name not in kind.key_fields]
        self._format = bytes([kind.format_number])
        self._values = values_getter([field.name for field in beside_key])
        # In every process the same bytes: sets have an order of their own in each.
        self._encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder(order="deterministic", enc_hook=_as_dict).encode
        first = len(beside_key) - len(kind.added_fields)
        #: What reads each format. Fields that were added later have their defaults in the older ones.
        self._decoders = {
            bytes([number]): _decoder(beside_key[: first + number - 1])
            for number in range(1, len(kind.added_fields) + 2)
        }
        self._names = [*kind.key_fields, *[field.name for field in beside_key]]

    def encode(self, record: Record) -> bytes:
        return self._format + self._encode(self._values(record))

    def decode(self, key: Key, encoded: bytes) -> Record:
        if encoded[:1] > self._format:
            raise NewerFormat(f"has format {encoded[0]}, and this program knows {self._kind.format_number}")
        decode = self._decoders.get(encoded[:1])
        if decode is None:
            raise ValueError("has no format that this program ever wrote")
        # Their texts, and the object that a UnicodeDecodeError carries, may hold a secret: they are no context, either.
        with suppress(msgspec.DecodeError, UnicodeDecodeError, InvalidRecord, OverflowError):
            # Fewer values than names in an older format.
            return self._kind(**dict(zip(self._names, (*key, *decode(encoded[1:])), strict=False)))
        raise ValueError("does not hold the fields of its kind")


def _decoder(fields: Sequence[Field]) -> Callable[[bytes], tuple[Any, ...]]:
    types = tuple(_TYPES[field.type] for field in fields)
    return msgspec.msgpack.Decoder(tuple[types]).decode  # type: ignore[valid-type]  # made at run time


def _as_dict(mapping: Any) -> dict[str, Scalar]:
    return dict(mapping)


_codecs: Final[dict[type[Record], _Codec]] = {}


def _codec(kind: type[Record]) -> _Codec:
    if kind not in _codecs:
        _codecs[kind] = _Codec(kind)
    return _codecs[kind]
