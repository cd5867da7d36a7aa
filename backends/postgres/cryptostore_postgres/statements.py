"""The statements for records, derived from what each kind declares. Every one begins with the account."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from psycopg.sql import SQL, Composed, Identifier

from cryptostore.fields import Field
from cryptostore.records import KINDS, Key, Record, fields_of, key_fields_of

from .columns import COLUMNS

_AND: Final = SQL(" AND ")
_COMMA: Final = SQL(", ")

#: Characters and bytes that one statement puts, about.
_PORTION: Final = 64 * 1024 * 1024


class Statements:
    """The text of every statement, with the schema's name in each, worked out once for each backend.

    Parameters are binary arrays, one for each column, however many records there are.
    """

    def __init__(self, schema: str) -> None:
        self._schema = schema
        self.upsert: Final[Mapping[type[Record], bytes]] = {kind: self._upsert(kind) for kind in KINDS}
        self.delete: Final[Mapping[type[Record], bytes]] = {kind: self._delete(kind) for kind in KINDS}
        self.get: Final[Mapping[type[Record], bytes]] = {kind: self._get(kind) for kind in KINDS}
        #: By kind and how many key fields the prefix has.
        self.first_page: Final[Mapping[tuple[type[Record], int], bytes]] = {
            (kind, length): self._page(kind, length, after=False)
            for kind in KINDS
            for length in range(len(kind.key_fields) + 1)
        }
        self.next_page: Final[Mapping[tuple[type[Record], int], bytes]] = {
            (kind, length): self._page(kind, length, after=True) for kind, length in self.first_page if kind.key_fields
        }

    def table(self, name: str) -> Identifier:
        """A table's qualified name: no statement depends on a search path."""
        return Identifier(self._schema, name)

    def select(self, kind: type[Record], lengths: Sequence[int]) -> bytes:
        """Rows under prefixes of the given lengths, each with its prefix's position.

        Takes, for each length, the positions, an array for each key field, and the account.
        """
        order = _COMMA.join([Identifier("position"), *_names(key_fields_of(kind))])
        branches = SQL(" UNION ALL ").join([self._under_prefixes(kind, length) for length in lengths])
        return SQL("{} ORDER BY {}").format(branches, order).as_bytes()

    def _upsert(self, kind: type[Record]) -> bytes:
        fields = fields_of(kind)
        others = [Identifier(field.name) for field in fields if field.name not in kind.key_fields]
        return (
            SQL(
                "INSERT INTO {table} (account_id, {columns}) "
                "SELECT %b::bigint, {values} FROM unnest({arrays}) AS new ({columns}) "
                "ON CONFLICT ({key}) {resolution}"
            )
            .format(
                table=self.table(kind.kind_name),
                columns=_COMMA.join(_names(fields)),
                values=_COMMA.join(SQL(COLUMNS[field.type].value).format(Identifier(field.name)) for field in fields),
                arrays=_arrays(fields),
                key=_COMMA.join([Identifier("account_id"), *_names(key_fields_of(kind))]),
                resolution=_replace(others) if others else SQL("DO NOTHING"),
            )
            .as_bytes()
        )

    def _delete(self, kind: type[Record]) -> bytes:
        keys = key_fields_of(kind)
        statement = SQL("DELETE FROM {table} AS stored {wanted} WHERE stored.account_id = %b::bigint{matches}")
        return statement.format(
            table=self.table(kind.kind_name),
            wanted=SQL("USING {}").format(_wanted(keys)) if keys else SQL(""),
            matches=_matches(keys),
        ).as_bytes()

    def _get(self, kind: type[Record]) -> bytes:
        keys = key_fields_of(kind)
        statement = SQL("SELECT {columns} FROM {wanted}{table} AS stored WHERE stored.account_id = %b::bigint{matches}")
        return statement.format(
            columns=_stored(fields_of(kind)),
            wanted=SQL("{} CROSS JOIN ").format(_wanted(keys)) if keys else SQL(""),
            table=self.table(kind.kind_name),
            matches=_matches(keys),
        ).as_bytes()

    def _under_prefixes(self, kind: type[Record], length: int) -> Composed:
        prefix = key_fields_of(kind)[:length]
        columns = _COMMA.join([Identifier("position"), *_names(prefix)])
        arrays = _COMMA.join([SQL("%b::integer[]"), *([_arrays(prefix)] if prefix else [])])
        return SQL(
            "SELECT wanted.position, {stored} FROM unnest({arrays}) AS wanted ({columns}) CROSS JOIN {table} AS stored "
            "WHERE stored.account_id = %b::bigint{matches}"
        ).format(
            stored=_stored(fields_of(kind)),
            arrays=arrays,
            columns=columns,
            table=self.table(kind.kind_name),
            matches=_matches(prefix),
        )

    def _page(self, kind: type[Record], length: int, *, after: bool) -> bytes:
        keys = key_fields_of(kind)
        conditions: list[SQL | Composed] = [SQL("stored.account_id = %b::bigint")]
        conditions += [SQL("{} = {}").format(_of("stored", field), _parameter(field)) for field in keys[:length]]
        if after:
            parameters = _COMMA.join(map(_parameter, keys))
            conditions.append(SQL("({}) > ({})").format(_stored(keys), parameters))
        return (
            SQL("SELECT {columns} FROM {table} AS stored WHERE {conditions}{order} LIMIT %b::bigint")
            .format(
                columns=_stored(fields_of(kind)),
                table=self.table(kind.kind_name),
                conditions=_AND.join(conditions),
                order=SQL(" ORDER BY {}").format(_stored(keys)) if keys else SQL(""),
            )
            .as_bytes()
        )


def portions(kind: type[Record], records: Iterable[Record]) -> Iterator[list[list[Any]]]:
    """The records as arrays, one for each field, for as many statements as are needed.

    A server ends the session over a message of 1 GiB: not a refusal, and the batch would be sent again for ever.
    """
    columns = [(field.name, COLUMNS[field.type].write) for field in fields_of(kind)]
    rows: list[list[Any]] = []
    size = 0
    for record in records:
        if size > _PORTION:
            yield _transposed(rows)
            rows, size = [], 0
        row = [write(getattr(record, name)) for name, write in columns]
        rows.append(row)
        size += sum([len(value) for value in row if isinstance(value, (str, bytes))])
    if rows:
        yield _transposed(rows)


def key_arrays(keys: Iterable[Key]) -> list[list[Any]]:
    """One array for each key field."""
    return _transposed(keys)


def _transposed(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _names(fields: Iterable[Field]) -> list[Identifier]:
    return [Identifier(field.name) for field in fields]


def _of(table: str, field: Field) -> Identifier:
    return Identifier(table, field.name)


def _stored(fields: Iterable[Field]) -> Composed:
    return _COMMA.join(_of("stored", field) for field in fields)


def _parameter(field: Field) -> SQL:
    return SQL(f"%b::{COLUMNS[field.type].array.removesuffix('[]')}")


def _arrays(fields: Iterable[Field]) -> Composed:
    return _COMMA.join(SQL(f"%b::{COLUMNS[field.type].array}") for field in fields)


def _wanted(keys: Sequence[Field]) -> Composed:
    return SQL("unnest({}) AS wanted ({})").format(_arrays(keys), _COMMA.join(_names(keys)))


def _matches(keys: Sequence[Field]) -> Composed:
    return SQL("").join(SQL(" AND {} = {}").format(_of("stored", field), _of("wanted", field)) for field in keys)


def _replace(columns: Sequence[Identifier]) -> Composed:
    assignments = [SQL("{} = excluded.{}").format(column, column) for column in columns]
    return SQL("DO UPDATE SET {}").format(_COMMA.join(assignments))
