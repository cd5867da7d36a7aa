"""Whether an account is whole. A client must not open one that is not: it would give a known device a new identity."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from cryptostore.errors import ConfigurationError, UnreadableRecord
from cryptostore.records import Key, OlmAccount, RestoredAccount, Value
from cryptostore.store.answers import Found
from cryptostore.store.crypto_store import CryptoStore
from cryptostore.store.ring import RING_KEYS

from .storage import found_in

#: Stored before anything else of an import, and deleted in the batch that brings the Olm account.
UNFINISHED_IMPORT: Final = Value("cryptostore.import", "unfinished", b"")


class Whole(NamedTuple):
    """What was read of an account that lacks nothing. A new account has no Olm account yet.

    `restored` is there until a client has replaced what was lost with the database that a backup took the place of.
    """

    olm_account: OlmAccount | None
    values: Found[Value]
    restored: RestoredAccount | None = None


def read_whole(store: CryptoStore, keys: Iterable[Key] = ()) -> Whole:
    """The Olm account and the values under these keys, for who is about to take the account over: one round trip.

    Raises ConfigurationError for an account whose import, or `cryptostore restored`, was interrupted, and
    UnreadableRecord for one whose Olm account is damaged, or missing although other records are there.
    """
    values_wanted = [(Value, key) for key in (UNFINISHED_IMPORT.key, *keys)]
    found = store.select_together([(OlmAccount, ()), (RestoredAccount, ()), *values_wanted])
    values = found_in(found.of(Value))
    if UNFINISHED_IMPORT.key in values.keys() | values.unreadable.keys():
        raise ConfigurationError(
            f"an import of {store.account} was interrupted, and a client would give the device a new identity; "
            "run `cryptostore import-nio` again before the client starts"
        )
    olm_account = next(iter(found.of(OlmAccount)[()]), None)
    if olm_account is None and _has_records(store):
        raise UnreadableRecord(
            f"the Olm account of {store.account} is missing, although the database has other records of it: a part of "
            "it was lost, or the database hides it. Nothing was changed; restore the account from a backup"
        )
    restored = next(iter(found.of(RestoredAccount)[()]), None)
    if restored is not None and not restored.is_disarmed:
        raise ConfigurationError(
            f"`cryptostore restored` was interrupted for {store.account}: run it again before a client starts"
        )
    return Whole(olm_account, values, restored)


def _has_records(store: CryptoStore) -> bool:
    return any(row.key not in RING_KEYS for row in store.stored_rows())
