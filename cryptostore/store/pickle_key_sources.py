"""Where a pickle key is kept: in a variable of the environment, or in a file of one line."""

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
    key, file = variables.get("CRYPTOSTORE_PICKLE_KEY"), variables.get("CRYPTOSTORE_PICKLE_KEY_FILE")
    if key and file:
        raise ConfigurationError("set either CRYPTOSTORE_PICKLE_KEY or CRYPTOSTORE_PICKLE_KEY_FILE, not both")
    return read_pickle_key(file) if file else key


def read_pickle_key(file: str | os.PathLike[str]) -> str:
    """The pickle key in a file of one line, without the newline that editors put at its end. Warns of other readers.

    Raises ConfigurationError, whose text holds nothing of the file, if it cannot be read or is not such a file.
    """
    key = read_private(file, _WHAT).rstrip("\n")
    warn_if_shared(file, _WHAT)
    if not key or "\n" in key:
        raise ConfigurationError(f"{file} must hold the pickle key in one line, and nothing else")
    return key
