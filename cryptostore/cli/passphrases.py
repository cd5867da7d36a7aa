"""Where a command takes the passphrase of a file from: a variable, a file or a prompt. Every process sees arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryptostore.errors import ConfigurationError
from cryptostore.plugins.environment import ENV_FILE, variables
from cryptostore.store.pickle_key_sources import read_secret

from .output import ask_secret

PassphraseVariable = Annotated[
    str | None, typer.Option(metavar="NAME", help="Take the file's passphrase from this variable.")
]
PassphraseFile = Annotated[
    Path | None, typer.Option(metavar="PATH", help="Take the file's passphrase from this file of one line.")
]
AskForPassphrase = Annotated[bool, typer.Option("--ask-passphrase", help="Ask for the file's passphrase.")]


def given_passphrase(variable: str | None, file: Path | None, *, ask: bool, twice: bool = False) -> str:
    """The passphrase that the user names. Raises ConfigurationError for none, an empty one, or several."""
    if sum((variable is not None, file is not None, ask)) != 1:
        raise ConfigurationError("give one of --passphrase-env, --passphrase-file and --ask-passphrase")
    passphrase = _read(variable, file, twice=twice)
    if not passphrase:
        raise ConfigurationError("the passphrase is empty; give one that cannot be guessed")
    try:
        passphrase.encode()
    except UnicodeEncodeError:
        # Its text would quote the passphrase.
        raise ConfigurationError("the passphrase is not UTF-8 text") from None
    return passphrase


def _read(variable: str | None, file: Path | None, *, twice: bool) -> str:
    if file is not None:
        return read_secret(file, "the passphrase")
    if variable is None:
        return ask_secret("passphrase of the file", "--passphrase-file or --passphrase-env", twice=twice)
    found = variables().get(variable)
    if found is None:
        raise ConfigurationError(f"the environment has no variable {variable}, nor has {ENV_FILE}")
    return found
