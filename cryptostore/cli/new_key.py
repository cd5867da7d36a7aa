"""`cryptostore new-key`: a pickle key that cannot be guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryptostore.plugins.new_files import write_private
from cryptostore.store.pickle_keys import new_pickle_key

from .output import say


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
        write_private(file, key, "a new pickle key")
        say(f"wrote a new pickle key to {file}; clients find it by CRYPTOSTORE_PICKLE_KEY_FILE={file}")
