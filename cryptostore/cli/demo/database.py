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


@contextlib.contextmanager
def temporary_accounts(url: str, accounts: list[Account]) -> Iterator[None]:
    """See that the accounts are not there before, and delete them afterwards. Raises ConfigurationError."""
    with open_backend(url) as backend:
        there = backend.accounts()
        for account in accounts:
            if account in there:
                raise ConfigurationError(f"{account} is in the database already and is left alone; run the demo again")
    try:
        yield
    finally:
        _delete(url, accounts)


def _delete(url: str, accounts: list[Account]) -> None:
    try:
        with open_backend(url) as backend:
            for account in accounts:
                with contextlib.suppress(AccountNotFound):
                    backend.delete_account(account)
    except CryptoStoreError as error:
        names = " and ".join(map(str, accounts))
        print_error(f"the demo's accounts {names} could not be deleted and may still be in the database: {error}")
