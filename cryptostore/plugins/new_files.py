"""New files with secrets, which only their owner may read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from cryptostore.errors import ConfigurationError

from .folders import flush_folder

_PRIVATE: Final = 0o600


def write_private(file: Path, text: str, what: str) -> None:
    """Write one line to a new file, durably. Raises ConfigurationError if it cannot be made; `what` says what it holds.

    Never over a file: it may hold the only copy of another secret.
    """
    try:
        with os.fdopen(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE), "w") as opened:
            opened.write(f"{text}\n")
            opened.flush()
            os.fsync(opened.fileno())
        flush_folder(file.parent)
    except OSError as error:
        raise ConfigurationError(f"cannot write {what} to {file}: {error.strerror}; name a new file") from error
