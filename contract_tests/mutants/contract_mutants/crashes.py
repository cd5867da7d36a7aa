"""Mutants of the in-memory model kept in files, `broken:///FOLDER`: bugs that only a killed process shows.

The suite's child processes open these, too, so they are a backend with a URL, which tests alone install. Without a bug
it keeps what cases of killed processes ask for; it is no backend for anything else.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from cryptostore import (
    FULL,
    INTERFACE_VERSION,
    KINDS,
    AccountRow,
    BackendPlugin,
    Batch,
    Capability,
    TakeOver,
    hookimpl,
)
from cryptostore.store.memory import MemoryDatabase, MemoryHandle, MemoryRecords

from .registry import mutant

SCHEME: Final = "broken"

#: The bug's name, for the child processes as well.
_VARIABLE: Final = "CRYPTOSTORE_CONTRACT_BUG"

#: The part of what is stored that holds the accounts' rows. The others hold the rows of a kind, each by account.
_ACCOUNTS: Final = "accounts"

#: What a key begins with: the number of its kind, or one of the ring's two.
_KIND_NUMBERS: Final = (0, *(kind.kind_number for kind in KINDS), 255)

Parts = Mapping[str, Any]
Save = Callable[["Files", Parts], None]

_SAVES: Final[dict[str, Save]] = {}


def _in_files(*killed_by: str) -> Callable[[Save], Save]:
    """Make a way of saving one of the mutants, of the files in this process and in those that it starts."""

    def add(save: Save) -> Save:
        _SAVES[save.__name__] = save

        def break_files(patch: pytest.MonkeyPatch) -> None:
            patch.setenv(_VARIABLE, save.__name__)

        break_files.__name__, break_files.__doc__ = save.__name__, save.__doc__
        mutant(*killed_by, backend=SCHEME)(break_files)
        return save

    return add


class Files(MemoryDatabase):
    """The model, read from a folder when it is opened, and written to it with every change."""

    def __init__(self, folder: Path, save: Save) -> None:
        super().__init__()
        #: What is still to be written when the database is closed.
        self.late: Parts | None = None
        self._folder: Final = folder
        self._save: Final = save
        folder.mkdir(exist_ok=True)
        parts = self._read()
        self.accounts = parts.pop(_ACCOUNTS, {})
        self.records = {row.id: MemoryRecords() for row in self.accounts.values()}
        for by_account in parts.values():
            for account_id, rows in by_account.items():
                for row in rows:
                    self.records.setdefault(account_id, MemoryRecords()).put(row)

    def save(self) -> None:
        """Store everything again."""
        parts: dict[str, Any] = {_ACCOUNTS: self.accounts} | {f"kind {number}": {} for number in _KIND_NUMBERS}
        for account_id, records in self.records.items():
            for row in records.rows(records.order):
                parts[f"kind {row.key[0]}"].setdefault(account_id, []).append(row)
        self._save(self, parts)

    def replace(self, name: str, parts: Parts) -> None:
        """Put a file in the place of another, in one step."""
        new = self.path(name + ".new")
        new.write_bytes(pickle.dumps(parts))
        new.replace(self.path(name))

    def path(self, name: str) -> Path:
        """Where a file is."""
        return self._folder / name

    def _read(self) -> dict[str, Any]:
        parts: dict[str, Any] = {}
        for path in self._folder.iterdir():
            # A file that was cut off is as good as none.
            with suppress(EOFError, pickle.UnpicklingError):
                parts |= pickle.loads(path.read_bytes()) if path.suffix != ".new" else {}  # noqa: S301  # a test's own file
        return parts


class FilesHandle(MemoryHandle):
    """The model's handle, which saves after every change."""

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._files = files

    def take_over(self, user_id: str, device_id: str, claim: TakeOver, timeout: float) -> AccountRow:
        owned = super().take_over(user_id, device_id, claim, timeout)
        self._files.save()
        return owned

    def commit(self, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        row = super().commit(account_id, batch, timeout)
        self._files.save()
        return row

    def delete(self, account_id: int, timeout: float) -> None:
        super().delete(account_id, timeout)
        self._files.save()

    def close(self) -> None:
        if self._files.late is not None:
            self._files.replace("all", self._files.late)


def soundly(files: Files, parts: Parts) -> None:
    """Everything in one step."""
    files.replace("all", parts)


@_in_files("CRASHES-2")
def account_row_after_the_records(files: Files, parts: Parts) -> None:
    """The account's row is written apart from the records, behind them."""
    files.replace("records", {name: part for name, part in parts.items() if name != _ACCOUNTS})
    files.replace(_ACCOUNTS, {_ACCOUNTS: parts[_ACCOUNTS]})


@_in_files("CRASHES-2")
def account_row_before_the_records(files: Files, parts: Parts) -> None:
    """The account's row is written apart from the records, in front of them."""
    files.replace(_ACCOUNTS, {_ACCOUNTS: parts[_ACCOUNTS]})
    files.replace("records", {name: part for name, part in parts.items() if name != _ACCOUNTS})


@_in_files("CRASHES-2")
def kinds_one_by_one(files: Files, parts: Parts) -> None:
    """Each kind of record is written in a step of its own."""
    for name, part in parts.items():
        files.replace(name, {name: part})


@_in_files("CRASHES-2")
def written_in_place(files: Files, parts: Parts) -> None:
    """The old state is overwritten before the new one is there."""
    files.path("all").write_bytes(pickle.dumps(parts))


@_in_files("CRASHES-1")
def acknowledged_before_written(files: Files, parts: Parts) -> None:
    """A commit returns before it is written, which is done when the database is closed."""
    files.late = parts


def open_broken(url: str, options: Mapping[str, Any], timeout: float) -> FilesHandle:  # noqa: ARG001  # as all plugins'
    """Open `broken:///FOLDER`."""
    save = _SAVES.get(os.environ.get(_VARIABLE, ""), soundly)
    return FilesHandle(Files(Path(urlsplit(url).path[1:]), save))


@hookimpl
def cryptostore_backends() -> Iterable[BackendPlugin]:
    """The files, sound or not."""
    return [BackendPlugin(SCHEME, INTERFACE_VERSION, open_broken, {Capability.SURVIVES_PROCESS_KILL: FULL})]
