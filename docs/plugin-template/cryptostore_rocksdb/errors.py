"""The one boundary where RocksDB's errors become ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cryptostore import BackendUnavailable, ConfigurationError, CryptoStoreError, StorageFull

#: A full disk, a quota and a limit on file sizes, in the system's words.
_NO_ROOM: Final = ("No space left on device", "Disk quota exceeded", "File too large")
_LOCKED: Final = ("While lock file", "lock hold by current process")
_NO_ACCESS: Final = ("Permission denied", "Read-only file system", "Operation not permitted")
#: What would fail again however often it were sent.
_REFUSED: Final = ("Invalid argument", "Not implemented")


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


def _translate(text: str, path: Path) -> CryptoStoreError:
    if _says(text, _LOCKED):
        return BackendUnavailable(
            f"{path} is open in another process, and RocksDB lets one process at a time use a database: stop the other "
            "process, give this one a database of its own, or choose a backend that several processes may share"
        )
    if _says(text, _NO_ROOM):
        return StorageFull(f"there is no room for {path}: the disk is full, or over a quota or a size limit")
    if _says(text, _NO_ACCESS):
        return ConfigurationError(f"{path} cannot be written; this user must own it, on a disk that takes writes")
    if text.startswith("Corruption"):
        return ConfigurationError(f"{path} is damaged; stop every program that uses it, and restore a backup")
    if text.startswith(_REFUSED):
        return CryptoStoreError(f"RocksDB refused what it was asked to do in {path} ({text.partition(':')[0]})")
    return BackendUnavailable(f"{path} could not be read or written; look at the file LOG in it and the system's log")


def _says(text: str, phrases: tuple[str, ...]) -> bool:
    return any(phrase in text for phrase in phrases)
