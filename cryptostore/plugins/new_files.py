"""New files with secrets, which only their owner may read."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from cryptostore.errors import ConfigurationError, StorageFull

from .folders import flush_folder

_PRIVATE: Final = 0o600
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_private(file: Path, text: str, what: str) -> None:
    """Write one line to a new file, durably: there whole, or not at all. Raises as `new_private_file` does."""
    with new_private_file(file, what) as opened:
        opened.write(f"{text}\n".encode())


@contextmanager
def new_private_file(file: Path, what: str) -> Iterator[IO[bytes]]:
    """A new file to write, there whole and durable when the block ends, and not at all before.

    Until then it has another name, under which a killed process leaves it. Never over a file: it may hold the only copy
    of another secret. Raises ConfigurationError if it cannot be made, and StorageFull if it has no room; `what` says
    what it holds.
    """
    unfinished = file.parent / f"{file.name}.unfinished"
    try:
        # A link that leads nowhere has the name, too.
        if os.path.lexists(file):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        unfinished.unlink(missing_ok=True)
        with os.fdopen(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE), "wb") as opened:
            try:
                yield opened
                opened.flush()
                os.fsync(opened.fileno())
                if not _is_ours(opened.fileno(), unfinished):
                    raise FileExistsError(errno.EEXIST, "another process writes it at the same time")
                _give_name(unfinished, file)
            except BaseException:
                if _is_ours(opened.fileno(), unfinished):
                    unfinished.unlink()
                raise
        flush_folder(file.parent)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StorageFull(
                f"cannot write {what} to {file}: {error.strerror}; make room, or name a file on another disk"
            ) from error
        raise ConfigurationError(f"cannot write {what} to {file}: {error.strerror}; name a new file") from error


def _is_ours(written: int, unfinished: Path) -> bool:
    """Whether no other process that writes the same file has taken the name meanwhile."""
    return unfinished.exists() and os.path.samestat(os.fstat(written), unfinished.stat())


def _give_name(unfinished: Path, file: Path) -> None:
    """Rename the file. Raises FileExistsError for a name that is taken, where the file system knows second names."""
    try:
        # Unlike a new name, a second one is never put over a file that came meanwhile.
        os.link(unfinished, file)
    except FileExistsError:
        raise
    except OSError:
        # Some file systems know no second names.
        unfinished.rename(file)
    else:
        unfinished.unlink()
