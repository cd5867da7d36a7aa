"""The SQL for each kind of record, derived from the fields that the kind declares.

Every statement names the account.
"""

# ruff: noqa: S608  # all that is put into these texts are the names of kinds and fields, which this project declares

from __future__ import annotations

import json
from collections.abc import Iterable

from cryptostore import FieldType, Key, Record, fields_of, key_fields_of


def put(kind: type[Record]) -> str:
    """Insert a row, or replace every field of the row with its key. Parameters: the account, the fields in order."""
    names = [field.name for field in fields_of(kind)]
    replaced = ", ".join(f'"{name}" = excluded."{name}"' for name in names if name not in kind.key_fields)
    return f"""
        INSERT INTO {kind.kind_name} (account_id, {_columns(names)}) VALUES (?{", ?" * len(names)})
        ON CONFLICT ({_key(kind)}) DO {f"UPDATE SET {replaced}" if replaced else "NOTHING"}
    """


def delete(kind: type[Record]) -> str:
    """Delete one row. Parameters: the account, the key."""
    conditions = "".join(f' AND "{name}" = ?' for name in kind.key_fields)
    return f"DELETE FROM {kind.kind_name} WHERE account_id = ?{conditions}"


def select(kind: type[Record], length: int) -> str:
    """Every row that begins with one of many prefixes of `length` key fields, in key order.

    Parameters: the prefixes `as_json`, the account. The prefixes are one text because SQLite limits how many parameters
    a statement has. CROSS JOIN forbids SQLite to walk the table and look for each row among the prefixes.
    """
    matches = "".join(
        f""" AND "{name}" = json_extract(prefix.value, '$[{position}]')"""
        for position, name in enumerate(kind.key_fields[:length])
    )
    return f"""
        SELECT {_fields(kind)} FROM json_each(?) AS prefix CROSS JOIN {kind.kind_name} AS record
        ON account_id = ?{matches} ORDER BY {_key(kind)}
    """


def page(kind: type[Record], length: int, *, first: bool) -> str:
    """Some of the rows that begin with a prefix of `length` key fields, in key order.

    Parameters: the account, the prefix, the key after which the page begins (only the fields that the prefix does not
    have, and none for the first page), the number of rows.
    """
    fixed = "".join(f' AND "{name}" = ?' for name in kind.key_fields[:length])
    rest = key_fields_of(kind)[length:]
    # A damaged text comes from the database as bytes, and must go back in as a text for the next page to begin there.
    marks = ", ".join("?" if field.type is FieldType.COUNT else "CAST(? AS TEXT)" for field in rest)
    after = "" if first or not rest else f" AND ({_columns([field.name for field in rest])}) > ({marks})"
    return f"""
        SELECT {_fields(kind)} FROM {kind.kind_name} AS record
        WHERE account_id = ?{fixed}{after} ORDER BY {_key(kind)} LIMIT ?
    """


def as_json(keys: Iterable[Key]) -> str:
    """Keys or prefixes as the parameter of `select`."""
    return json.dumps(list(keys), ensure_ascii=False)


def _columns(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _fields(kind: type[Record]) -> str:
    # Qualified, because the table-valued function json_each has columns named key and value.
    return ", ".join(f'record."{field.name}"' for field in fields_of(kind))


def _key(kind: type[Record]) -> str:
    return _columns(["account_id", *kind.key_fields])
