"""The database's files: private from the first byte, and still the ones that were opened.

No function here opens a database file that exists. POSIX drops all of a process's locks on a file when the process
closes any descriptor of it, and the locks of SQLite in this process would be gone without a word.
"""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Final

from cryptostore import ConfigurationError
from cryptostore.logs import logger
from cryptostore.plugins.folders import flush_folder

_PRIVATE: Final = 0o600

#: What a -wal begins with; one that is no longer holds no data.
LOG_HEADER_BYTES: Final = 32

#: Held while a descriptor of a new file is open, so that no other thread's SQLite has locks on it yet.
_creating: Final = threading.Lock()

_log: Final = logger(__name__)


def resolved(path: Path) -> Path:
    """Where the file is that SQLite opens: it follows links, and keeps its -wal beside the file, not beside the link.

    Raises ConfigurationError for a link to nothing.
    """
    real = Path(os.path.realpath(path))
    if _is_link(path) and status_of(real) is None:
        raise ConfigurationError(
            f"{path} is a link to {real}, which is not there; is a disk not mounted? Mount it, or correct the link"
        )
    return real


def beside(path: Path, suffix: str) -> Path:
    """The file that SQLite keeps beside the database: -wal, -shm or -journal."""
    return path.with_name(f"{path.name}{suffix}")


def ensure_private_file(path: Path) -> None:
    """Create an empty file that only its owner may read, unless the file exists. SQLite gives -wal and -shm its mode.

    Raises ConfigurationError for a place where no file can be.
    """
    try:
        with _creating:
            _create(path)
    except FileExistsError:
        _look_at(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigurationError(
            f"the folder {path.parent} does not exist; create it, or correct the path in the database URL"
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"cannot create the database {path} ({error.strerror}); choose a folder that this user may write to, on a "
            "file system that is not read-only"
        ) from error


def status_of(path: Path) -> os.stat_result | None:
    """What the system tells of a file, or None for one that is missing or in a folder that this user may not enter."""
    try:
        return path.stat()
    except OSError:
        return None


def identity(path: Path) -> tuple[int, int] | None:
    """Which file is at `path` now, or None. A deleted file that is still open takes writes, which are lost."""
    status = status_of(path)
    return (status.st_dev, status.st_ino) if status else None


def require(path: Path) -> None:
    """Raise ConfigurationError if there is no file, or an empty one, or if this user may not look."""
    try:
        is_there = path.stat().st_size > 0
    except FileNotFoundError:
        is_there = False
    except OSError as error:
        raise _not_looked_at(path, error) from error
    if not is_there:
        raise ConfigurationError(
            f"there is no database {path}, and with create=never, as in commands that only look at one, none is made; "
            "is a disk not mounted? Correct the path in the database URL, or open it once with create=auto"
        )


def has_write_ahead_log(path: Path) -> bool:
    """Whether there is a -wal file: somebody has the database open, or was killed."""
    return status_of(beside(path, "-wal")) is not None


def holds_data(log_bytes: int) -> bool:
    """Whether a -wal of this size has more than its header."""
    return log_bytes > LOG_HEADER_BYTES


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except OSError:
        return False


def _create(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE))
    flush_folder(path.parent)


def is_shared(mode: int) -> bool:
    """Whether a file of this mode is open to other users of this machine."""
    return bool(mode & ~_PRIVATE & 0o777)


def _look_at(path: Path) -> None:
    try:
        status = path.stat()
    except OSError as error:
        raise _not_looked_at(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"{path} is not a file; give a file's path in the database URL")
    if not is_shared(status.st_mode):
        return
    if status.st_size == 0:
        path.chmod(_PRIVATE)
    else:
        # Left as it is: somebody may have shared it on purpose, as Kubernetes does with fsGroup.
        _log.warning("the database %s is open to other users of this machine; chmod 600 makes it private", path)


def _not_looked_at(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"cannot look at the database {path} ({error.strerror}); correct the path in the database URL, or the "
        "permissions"
    )
