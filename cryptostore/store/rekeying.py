"""Changing the pickle key and the data key of an account."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from cryptostore.errors import ConfigurationError, WrongPickleKey
from cryptostore.records.record import Account

from .account_keys import AccountKeys
from .backend import Backend
from .crypto_store import CryptoStore
from .ownership import Mode
from .ring import RING_KEYS
from .row_batches import batches_of

#: What one batch holds at most: rows, and bytes of values.
_BATCH_ROWS: Final = 500
_BATCH_BYTES: Final = 8 * 1024 * 1024


@dataclass
class Rekeyed:
    """The result of a rekey: how many rows of each kind were sealed again, or could not be."""

    resealed: Counter[int] = field(default_factory=Counter)
    unreadable: Counter[int] = field(default_factory=Counter)


def has_rows(backend: Backend, account: Account) -> bool:
    """Whether the account has rows; one that was only opened has none. Raises AccountNotFound."""
    with backend.open_store(account, Mode.READ) as store:
        return next(store.stored_rows(), None) is not None


def check_pickle_keys(backend: Backend, account: Account, pickle_key: str, new_pickle_key: str) -> None:
    """Check the account and its pickle key, and raise as `rekey` does. Takes nothing over."""
    _which_opens(backend, account, pickle_key, new_pickle_key)


def rekey(
    backend: Backend,
    account: Account,
    pickle_key: str,
    new_pickle_key: str,
    *,
    wrap_only: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> Rekeyed:
    """Change an account's pickle key, and seal its rows again with a new random data key. Takes the account over.

    With `wrap_only` the rows stay as they are: anybody who knew the old pickle key and kept a copy of the ring can
    still read and forge them. Records are not decoded, so rows of newer kinds are sealed again too.

    Atomicity: from the first batch on only the new pickle key opens the account, and it opens every row, sealed again
    or not. After an error or a kill, the same call completes the rest. The last batch retires the old data keys. They
    are deleted unless a row could not be opened: such a row is kept and counted, and the old keys stay in the ring for
    commands. `advance` is called for every row.

    Raises AccountNotFound, ConfigurationError for an account without rows, WrongPickleKey if neither pickle key opens
    it, UnreadableRecord if its ring is damaged, each before anything is taken over; FencedOut if a client opens the
    account meanwhile; what the backend raises.
    """
    opens = _which_opens(backend, account, pickle_key, new_pickle_key)
    with backend.open_store(account, pickle_key=opens) as store:
        keys = store.owned_keys()
        if opens == pickle_key:
            ring = keys.ring.rewrapped() if wrap_only else keys.ring.with_new_data_key()
            store.put_rows(keys.replace(ring, new_pickle_key))
        done = Rekeyed()
        if not wrap_only and len(keys.ring.data_keys) > 1:
            _reseal(store, keys, done, advance)
            ring = keys.ring.without_old_data_keys(keep_retired=bool(done.unreadable))
            store.put_rows(keys.replace(ring, new_pickle_key))
        backend.notify(
            "cryptostore_rekeyed",
            account=account,
            records=done.resealed.total(),
            unreadable=done.unreadable.total(),
            wrap_only=wrap_only,
            owner=backend.owner,
        )
        return done


def _which_opens(backend: Backend, account: Account, pickle_key: str, new_pickle_key: str) -> str:
    """The pickle key that opens the account: the new one where an earlier call was interrupted."""
    if not has_rows(backend, account):
        raise ConfigurationError(f"{account} has no keys yet, so there is no pickle key to change")
    try:
        backend.open_store(account, Mode.READ, pickle_key=pickle_key).close()
    except WrongPickleKey:
        with suppress(WrongPickleKey):
            backend.open_store(account, Mode.READ, pickle_key=new_pickle_key).close()
            return new_pickle_key
        raise
    return pickle_key


def _reseal(store: CryptoStore, keys: AccountKeys, done: Rekeyed, advance: Callable[[], None]) -> None:
    stored = (row for row in store.stored_rows() if row.key not in RING_KEYS)
    for rows in batches_of(stored, _BATCH_ROWS, _BATCH_BYTES):
        changed = []
        for row in rows:
            sealed = keys.reseal(row)
            (done.unreadable if sealed is None else done.resealed)[row.key[0]] += 1
            # An interrupted call has sealed the others already.
            if sealed is not None and sealed is not row:
                changed.append(sealed)
            advance()
        store.put_rows(changed)
