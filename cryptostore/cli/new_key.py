"""`cryptostore new-key`: a pickle key that cannot be guessed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cryptostore.errors import ConfigurationError
from cryptostore.plugins.folders import flush_folder
from cryptostore.store.pickle_keys import new_pickle_key

from .output import say

_PRIVATE = 0o600


def new_key(
    file: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write it to this new file, which only its owner may read.")
    ] = None,
) -> None:
    """Make a pickle key for new accounts, or for `cryptostore rekey`.

    Keep it where the database and its backups are not: without it, nothing that was stored can be read.
    """
    key = new_pickle_key()
    if file is None:
        typer.echo(key)
    else:
        _write(file, key)
        say(f"wrote a new pickle key to {file}; clients find it by CRYPTOSTORE_PICKLE_KEY_FILE={file}")


def _write(file: Path, key: str) -> None:
    try:
        # Never over a file: it may hold the only copy of another key.
        with os.fdopen(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE), "w") as opened:
            opened.write(f"{key}\n")
            opened.flush()
            os.fsync(opened.fileno())
        flush_folder(file.parent)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write a new pickle key to {file}: {error.strerror}; name a new file"
        ) from error
