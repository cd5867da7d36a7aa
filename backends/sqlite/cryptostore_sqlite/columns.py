"""One field of a record as one column of a STRICT table, there and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from cryptostore import FieldType, Record, fields_of
from cryptostore.fields import to_json

R = TypeVar("R", bound=Record)

#: A row as it comes from a connection whose texts are bytes.
Row = tuple[Any, ...]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def to_time_column(time: datetime) -> int:
    """Microseconds since 1970, an exact integer."""
    return (time - _EPOCH) // _MICROSECOND


def from_time_column(value: int) -> datetime:
    """Raises ValueError for what is no time."""
    try:
        return _EPOCH + timedelta(microseconds=value)
    except OverflowError:
        raise ValueError("is out of the range of times") from None


def _from_flag(value: int) -> bool:
    if value not in (0, 1):
        raise ValueError("must be 0 or 1")
    return value == 1


def _unchanged(value: Any) -> Any:
    return value


_TO_COLUMN: Final[Mapping[FieldType, Callable[[Any], Any]]] = {
    FieldType.IDENTIFIER: _unchanged,
    FieldType.TEXT: _unchanged,
    FieldType.BYTES: _unchanged,
    FieldType.FLAG: int,
    FieldType.COUNT: _unchanged,
    FieldType.INTEGER: _unchanged,
    FieldType.TIME: to_time_column,
    FieldType.NAMES: to_json,
    FieldType.SCALARS: to_json,
    FieldType.PAIRS: to_json,
    FieldType.TRUST: str,
}

_FROM_COLUMN: Final[Mapping[FieldType, Callable[[Any], Any]]] = {
    FieldType.IDENTIFIER: bytes.decode,
    FieldType.TEXT: bytes.decode,
    FieldType.BYTES: _unchanged,
    FieldType.FLAG: _from_flag,
    FieldType.COUNT: _unchanged,
    FieldType.INTEGER: _unchanged,
    FieldType.TIME: from_time_column,
    FieldType.NAMES: json.loads,
    FieldType.SCALARS: json.loads,
    FieldType.PAIRS: json.loads,
    FieldType.TRUST: bytes.decode,
}


def row_encoder(kind: type[Record]) -> Callable[[int, Record], Row]:
    """How an account's record of this kind becomes the row that `statements.put` takes."""
    columns = [(field.name, _TO_COLUMN[field.type]) for field in fields_of(kind)]

    def encode(account_id: int, record: Record) -> Row:
        return (account_id, *[to_column(getattr(record, name)) for name, to_column in columns])

    return encode


def row_decoder(kind: type[R]) -> Callable[[Row], R]:
    """How a row becomes a record. The decoder raises ValueError, TypeError or InvalidRecord for a damaged row."""
    columns = [_FROM_COLUMN[field.type] for field in fields_of(kind)]

    def decode(row: Row) -> R:
        return kind(*[from_column(value) for from_column, value in zip(columns, row, strict=True)])

    return decode


def key_columns(kind: type[Record], row: Row) -> Row:
    """The columns of a row that are its key, as they came."""
    names = [field.name for field in fields_of(kind)]
    return tuple([row[names.index(name)] for name in kind.key_fields])
