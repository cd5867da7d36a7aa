"""Where a pickle key, or another secret, is kept: in a variable, a file, a keyring, or with a program."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from cryptostore.errors import ConfigurationError

from .private_files import read_private, warn_if_shared
from .secret_commands import output_of
from .system_keyring import secret_in_keyring

_WHAT: Final = "the pickle key"
#: What may stand behind the name of a secret's variable, for a variable that says where the secret is.
PLACES: Final = ("_FILE", "_COMMAND", "_KEYRING")


def pickle_key_from(variables: Mapping[str, str]) -> str | None:
    """The pickle key in `CRYPTOSTORE_PICKLE_KEY`, or where one of its variants says that it is: see `secret_from`."""
    return secret_from(variables, "CRYPTOSTORE_PICKLE_KEY", _WHAT)


def read_pickle_key(file: str | os.PathLike[str]) -> str:
    """The pickle key in a file of one line, without the newline that editors put at its end. Warns of other readers.

    Raises ConfigurationError, whose text holds nothing of the file, if it cannot be read or is not such a file.
    """
    return read_secret(file, _WHAT)


def secret_from(variables: Mapping[str, str], variable: str, what: str) -> str | None:
    """The secret in this variable, or where the variable with `_FILE`, `_COMMAND` or `_KEYRING` behind its name says.

    Raises ConfigurationError if several are set, and for a file as `read_pickle_key` does, for a command as
    `secret_from_command`, and for an entry of the keyring as `secret_in_keyring`.
    """
    given = [name for name in (variable, *(variable + place for place in PLACES)) if variables.get(name)]
    if len(given) > 1:
        raise ConfigurationError(f"set either {given[0]} or {given[1]}, not both")
    if not given or given == [variable]:
        return variables.get(variable)
    value = variables[given[0]]
    match given[0].removeprefix(variable):
        case "_FILE":
            return read_secret(value, what)
        case "_COMMAND":
            return secret_from_command(value, given[0], what)
        case _:
            return secret_in_keyring(value, given[0], what)


def read_secret(file: str | os.PathLike[str], what: str) -> str:
    """A secret in a file of one line: see `read_pickle_key`."""
    text = read_private(file, what)
    warn_if_shared(file, what)
    return _one_line(text, f"{os.fspath(file)} must hold {what}")


def secret_from_command(command: str, source: str, what: str) -> str:
    """The secret that a program writes to its standard output, in one line; the program is started without a shell.

    `source` is where the command was given. Raises ConfigurationError as `output_of` does, and for other output.
    """
    try:
        text = output_of(command, source).decode()
    except UnicodeDecodeError:
        # Its text would quote the output.
        raise ConfigurationError(f"the command in {source} does not write UTF-8 text") from None
    return _one_line(text, f"the command in {source} must write {what}")


def _one_line(text: str, demand: str) -> str:
    line = text.rstrip("\n")
    if not line or "\n" in line:
        raise ConfigurationError(f"{demand} in one line, and nothing else")
    return line
