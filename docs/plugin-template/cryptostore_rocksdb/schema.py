"""The version of the format, in the name of an empty file: a name is there whole or not at all.

It stands beside RocksDB's own files, because RocksDB rewrites some of them when it opens a database.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptostore import ConfigurationError, Schema
from cryptostore.plugins.folders import flush_folder

CURRENT: Final = Schema(version=1, min_compatible=1)

_PREFIX: Final = "cryptostore-schema-"


def file_of(schema: Schema) -> str:
    """The name of the file that stands for this schema. A migration renames it."""
    return f"{_PREFIX}{schema.version}-{schema.min_compatible}"


def prepare(folder: Path) -> None:
    """Make a database in `folder` if that is missing or empty. Raises SchemaTooNew, ConfigurationError."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        # Of all files this is made first, so a folder that another process has just filled has it.
        if not any(folder.iterdir()):
            (folder / file_of(CURRENT)).touch()
            flush_folder(folder)
            flush_folder(folder.parent)
        read(folder).refuse_if_newer(CURRENT.version, str(folder), "cryptostore-rocksdb-example")
    except OSError as error:
        raise ConfigurationError(
            f"cannot use the folder {folder} ({error.strerror}); choose one that this user may write to, in a folder "
            "that exists"
        ) from error


def require(folder: Path) -> None:
    """Raise ConfigurationError where there is no database in `folder`."""
    if not any(folder.glob(f"{_PREFIX}*")):
        raise ConfigurationError(
            f"there is no database in {folder}, and with create=never none is made; is a disk not mounted? Correct the "
            "path in the database URL, or open it once with create=auto"
        )


def read(folder: Path) -> Schema:
    """The schema of the database in `folder`. Raises ConfigurationError where there is none."""
    try:
        [(version, min_compatible)] = [path.name.split("-")[2:] for path in folder.glob(f"{_PREFIX}*")]
        return Schema(int(version), int(min_compatible))
    except ValueError:
        raise ConfigurationError(
            f"{folder} holds other files; give a folder of its own in the database URL, or restore this one"
        ) from None
