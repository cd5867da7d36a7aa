"""Where the demo keeps its keys, and how it leaves nothing behind."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from cryptostore.cli.databases import refuse_process_local
from cryptostore.cli.output import print_error
from cryptostore.errors import AccountNotFound, ConfigurationError, CryptoStoreError
from cryptostore.plugins import load_backend, open_backend
from cryptostore.plugins.capabilities import Capability, Support
from cryptostore.plugins.urls import scheme_of
from cryptostore.records import Account


@contextlib.contextmanager
def database(url: str | None) -> Iterator[str]:
    """The URL of the database to use; without one, of a new SQLite file that is gone at the end."""
    if url is not None:
        refuse_process_local(url)
        yield url
        return
    load_backend("sqlite")
    with tempfile.TemporaryDirectory(prefix="cryptostore-demo-") as folder:
        yield f"sqlite:///{quote(str(Path(folder) / 'demo.db'))}"


def serves_one_process(url: str) -> bool:
    """Whether the backend says that only one process at a time can have the database open."""
    claim = load_backend(scheme_of(url)).claim(Capability.SEVERAL_PROCESSES)
    return claim.support in (Support.UNSUPPORTED, Support.NOT_IMPLEMENTED)


def url_for(url: str, device_id: str) -> str:
    """Where a party keeps its keys: in the one database, or in one beside it if processes cannot share a database."""
    if not serves_one_process(url):
        return url
    place, mark, options = url.partition("?")
    return f"{place}-{device_id.lower()}{mark}{options}"


@contextlib.contextmanager
def temporary_accounts(url: str, accounts: list[Account]) -> Iterator[None]:
    """See that the accounts are not there before, and delete them afterwards. Raises ConfigurationError."""
    for account in accounts:
        with open_backend(url_for(url, account.device_id)) as backend:
            if account in backend.accounts():
                raise ConfigurationError(f"{account} is in the database already and is left alone; run the demo again")
    try:
        yield
    finally:
        for account in accounts:
            _delete(url_for(url, account.device_id), account)


def _delete(url: str, account: Account) -> None:
    try:
        with open_backend(url) as backend, contextlib.suppress(AccountNotFound):
            backend.delete_account(account)
    except CryptoStoreError as error:
        print_error(f"the demo's account {account} could not be deleted and may still be in the database: {error}")
