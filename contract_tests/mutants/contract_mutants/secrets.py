"""Mutants of the in-memory model that say what they should keep to themselves."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from cryptostore import AccountRow, Batch, ConfigurationError, Record, Row, fields_of
from cryptostore.plugins.urls import options_of
from cryptostore.store.memory import MemoryHandle

from .batches import refuse_what_is_no_value
from .passing import change_batches
from .registry import mutant


def _told(patch: pytest.MonkeyPatch, tell: Callable[[Row], None]) -> None:
    """Tell of each row that is put."""

    def heard(batch: Batch) -> Batch:
        for row in batch.puts:
            tell(row)
        return batch

    change_batches(patch, heard)


@mutant("SECRETS-1")
def value_in_a_log_line(patch: pytest.MonkeyPatch) -> None:
    """A debug line shows what is put."""
    _told(patch, lambda row: logging.getLogger("cryptostore").debug("put %s", row))


@mutant("SECRETS-1")
def key_in_a_log_line(patch: pytest.MonkeyPatch) -> None:
    """A debug line shows where something is put, in hexadecimal."""
    _told(patch, lambda row: logging.getLogger("cryptostore").debug("put %s", row.key.hex()))


@mutant("SECRETS-1")
def value_in_a_log_of_its_own(patch: pytest.MonkeyPatch) -> None:
    """The value goes to a log that goes nowhere else, and only at a level that is not set."""
    log = logging.getLogger("cryptostore.audit")
    patch.setattr(log, "level", logging.CRITICAL)
    patch.setattr(log, "propagate", False)
    _told(patch, lambda row: log.info("put %s", row.value.hex()))


@mutant("SECRETS-1")
def value_on_the_terminal(patch: pytest.MonkeyPatch) -> None:
    """A line that was written to look for a bug, and stayed."""
    _told(patch, lambda row: print(row))  # noqa: T201  # the bug


@mutant("SECRETS-1")
def value_in_a_warning(patch: pytest.MonkeyPatch) -> None:
    """A warning shows what is put, in a category that is hidden by default."""
    _told(patch, lambda row: warnings.warn(f"{row} was never closed", ResourceWarning, stacklevel=2))


@mutant("SECRETS-1")
def value_in_an_exception(patch: pytest.MonkeyPatch) -> None:
    """An error says which rows could not be committed."""
    refuse_what_is_no_value(patch)
    original = MemoryHandle.commit

    def commit(handle: MemoryHandle, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        try:
            return original(handle, account_id, batch, timeout)
        except Exception as error:
            error.add_note(f"while it put {batch.puts}")
            raise

    patch.setattr(MemoryHandle, "commit", commit)


@mutant("SECRETS-1")
def rows_in_the_repr_of_a_handle(patch: pytest.MonkeyPatch) -> None:
    """A handle shows what it has."""
    patch.setattr(MemoryHandle, "__repr__", lambda handle: f"MemoryHandle({handle.shared.records})")


@mutant("SECRETS-1")
def secret_in_the_repr_of_a_record(patch: pytest.MonkeyPatch) -> None:
    """A dataclass shows all of its fields."""

    def shown(record: Record) -> str:
        return f"{type(record).__name__}{[getattr(record, field.name) for field in fields_of(type(record))]}"

    patch.setattr(Record, "__repr__", shown)


@mutant("SECRETS-1")
def password_in_the_error_of_a_url(patch: pytest.MonkeyPatch) -> None:
    """The error for a mistyped URL shows all of it, password included."""

    def read(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return options_of(url, options)
        except ConfigurationError as error:
            raise ConfigurationError(f"{url} cannot be used: {error}") from error

    patch.setattr("cryptostore.plugins.loading.options_of", read)
