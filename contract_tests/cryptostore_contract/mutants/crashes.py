"""Mutants of the in-memory model kept in files, `broken:///FOLDER`: bugs that only a killed process shows.

The suite's child processes open these, too, so they are a backend with a URL, which tests alone install. Without a bug
it keeps what cases of killed processes ask for; it is no backend for anything else.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from cryptostore import FULL, INTERFACE_VERSION, KINDS, Account, BackendPlugin, Batch, Capability, Mode
from cryptostore.hookspecs import hookimpl
from cryptostore.memory import AccountRow, Database, MemoryBackend, MemoryStore
from cryptostore.urls import CommonOptions, options_of

from .registry import mutant

SCHEME: Final = "broken"

#: The bug's name, for the child processes as well.
_VARIABLE: Final = "CRYPTOSTORE_CONTRACT_BUG"

#: What is stored, in parts: the accounts' ownerships, and the records of each kind by account.
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


class Files(Database):
    """The model, read from a folder when it is opened, and written to it with every change."""

    def __init__(self, folder: Path, save: Save) -> None:
        super().__init__()
        self.late: Final[list[threading.Thread]] = []
        self._folder: Final = folder
        self._save: Final = save
        folder.mkdir(exist_ok=True)
        parts = self._read()
        for account, ownership in parts.get("ownerships", {}).items():
            row = self.rows[account] = AccountRow(ownership)
            for kind in KINDS:
                for record in parts.get(kind.kind_name, {}).get(account, ()):
                    row.table(kind).put(record)

    def save(self) -> None:
        """Store everything anew."""
        rows = self.rows.items()
        parts: dict[str, Any] = {"ownerships": {account: row.ownership for account, row in rows}}
        for kind in KINDS:
            parts[kind.kind_name] = {account: list(row.table(kind).records.values()) for account, row in rows}
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


class FilesStore(MemoryStore):
    """The model's store, which saves after every commit."""

    def commit(self, batch: Batch, timeout: float) -> None:
        super().commit(batch, timeout)
        assert isinstance(self._database, Files)
        self._database.save()


class FilesBackend(MemoryBackend):
    """The model's backend on a folder."""

    def __init__(self, files: Files, common: CommonOptions) -> None:
        super().__init__(files, common)
        self._files = files

    def open_store(self, account: Account, mode: Mode = Mode.OWN) -> FilesStore:
        self._is_open.check()
        if mode is Mode.READ:
            row = self._files.find(account)
        else:
            row = self._files.take_over(account, self._common.owner)
            self._files.save()
        return FilesStore(self._files, row, account, mode, self._common.deadline, self._is_open)

    def close(self) -> None:
        super().close()
        for thread in self._files.late:
            thread.join()


def soundly(files: Files, parts: Parts) -> None:
    """Everything in one step."""
    files.replace("all", parts)


@_in_files("CRASHES-2")
def account_row_after_the_records(files: Files, parts: Parts) -> None:
    """The account's row is written apart from the records, behind them."""
    files.replace("records", {name: part for name, part in parts.items() if name != "ownerships"})
    files.replace("ownerships", {"ownerships": parts["ownerships"]})


@_in_files("CRASHES-2")
def account_row_before_the_records(files: Files, parts: Parts) -> None:
    """The account's row is written apart from the records, in front of them."""
    files.replace("ownerships", {"ownerships": parts["ownerships"]})
    files.replace("records", {name: part for name, part in parts.items() if name != "ownerships"})


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
    """A commit returns while a thread is still at it."""

    def later() -> None:
        time.sleep(0.05)
        files.replace("all", parts)

    files.late.append(threading.Thread(target=later))
    files.late[-1].start()


def open_broken(url: str, /, **options: Any) -> FilesBackend:
    """Open `broken:///FOLDER`."""
    common = CommonOptions.take_from(options_of(url, options))
    save = _SAVES.get(os.environ.get(_VARIABLE, ""), soundly)
    return FilesBackend(Files(Path(urlsplit(url).path[1:]), save), common)


@hookimpl
def cryptostore_backends() -> Iterable[BackendPlugin]:
    """The files, sound or not."""
    return [BackendPlugin(SCHEME, INTERFACE_VERSION, open_broken, {Capability.SURVIVES_PROCESS_KILL: FULL})]
