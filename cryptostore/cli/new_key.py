"""`cryptostore new-key`: a pickle key that cannot be guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryptostore.errors import ConfigurationError
from cryptostore.plugins.new_files import write_private
from cryptostore.store.pickle_keys import new_pickle_key
from cryptostore.store.system_keyring import add_to_keyring

from .output import say


def new_key(
    file: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write it to this new file, which only its owner may read.")
    ] = None,
    keyring: Annotated[
        str | None,
        typer.Option(metavar="SERVICE/NAME", help="Keep it as this new entry of the system's keyring."),
    ] = None,
) -> None:
    """Make a pickle key for new accounts, or for `cryptostore rekey`.

    Keep it where the database and its backups are not: without it, nothing that was stored can be read.
    """
    if file is not None and keyring is not None:
        raise ConfigurationError("give either --file or --keyring, not both")
    key = new_pickle_key()
    if file is not None:
        write_private(file, key, "a new pickle key")
        say(f"wrote a new pickle key to {file}; clients find it by CRYPTOSTORE_PICKLE_KEY_FILE={file}")
    elif keyring is not None:
        kept_by = add_to_keyring(keyring, key, "--keyring")
        say(f"{kept_by} keeps a new pickle key; clients find it by CRYPTOSTORE_PICKLE_KEY_KEYRING={keyring}")
    else:
        typer.echo(key)
