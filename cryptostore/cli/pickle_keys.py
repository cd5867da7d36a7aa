"""Where a command takes a pickle key from: a variable, a file or a prompt. Every process sees arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from cryptostore.errors import ConfigurationError
from cryptostore.plugins.environment import ENV_FILE, variables
from cryptostore.store.pickle_key_sources import pickle_key_from, read_pickle_key
from cryptostore.store.pickle_keys import PUBLIC_PICKLE_KEYS

from .output import say

#: Where clients find theirs.
VARIABLE: Final = "CRYPTOSTORE_PICKLE_KEY"
#: What nio encrypts pickles with unless it is told otherwise.
_DEFAULT: Final = "DEFAULT_KEY"

KeyVariable = Annotated[
    str | None, typer.Option(metavar="NAME", help=f"Take the pickle key from this variable instead of {VARIABLE}.")
]
KeyFile = Annotated[Path | None, typer.Option(metavar="PATH", help="Take the pickle key from this file of one line.")]
AskForKey = Annotated[bool, typer.Option("--ask-pickle-key", help="Ask for the pickle key.")]


def current_pickle_key(variable: str | None, file: Path | None, *, ask: bool) -> str:
    """The pickle key that keys were saved with; nio's default, with a warning, if the user names none."""
    given = given_pickle_key(variable, file, ask=ask)
    if given is None:
        say(
            "warning: no pickle key was given, so nio's default is tried; everybody knows it. To give yours: "
            f"{VARIABLE}, --pickle-key-file or --ask-pickle-key"
        )
    return _DEFAULT if given is None else given


def given_pickle_key(variable: str | None, file: Path | None, *, ask: bool) -> str | None:
    """The pickle key that the user names, or that clients find; None where there is none."""
    given = _given(variable, file, ask=ask)
    return pickle_key_from(variables()) if given is None else given


def new_pickle_key(variable: str | None, file: Path | None, *, ask: bool) -> str:
    """The pickle key that keys are to have. Raises ConfigurationError if none is given, and for one everybody knows."""
    given = _given(variable, file, ask=ask, prefix="new-")
    if given is None:
        raise ConfigurationError(
            "there is no new pickle key: give --new-pickle-key-file, --new-pickle-key-env or --ask-new-pickle-key"
        )
    if given in PUBLIC_PICKLE_KEYS:
        raise ConfigurationError("the new pickle key is empty or nio's default, which everybody knows; choose another")
    return given


def _given(variable: str | None, file: Path | None, *, ask: bool, prefix: str = "") -> str | None:
    option = f"{prefix}pickle-key"
    if sum((variable is not None, file is not None, ask)) > 1:
        raise ConfigurationError(f"give one of --{option}-env, --{option}-file and --ask-{option}")
    if ask:
        words = option.replace("-", " ").capitalize()
        return str(typer.prompt(words, hide_input=True, err=True, confirmation_prompt=bool(prefix)))
    if file is not None:
        return read_pickle_key(file)
    return None if variable is None else _from_environment(variable)


def _from_environment(variable: str) -> str:
    key = variables().get(variable)
    if key is None:
        raise ConfigurationError(f"the environment has no variable {variable}, nor has {ENV_FILE}")
    try:
        key.encode()
    except UnicodeEncodeError:
        # Its text would quote the key.
        raise ConfigurationError(f"the pickle key in the variable {variable} is not UTF-8 text") from None
    return key
