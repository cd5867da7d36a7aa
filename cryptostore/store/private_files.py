"""Files with secrets: their text, and a warning where others may read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from cryptostore.errors import ConfigurationError
from cryptostore.logs import logger

_log: Final = logger(__name__)


def read_private(file: str | os.PathLike[str], what: str) -> str:
    """The text of a file, without the byte order mark that some editors put before it.

    Raises ConfigurationError, whose text holds nothing of the file, if it cannot be read; `what` says what it holds.
    """
    try:
        # A pipe, as of a shell's <(…), can be read once, so nothing looks into the file before.
        with Path(file).open(encoding="utf-8-sig") as opened:
            return opened.read()
    except OSError as error:
        raise ConfigurationError(f"{what} cannot be read from {os.fspath(file)}: {error.strerror}") from error
    except UnicodeDecodeError:
        # Its text would quote the file.
        raise ConfigurationError(f"{os.fspath(file)}, which holds {what}, is not UTF-8 text") from None


def warn_if_shared(file: str | os.PathLike[str], what: str) -> None:
    """Log a warning if users of this machine may read or replace the file who need not.

    A warning and no error: containers get their secrets in files whose mode their user cannot change.
    """
    mode = open_to_others(file)
    if mode is not None:
        _log.warning(
            "%s in %s is open to other users of this machine (mode %s); chmod 600 makes it private, and in a container "
            "the secret's own mode, such as defaultMode: 0400",
            what,
            os.fspath(file),
            f"{mode:04o}",
        )


def is_others_to_write(file: str | os.PathLike[str]) -> bool:
    """Whether somebody else than this user and root may change the file, its group left aside."""
    status = Path(file).stat()
    return status.st_uid not in (0, os.geteuid()) or bool(status.st_mode & stat.S_IWOTH)


def open_to_others(file: str | os.PathLike[str]) -> int | None:
    """The mode of a file that users of this machine may read or replace who need not; None for any other."""
    try:
        status = Path(file).stat()
    except OSError:
        return None
    mode = stat.S_IMODE(status.st_mode)
    return mode if stat.S_ISREG(status.st_mode) and mode & _of_others(status) else None


def _of_others(status: os.stat_result) -> int:
    """The bits that let others in. The group's do not where this process itself is let in by its group."""
    anybody = stat.S_IROTH | stat.S_IWOTH
    is_ours = status.st_uid == os.geteuid()
    return anybody | stat.S_IRGRP | stat.S_IWGRP if is_ours else anybody
