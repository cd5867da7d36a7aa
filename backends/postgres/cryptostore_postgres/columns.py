"""How each type of field is kept in a column: its parameter arrays, and the way there and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import Format

from cryptostore.fields import FieldType, to_json

#: What PostgreSQL counts the microseconds of a timestamptz from.
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)


class Column(NamedTuple):
    """One type of field: the type of a parameter array, what the column's value is made from, and the two ways."""

    array: str
    value: str
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


def time_of(microseconds: Any) -> datetime:
    """The time that `_Microseconds` stands for. Raises ValueError for infinity and for years beyond 9999."""
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        raise ValueError("is beyond the years that can be expressed") from None


def _as_it_is(value: Any) -> Any:
    return value


_TEXT: Final = Column("text[]", "{}", _as_it_is, _as_it_is)
_INTEGER: Final = Column("bigint[]", "{}", _as_it_is, _as_it_is)
_JSON: Final = Column("text[]", "{}::jsonb", to_json, _as_it_is)

COLUMNS: Final[Mapping[FieldType, Column]] = {
    FieldType.IDENTIFIER: _TEXT,
    FieldType.TEXT: _TEXT,
    FieldType.BYTES: Column("bytea[]", "{}", _as_it_is, _as_it_is),
    FieldType.FLAG: Column("boolean[]", "{}", _as_it_is, _as_it_is),
    FieldType.COUNT: _INTEGER,
    FieldType.INTEGER: _INTEGER,
    FieldType.TIME: Column("timestamptz[]", "{}", _as_it_is, time_of),
    FieldType.NAMES: _JSON,
    FieldType.SCALARS: _JSON,
    FieldType.PAIRS: _JSON,
    FieldType.TRUST: Column("text[]", "{}", str, _as_it_is),
}


class _Microseconds(Loader):
    """A timestamptz as the server counts it: one unreadable time must not fail the rows beside it, and no setting of
    the session (TimeZone, DateStyle) has a say."""

    format = Format.BINARY

    def load(self, data: Buffer) -> int:
        return int.from_bytes(bytes(data), "big", signed=True)


def adapters() -> AdaptersMap:
    """psycopg's adapters with ours among them."""
    ours = AdaptersMap(psycopg.adapters)
    ours.register_loader("timestamptz", _Microseconds)
    return ours
