"""The one boundary where RocksDB's errors become ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cryptostore import BackendUnavailable, ConfigurationError, CryptoStoreError, StorageFull

#: What RocksDB says, the error that it becomes, and what the user reads. The first that fits is taken.
_MEANINGS: Final[list[tuple[str, type[CryptoStoreError], str]]] = [
    (
        "While lock file|lock hold by current process",
        BackendUnavailable,
        "{path} is open in another process, and RocksDB lets one process at a time use a database: stop the other "
        "process, give this one a database of its own, or choose a backend that several processes may share",
    ),
    ("No space left|quota exceeded|File too large", StorageFull, "no room for {path}: the disk or a limit is full"),
    ("Permission denied|Read-only|not permitted", ConfigurationError, "this user must be able to write to {path}"),
    ("^Corruption", ConfigurationError, "{path} is damaged; stop every program that uses it, and restore a backup"),
    # These would fail again however often they were sent.
    ("^Invalid argument|^Not impl", CryptoStoreError, "RocksDB refused what it was asked to do in {path} ({code})"),
    ("", BackendUnavailable, "{path} could not be read or written; look at the file LOG in it and the system's log"),
]


@contextmanager
def mapped_errors(path: Path) -> Iterator[None]:
    """Raise this project's errors for RocksDB's."""
    try:
        yield
    # rocksdict has one class for whatever RocksDB reports; only the text tells one from another.
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise _translate(str(error), path) from error


def _translate(said: str, path: Path) -> CryptoStoreError:
    error, told = next((error, told) for pattern, error, told in _MEANINGS if re.search(pattern, said))
    return error(told.format(path=path, code=said.partition(":")[0]))
