"""Mutants of the model that say what they should keep to themselves."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import pytest

from cryptostore import Batch, Changes, ConfigurationError, InvalidRecord, Record, fields_of
from cryptostore.memory import MemoryStore, Table
from cryptostore.records import check_key
from cryptostore.urls import options_of

from .registry import mutant
from .values import put_spoilt


def values_of(record: Record) -> list[Any]:
    """All that a record holds, its secrets included."""
    return [getattr(record, name) for name, _ in fields_of(type(record))]


def contents_of(changes: Changes) -> list[list[Any]]:
    """All that a batch puts."""
    return [values_of(record) for kind in changes.kinds() for record in changes.puts(kind)]


@mutant("SECRETS-1")
def secret_in_a_log_line(patch: pytest.MonkeyPatch) -> None:
    """A debug line shows what is put."""

    def logged(_table: Table, record: Record) -> Record:
        logging.getLogger("cryptostore").debug("put %s", values_of(record))
        return record

    put_spoilt(patch, logged)


@mutant("SECRETS-1")
def secret_in_a_log_of_its_own(patch: pytest.MonkeyPatch) -> None:
    """The same in a log that goes nowhere else, and only from a level on that nobody has set."""
    log = logging.getLogger("cryptostore.audit")
    patch.setattr(log, "level", logging.CRITICAL)
    patch.setattr(log, "propagate", False)

    def logged(_table: Table, record: Record) -> Record:
        log.info("put %s", values_of(record))
        return record

    put_spoilt(patch, logged)


@mutant("SECRETS-1")
def secret_on_the_terminal(patch: pytest.MonkeyPatch) -> None:
    """A line that was written to look for a bug, and stayed."""

    def shown(_table: Table, record: Record) -> Record:
        sys.stdout.write(f"{values_of(record)}\n")
        return record

    put_spoilt(patch, shown)


@mutant("SECRETS-1")
def secret_in_a_warning(patch: pytest.MonkeyPatch) -> None:
    """A warning shows what is put, in a category that nobody sees who does not ask for it."""

    def warned(_table: Table, record: Record) -> Record:
        warnings.warn(f"{values_of(record)} was never closed", ResourceWarning, stacklevel=2)
        return record

    put_spoilt(patch, warned)


@mutant("SECRETS-1")
def secret_in_an_exception(patch: pytest.MonkeyPatch) -> None:
    """An error says which values could not be committed."""
    original = MemoryStore.commit

    def commit(store: MemoryStore, batch: Batch, timeout: float) -> None:
        try:
            original(store, batch, timeout)
        except Exception as error:
            error.add_note(f"while it put {contents_of(batch.changes)}")
            raise

    patch.setattr(MemoryStore, "commit", commit)


@mutant("SECRETS-1")
def secret_in_the_cause_of_an_exception(patch: pytest.MonkeyPatch) -> None:
    """An error is sound, and its cause, a driver's, quotes the value that was refused."""

    def check(kind: type[Record], key: Any) -> Any:
        try:
            return check_key(kind, key)
        except InvalidRecord as error:
            raise error from LookupError(f"no row is named {key}")

    patch.setattr("cryptostore.memory.check_key", check)


@mutant("SECRETS-1")
def secret_in_the_repr_of_a_record(patch: pytest.MonkeyPatch) -> None:
    """A dataclass shows all of its fields."""
    patch.setattr(Record, "__repr__", lambda record: f"{type(record).__name__}{values_of(record)}")


@mutant("SECRETS-1")
def secret_in_the_repr_of_a_store(patch: pytest.MonkeyPatch) -> None:
    """A store shows what it has."""

    def shown(store: MemoryStore) -> str:
        tables = store._row.tables.values()
        return f"MemoryStore({[values_of(record) for table in tables for record in table.records.values()]})"

    patch.setattr(MemoryStore, "__repr__", shown)


@mutant("SECRETS-1")
def password_in_the_error_of_a_url(patch: pytest.MonkeyPatch) -> None:
    """Whoever mistypes a URL is shown it, password and all."""

    def read(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return options_of(url, options)
        except ConfigurationError as error:
            raise ConfigurationError(f"{url} cannot be used: {error}") from error

    patch.setattr("cryptostore.memory.options_of", read)
