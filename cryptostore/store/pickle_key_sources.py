"""Where a pickle key, or another secret, is kept: in a variable of the environment, or in a file of one line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from cryptostore.errors import ConfigurationError

from .private_files import read_private, warn_if_shared

_WHAT: Final = "the pickle key"


def pickle_key_from(variables: Mapping[str, str]) -> str | None:
    """The pickle key in `CRYPTOSTORE_PICKLE_KEY`, or in the file that `CRYPTOSTORE_PICKLE_KEY_FILE` names.

    Raises ConfigurationError if both are set, and what `read_pickle_key` raises.
    """
    return secret_from(variables, "CRYPTOSTORE_PICKLE_KEY", _WHAT)


def read_pickle_key(file: str | os.PathLike[str]) -> str:
    """The pickle key in a file of one line, without the newline that editors put at its end. Warns of other readers.

    Raises ConfigurationError, whose text holds nothing of the file, if it cannot be read or is not such a file.
    """
    return read_secret(file, _WHAT)


def secret_from(variables: Mapping[str, str], variable: str, what: str) -> str | None:
    """The secret in this variable, or in the file that the variable with `_FILE` behind its name names.

    Raises ConfigurationError if both are set, and for a file as `read_pickle_key` does.
    """
    secret, file = variables.get(variable), variables.get(f"{variable}_FILE")
    if secret and file:
        raise ConfigurationError(f"set either {variable} or {variable}_FILE, not both")
    return read_secret(file, what) if file else secret


def read_secret(file: str | os.PathLike[str], what: str) -> str:
    """A secret in a file of one line: see `read_pickle_key`."""
    line = read_private(file, what).rstrip("\n")
    warn_if_shared(file, what)
    if not line or "\n" in line:
        raise ConfigurationError(f"{file} must hold {what} in one line, and nothing else")
    return line
