"""The version of the format, in a file beside RocksDB's own: opening a database, RocksDB rewrites some of its files."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Final

from cryptostore import ConfigurationError, Schema, SchemaError, SchemaTooNew

FILE: Final = "cryptostore.json"
CURRENT: Final = Schema(version=1, min_compatible=1)


def prepare(folder: Path) -> None:
    """Make a database in `folder` if that is missing or empty, and refuse one that is not ours to use.

    Raises SchemaTooNew, SchemaError for a damaged file, ConfigurationError for a folder that is not ours to use.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if not (folder / FILE).exists():
            _refuse_foreign(folder)
            _write(folder)
        _refuse_too_new(folder, read(folder))
    except OSError as error:
        raise ConfigurationError(
            f"cannot use the folder {folder} ({error.strerror}); choose one that this user may write to, in a folder "
            "that exists"
        ) from error


def _refuse_foreign(folder: Path) -> None:
    foreign = [entry for entry in folder.iterdir() if not entry.name.startswith(FILE)]
    # Looked at again, because another process may have made the database since.
    if foreign and not (folder / FILE).exists():
        raise ConfigurationError(f"{folder} holds other files; give a folder of its own in the database URL")


def _write(folder: Path) -> None:
    """Whole or not at all, and before the first key."""
    unfinished = folder / f"{FILE}.{os.getpid()}.{threading.get_ident()}"
    with unfinished.open("w", encoding="utf-8") as file:
        json.dump(asdict(CURRENT), file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(folder / FILE)
    _flush_folder(folder)
    _flush_folder(folder.parent)


def _flush_folder(folder: Path) -> None:
    # Without this, a power failure could take a file's name and leave its content.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(folder: Path) -> Schema:
    """The schema of the database in `folder`. Raises SchemaError."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return Schema(int(found["version"]), int(found["min_compatible"]))
    except (ValueError, TypeError, LookupError) as error:
        raise SchemaError(f"{folder / FILE} is damaged; restore it from a backup") from error


def _refuse_too_new(folder: Path, found: Schema) -> None:
    if found.min_compatible > CURRENT.version:
        raise SchemaTooNew(
            f"{folder} has schema {found.version}, which needs a program that knows schema {found.min_compatible} or "
            f"newer; this one knows {CURRENT.version}: upgrade cryptostore-rocksdb-example. Nothing was changed"
        )
