"""Mutants that store something else than what was put."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from cryptostore import FieldType, Key, Record, fields_of
from cryptostore.memory import MemoryStore, Table

from .registry import mutant


def put_spoilt(patch: pytest.MonkeyPatch, spoilt: Callable[[Table, Record], Record]) -> None:
    """Let the model store something else than the record that was put."""
    original = Table.put
    patch.setattr(Table, "put", lambda table, record: original(table, spoilt(table, record)))


def with_fields(record: Record, field_type: FieldType, spoilt: Callable[[Any], Any]) -> Record:
    """The record with every field of a type changed, beside those of its key."""
    names = [name for name, declared in fields_of(type(record)) if declared is field_type]
    return replace(record, **{name: spoilt(getattr(record, name)) for name in names if name not in record.key_fields})


def _key(patch: pytest.MonkeyPatch, spoilt: Callable[[str], str]) -> None:
    """Let the model take some keys for others."""

    class SpoiltKeys(dict[Key, Record]):
        def __setitem__(self, key: Key, record: Record) -> None:
            super().__setitem__(like(key), record)

        def __getitem__(self, key: Key) -> Record:
            return super().__getitem__(like(key))

        def __contains__(self, key: object) -> bool:
            return super().__contains__(like(key))

        def pop(self, key: Key, *default: Any) -> Any:
            return super().pop(like(key), *default)

    def like(key: Any) -> Key:
        return tuple(spoilt(value) if isinstance(value, str) else value for value in key)

    original = Table.__init__

    def init(table: Table) -> None:
        original(table)
        table.records = SpoiltKeys()

    patch.setattr(Table, "__init__", init)


@mutant("RECORDS-1", "SCHEMA-1", "PERFORMANCE-1")
def acknowledged_and_not_stored(patch: pytest.MonkeyPatch) -> None:
    """An error is swallowed, and the batch with it."""
    patch.setattr(MemoryStore, "_put_and_delete", lambda _store, _changes: None)


@mutant("READING-1")
def case_of_ids_folded(patch: pytest.MonkeyPatch) -> None:
    """A collation takes "!A" for "!a"."""
    _key(patch, str.casefold)


@mutant("READING-1", "SCANNING-2")
def blanks_of_ids_trimmed(patch: pytest.MonkeyPatch) -> None:
    """A column of fixed width takes "!a " for "!a"."""
    _key(patch, lambda text: text.rstrip(" ") or text)


@mutant("RECORDS-4")
def overlong_ids_truncated(patch: pytest.MonkeyPatch) -> None:
    """A column of 250 bytes."""
    _key(patch, lambda text: text.encode()[:250].decode(errors="ignore"))


@mutant("RECORDS-7")
def chain_order_lost(patch: pytest.MonkeyPatch) -> None:
    """Names come back sorted."""
    put_spoilt(patch, lambda _table, record: with_fields(record, FieldType.NAMES, sorted))


@mutant("RECORDS-6")
def pickles_truncated(patch: pytest.MonkeyPatch) -> None:
    """A column of 64 KiB."""
    put_spoilt(patch, lambda _table, record: with_fields(record, FieldType.BYTES, lambda value: value[:65_535]))


@mutant("RECORDS-2", "RECORDS-3")
def text_encoding_lossy(patch: pytest.MonkeyPatch) -> None:
    """What Latin-1 lacks comes back as a question mark."""

    def lossy(value: str) -> str:
        return value.encode("latin-1", "replace").decode("latin-1")

    put_spoilt(patch, lambda _table, record: with_fields(record, FieldType.TEXT, lossy))


@mutant("RECORDS-2")
def microseconds_lost(patch: pytest.MonkeyPatch) -> None:
    """Times are kept in milliseconds."""
    put_spoilt(
        patch,
        lambda _table, record: with_fields(
            record, FieldType.TIME, lambda time: time.replace(microsecond=time.microsecond // 1_000 * 1_000)
        ),
    )


@mutant("RECORDS-2")
def truths_become_numbers(patch: pytest.MonkeyPatch) -> None:
    """True in a mapping comes back as 1, which Python takes for equal."""

    def number(value: Mapping[str, object]) -> Mapping[str, object]:
        return {name: int(item) if isinstance(item, bool) else item for name, item in value.items()}

    put_spoilt(patch, lambda _table, record: with_fields(record, FieldType.SCALARS, number))


@mutant("RECORDS-9")
def mappings_merged(patch: pytest.MonkeyPatch) -> None:
    """A put adds to a mapping instead of replacing it."""

    def merged(table: Table, record: Record) -> Record:
        old = table.records.get(record.key)
        if old is None:
            return record
        names = [name for name, declared in fields_of(type(record)) if declared is FieldType.SCALARS]
        return replace(record, **{name: {**getattr(old, name), **getattr(record, name)} for name in names})

    put_spoilt(patch, merged)


@mutant("RECORDS-10")
def deletion_takes_the_table(patch: pytest.MonkeyPatch) -> None:
    """A deletion forgets its condition."""
    patch.setattr(Table, "delete", lambda table, _key: Table.__init__(table))


@mutant("RECORDS-5", "READING-5")
def keys_not_checked(patch: pytest.MonkeyPatch) -> None:
    """Keys go to the database as they come."""
    patch.setattr("cryptostore.memory.check_key", lambda _kind, key: key)


@mutant("RECORDS-5", "READING-11", "SCANNING-7")
def prefixes_not_checked(patch: pytest.MonkeyPatch) -> None:
    """Prefixes go to the database as they come."""
    patch.setattr("cryptostore.memory.check_prefix", lambda _kind, prefix: prefix)


@mutant("RECORDS-11")
def values_not_checked(patch: pytest.MonkeyPatch) -> None:
    """A record takes a value of any type."""
    patch.setattr("cryptostore.records.check", lambda _field_type, value: value)


@mutant("PERFORMANCE-1")
def long_read_waits(patch: pytest.MonkeyPatch) -> None:
    """A look that finds fifty records waits for a time-out first."""
    original = Table.page

    def page(table: Table, *arguments: Any) -> list[Any]:
        records = original(table, *arguments)
        # One that waits at every look takes hours to be tried on every case.
        if len(records) == 50:
            time.sleep(5.1)
        return records

    patch.setattr(Table, "page", page)
