"""What stands where nio expects the path of a folder: the URL of a database."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from cryptostore.errors import ConfigurationError
from cryptostore.logs import logger
from cryptostore.plugins.urls import scheme_of

_REMEDY: Final = (
    "give store_path the URL of a database, such as sqlite:///keys.db or postgresql://host/database; "
    "`cryptostore import-nio` brings the keys of a nio store over"
)

_log: Final = logger(__name__)


def check_store_path(store_path: Any) -> None:
    """Raise ConfigurationError for what is no URL. Warn of a folder that a program made, as many do for nio."""
    if not store_path:
        raise ConfigurationError(f"store_path is empty, and nio would send plaintext into encrypted rooms: {_REMEDY}")
    try:
        scheme = scheme_of(store_path)
    except ConfigurationError:
        scheme = ""
    # A single letter is a Windows drive.
    if len(scheme) < 2:
        raise ConfigurationError(f"store_path is the path of a folder, not the URL of a database: {_REMEDY}")
    _warn_of_folder(Path(f"{store_path.partition(':')[0]}:"))


def _warn_of_folder(made: Path) -> None:
    if made.is_dir():
        _log.warning(
            "there is a folder '%s': a program took the URL of the database for the path of a folder and made it, so "
            "the URL's password, if it has one, is a name in there. Remove the folder, change the password, and keep "
            "it out of store_path: libpq finds it in PGPASSWORD or in a password file",
            made.absolute(),
        )
