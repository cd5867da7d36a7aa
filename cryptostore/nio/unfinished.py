"""The mark on an account whose import was interrupted."""

from __future__ import annotations

from typing import Final

from cryptostore.errors import ConfigurationError
from cryptostore.records import Account, Value
from cryptostore.store.answers import Found

#: Stored before anything else of an import, and deleted in the batch that brings the Olm account. A client must not
#: open a marked account: it would find no Olm account, and give a known device a new identity.
UNFINISHED_IMPORT: Final = Value("cryptostore.import", "unfinished", b"")


def check_import(account: Account, found: Found[Value]) -> None:
    """Raise ConfigurationError where the mark is among what was found, readable or not."""
    if UNFINISHED_IMPORT.key in found.keys() | found.unreadable.keys():
        raise ConfigurationError(
            f"an import of {account} was interrupted, and a client would give the device a new identity; "
            "run `cryptostore import-nio` again before the client starts"
        )
