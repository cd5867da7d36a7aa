"""What SQLite does not notice: that a file of an open database was moved away, or that its process was forked.

It would go on writing into a deleted file, and lose all of that if the program is killed. And a forked process inherits
SQLite's notes on the locks of its parent, but not the locks: it would take none of its own, and what it commits would
be lost when the parent closes the database.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Final

from cryptostore import BackendUnavailable, ConfigurationError, StoreClosed

from . import files

_REMEDY: Final = "fork before the database is opened, or start processes with the method 'spawn'"


class OpenFile:
    """An open database file, those that SQLite keeps beside it, and the process that they belong to.

    Raises ConfigurationError where this process inherited the same file from the one that it was forked from.
    """

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self.file: Final = files.identity(path)
        self.process: Final = os.getpid()
        self._beside: dict[Path, tuple[int, int]] = {}
        for other in list(_open):
            if other.file == self.file and other.is_inherited():
                raise ConfigurationError(
                    f"{path} was open in process {other.process} when this process was forked; {_REMEDY}"
                )
        _open.add(self)

    def has_begun(self) -> None:
        """SQLite has its files beside the database now, and keeps them until it is closed."""
        paths = (files.beside(self.path, suffix) for suffix in ("-wal", "-shm"))
        self._beside = {path: found for path in paths if (found := files.identity(path))}

    def check(self) -> None:
        """Raise StoreClosed in a process that inherited the file, BackendUnavailable if a file is not in its place."""
        if self.is_inherited():
            raise StoreClosed(f"{self.path} was opened by process {self.process}, before a fork; {_REMEDY}")
        if files.identity(self.path) != self.file:
            raise BackendUnavailable(
                f"{self.path} was moved, deleted or replaced while it was open; put it back, or start again",
                outcome_unknown=False,
            )
        for path, opened in self._beside.items():
            if files.identity(path) != opened:
                raise BackendUnavailable(
                    f"{path} was moved, deleted or replaced while {self.path} was open; put it back, or let this "
                    "program close the database, which saves what is in it: if it is killed, that is lost",
                    outcome_unknown=False,
                )

    def is_inherited(self) -> bool:
        """Whether another process opened the file."""
        return self.process != os.getpid()

    def forget(self) -> None:
        """The file was closed."""
        _open.discard(self)


_open: Final[weakref.WeakSet[OpenFile]] = weakref.WeakSet()
