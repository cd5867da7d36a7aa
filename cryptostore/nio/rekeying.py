"""Another pickle key for an account, and with it other keys for its pickles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final, TypeVar

import nio

from cryptostore.changes import Changes
from cryptostore.errors import ConfigurationError, UnreadableRecord, WrongPickleKey
from cryptostore.hookspecs import hookimpl
from cryptostore.interface import Backend, CryptoStore, Mode
from cryptostore.observers import notify, observers
from cryptostore.records import Account, InboundGroupSession, OlmAccount, OlmSession, OutboundGroupSession, Value

from .key_ring import KeyRing
from .pickles import Pickles
from .sealing import ACCESS_TOKEN, Seal

R = TypeVar("R", OlmSession, InboundGroupSession, OutboundGroupSession)

_BATCH: Final = 500


@dataclass
class Rekeyed:
    """What a rekey did to an account: its records by kind."""

    renewed: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)


def has_keys(backend: Backend, account: Account) -> bool:
    """Whether an account has an Olm account; one that was opened once, or half imported, may have none."""
    with backend.open_store(account, Mode.READ) as store:
        return bool(store.get(OlmAccount, [()]))


def check_pickle_keys(backend: Backend, account: Account, pickle_key: str, new_pickle_key: str) -> None:
    """Raise what `rekey` would raise because of the account or its pickle key. Takes nothing over."""
    with backend.open_store(account, Mode.READ) as store:
        _unlocked(store, pickle_key, new_pickle_key)


def rekey(
    backend: Backend,
    account: Account,
    pickle_key: str,
    new_pickle_key: str,
    advance: Callable[[], None] = lambda: None,
) -> Rekeyed:
    """Give an account another pickle key, and encrypt its pickles with a new random key. The account is taken over.

    Atomicity: the first batch decides. From then on only the new pickle key opens the account, and it opens all that is
    in it, encrypted anew or not. After an error or a kill, the same call completes what the first has begun. The last
    batch forgets the keys that were replaced, unless a row cannot be read: that is reported and kept, and so are they.
    `advance` is called for every session.

    Raises AccountNotFound, ConfigurationError for an account without keys, WrongPickleKey if neither pickle key opens
    it, UnreadableRecord if it is damaged, each before anything is taken over; FencedOut if a client opens the account
    meanwhile; what the backend raises.
    """
    check_pickle_keys(backend, account, pickle_key, new_pickle_key)
    with backend.open_store(account) as store, _unreadable_rows(account) as unreadable:
        return _Rekey(store, _unlocked(store, pickle_key, new_pickle_key), new_pickle_key, unreadable).run(advance)


class _UnreadableRows:
    """An observer that counts an account's rows that cannot be read, whoever finds that out: backend or pickles."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self.counts: Counter[str] = Counter()

    @hookimpl
    def cryptostore_unreadable_row(self, account: Account, kind: str) -> None:
        if account == self._account:
            self.counts[kind] += 1


@contextmanager
def _unreadable_rows(account: Account) -> Iterator[Counter[str]]:
    observer, name = _UnreadableRows(account), f"rekey of {account}"
    observers().add(name, observer)
    try:
        yield observer.counts
    finally:
        observers().remove(name)


@dataclass(frozen=True, repr=False)
class _Unlocked:
    """An account, and the pickle key that opened it."""

    pickle_key: str
    key_ring: KeyRing
    olm_account: nio.crypto.OlmAccount


def _unlocked(store: CryptoStore, pickle_key: str, new_pickle_key: str) -> _Unlocked:
    record = store.get(OlmAccount, [()]).get(())
    if record is None:
        raise ConfigurationError(f"{store.account} has no keys yet, so there is no pickle key to change")
    try:
        return _unlocked_with(pickle_key, store.account, record)
    except WrongPickleKey:
        # An earlier call may have been killed after its first batch.
        with suppress(WrongPickleKey):
            return _unlocked_with(new_pickle_key, store.account, record)
        raise


def _unlocked_with(pickle_key: str, account: Account, record: OlmAccount) -> _Unlocked:
    key_ring = KeyRing.of(account, pickle_key, record)
    return _Unlocked(pickle_key, key_ring, Pickles(account, key_ring).account(record))


class _Rekey:
    """One account on its way."""

    def __init__(self, store: CryptoStore, unlocked: _Unlocked, new_pickle_key: str, unreadable: Counter[str]) -> None:
        self._store = store
        self._unlocked = unlocked
        self._new_pickle_key = new_pickle_key
        self._key_ring = unlocked.key_ring.under(store.account, new_pickle_key)
        self._pickles = Pickles(store.account, self._key_ring)
        self._done = Rekeyed(unreadable=unreadable)

    def run(self, advance: Callable[[], None]) -> Rekeyed:
        self._write_account(self._pickles, *self._login())
        self._renew(OlmSession, advance)
        self._renew(InboundGroupSession, advance)
        self._renew(OutboundGroupSession, advance)
        if not self._done.unreadable.total():
            newest_alone = self._key_ring.newest_alone(self._store.account, self._new_pickle_key)
            self._write_account(Pickles(self._store.account, newest_alone))
        self._done.renewed[OlmAccount.kind_name] = 1
        return self._done

    def _write_account(self, pickles: Pickles, *others: Value) -> None:
        self._store.apply(Changes([pickles.account_record(self._unlocked.olm_account), *others]))
        pickles.use_key_ring()

    def _login(self) -> Iterator[Value]:
        """The access token that a client left here. One that cannot be read is replaced by the client's next login."""
        row = self._store.get(Value, [ACCESS_TOKEN]).get(ACCESS_TOKEN)
        if row is None:
            return
        account = self._store.account
        try:
            token = Seal(account, self._unlocked.pickle_key).open(row.name, row.value)
        except UnreadableRecord:
            notify("cryptostore_unreadable_row", account=account, kind=Value.kind_name)
        else:
            yield replace(row, value=Seal(account, self._new_pickle_key).seal(row.name, token))

    def _renew(self, kind: type[R], advance: Callable[[], None]) -> None:
        stored = self._store.scan(kind)
        while page := list(islice(stored, _BATCH)):
            renewed = [record for each in page if (record := self._pickles.renewed(each)) is not None]
            self._store.apply(Changes(renewed))
            self._done.renewed[kind.kind_name] += len(renewed)
            for _ in page:
                advance()
