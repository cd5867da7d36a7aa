"""Where a pickle key is kept: in a variable of the environment, or in a file of one line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cryptostore.errors import ConfigurationError


def pickle_key_from(variables: Mapping[str, str]) -> str | None:
    """The pickle key in `CRYPTOSTORE_PICKLE_KEY`, or in the file that `CRYPTOSTORE_PICKLE_KEY_FILE` names.

    Raises ConfigurationError if both are set, and what `read_pickle_key` raises.
    """
    key, file = variables.get("CRYPTOSTORE_PICKLE_KEY"), variables.get("CRYPTOSTORE_PICKLE_KEY_FILE")
    if key and file:
        raise ConfigurationError("set either CRYPTOSTORE_PICKLE_KEY or CRYPTOSTORE_PICKLE_KEY_FILE, not both")
    return read_pickle_key(file) if file else key


def read_pickle_key(file: str | os.PathLike[str]) -> str:
    """The pickle key in a file of one line, without the newline that editors put at its end.

    Raises ConfigurationError, whose text holds nothing of the file, if it cannot be read or is not such a file.
    """
    try:
        key = Path(file).read_text(encoding="utf-8").rstrip("\n")
    except OSError as error:
        raise ConfigurationError(f"the pickle key cannot be read from {file}: {error.strerror}") from error
    except UnicodeDecodeError:
        # Its text would quote the file.
        raise ConfigurationError(f"the pickle key in {file} is not UTF-8 text") from None
    if not key or "\n" in key:
        raise ConfigurationError(f"{file} must hold the pickle key in one line, and nothing else")
    return key
