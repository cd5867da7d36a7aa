"""What stands where nio expects the path of a folder: the URL of a database, or a folder that is nio's no more."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from cryptostore.errors import ConfigurationError
from cryptostore.logs import logger
from cryptostore.plugins.loading import shown_url
from cryptostore.plugins.urls import scheme_of
from cryptostore.records import Account

from .importing.findings import Findings
from .importing.source import open_source

_REMEDY: Final = (
    "give store_path the URL of a database, such as sqlite:///keys.db or postgresql://host/database; or leave it the "
    "folder that it is, and give AsyncClientConfig(store=NioStore.at('postgresql://host/database')). "
    "`cryptostore import-nio` brings the keys of a nio store over"
)

_log: Final = logger(__name__)


def check_store_path(store_path: Any) -> None:
    """Raise ConfigurationError for what is no URL. Warn of what programs make public that take it for a folder."""
    if not store_path:
        raise ConfigurationError(f"store_path is empty, and nio would send plaintext into encrypted rooms: {_REMEDY}")
    if not is_url(store_path):
        raise ConfigurationError(f"store_path is the path of a folder, not the URL of a database: {_REMEDY}")
    _warn_of_password(store_path)
    _warn_of_folder(Path(f"{store_path.partition(':')[0]}:"))


def is_url(text: Any) -> bool:
    """Whether this has the form of a URL."""
    try:
        # A single letter is a Windows drive.
        return len(scheme_of(text)) > 1
    except ConfigurationError:
        return False


def visible_path(store_path: Any) -> Any:
    """What a program gave as the path of its folder, fit to be shown."""
    return shown_url(store_path) if is_url(store_path) else store_path


def check_folder(folder: str, database_name: str, account: Account) -> None:
    """Raise ConfigurationError where nio's own store in this folder has the account, which the database has not."""
    file = Path(folder) / (database_name or f"{account.user_id}_{account.device_id}.db")
    if file.is_file() and _has_account(file, account):
        raise ConfigurationError(
            f"the keys of {account} are in nio's own store {file} and not in the database, where the device would get "
            "a new identity: bring them over with `cryptostore import-nio`, or move the file away if they are not "
            "wanted any more"
        )


def _has_account(file: Path, account: Account) -> bool:
    # What is no store of nio's holds no keys of nio's.
    with suppress(ConfigurationError), open_source(file) as source:
        return any(row.account == account for row in source.accounts(Findings()))
    return False


def _warn_of_password(url: str) -> None:
    if "***" in shown_url(url):
        _log.warning(
            "store_path holds a password, or an option that may be one, and programs make folders of it, show it and "
            "log it: give AsyncClientConfig(store=NioStore.at(url)), and store_path a folder"
        )


def _warn_of_folder(made: Path) -> None:
    if made.is_dir():
        _log.warning(
            "there is a folder '%s': a program took the URL of the database for the path of a folder and made it, so "
            "the URL's password, if it has one, is a name in there. Remove the folder, change the password, and give "
            "AsyncClientConfig(store=NioStore.at(url)), so that store_path can be a folder",
            made.absolute(),
        )
