"""Folders that hold a database's files."""

from __future__ import annotations

import os
from pathlib import Path


def flush_folder(folder: Path) -> None:
    """Make the names of a folder's new files durable. Raises OSError.

    Flushing a file keeps its content. Without this, a power failure could still take its name.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
