"""Writing what was read into a database, comparing it there, and leaving nothing of an import that failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

from cryptostore.errors import ConfigurationError, CryptoStoreError, FencedOut, WrongPickleKey
from cryptostore.logs import logger
from cryptostore.nio.wholeness import UNFINISHED_IMPORT, read_whole
from cryptostore.plugins import open_backend
from cryptostore.records import Account, Record, Value
from cryptostore.records.changes import Changes, RecordKey
from cryptostore.store.backend import Backend
from cryptostore.store.crypto_store import CryptoStore
from cryptostore.store.ownership import Mode

from .convert import AccountImport
from .findings import Findings

_BATCH: Final = 500

_log: Final = logger(__name__)


class ReadBackFailed(CryptoStoreError):
    """The database gave back something else than was stored."""


def transfer(
    imports: Iterable[AccountImport], url: str, findings: Findings, advance: Callable[[], None] = lambda: None
) -> dict[Account, Counter[str]]:
    """Import accounts into the database at `url`, and return how many records of each kind each has there.

    All is read back through a second handle and compared before an account gets its Olm account and sync token, in its
    last batch. `advance` is called for every record.

    Raises ConfigurationError for an account that is in the database already, before anything is written, and for a
    source that was changed meanwhile; UnreadableRecord for an account in the database that lost its Olm account;
    ReadBackFailed; FencedOut if a client opened the account meanwhile; what the backend raises.
    Atomicity: after an error nothing of the import is left. What a killed import left is marked, and replaced by the
    next import.
    """
    chosen = list(imports)
    created: list[CryptoStore] = []
    counts: dict[Account, Counter[str]] = {}
    with open_backend(url) as backend, open_backend(url) as second_handle:
        _make_room(backend, chosen)
        try:
            for each in chosen:
                store = _create(backend, each, created)
                counts[each.account] = _Transfer(each, store, findings).run(second_handle, advance)
        except BaseException:
            _undo(backend, created)
            raise
    return counts


class _Transfer:
    """One account on its way."""

    def __init__(self, source: AccountImport, store: CryptoStore, findings: Findings) -> None:
        self._source = source
        self._store = store
        self._findings = findings
        # Hashes, because the records themselves may be more than fits into memory.
        self._stored: dict[RecordKey, int] = {}

    def run(self, second_handle: Backend, advance: Callable[[], None]) -> Counter[str]:
        self._store.apply(Changes([UNFINISHED_IMPORT]))
        fresh = self._without_repeated(self._source.contents(), advance)
        while batch := list(islice(fresh, _BATCH)):
            self._store.apply(Changes(batch))
        with second_handle.open_store(self._source.account, Mode.READ, pickle_key=self._source.pickle_key) as stored:
            self._compare(stored)
            # Now or never: a client that runs on has moved its ratchets past those that were imported.
            self._source.check_source()
            last = [self._source.olm_account, *filter(None, [self._source.sync_token()])]
            self._store.apply(Changes(last, deletes=[(Value, UNFINISHED_IMPORT.key)]))
            for record in last:
                self._check(record, next(iter(stored.get(type(record), [()]).values()), None))
        return Counter(key.kind.kind_name for key in self._stored) + Counter(record.kind_name for record in last)

    def _without_repeated(self, records: Iterable[Record], advance: Callable[[], None]) -> Iterator[Record]:
        for record in records:
            advance()
            key = RecordKey(type(record), record.key)
            if key in self._stored:
                self._findings.add(self._source.account, record.kind_name, "the source has it twice", *record.key)
            else:
                self._stored[key] = hash(record)
                yield record

    def _compare(self, stored: CryptoStore) -> None:
        found = 0
        for kind in {key.kind for key in self._stored}:
            for record in stored.scan(kind):
                found += 1
                if self._stored.get(RecordKey(kind, record.key)) != hash(record):
                    raise self._failure(f"{record!r} is not what was stored")
        if found != len(self._stored):
            raise self._failure(f"{len(self._stored)} records were stored and {found} are there")

    def _check(self, expected: Record, found: Record | None) -> None:
        if found != expected:
            raise self._failure(f"{expected!r} is not what was stored")

    def _failure(self, what: str) -> ReadBackFailed:
        return ReadBackFailed(
            f"reading back what was imported of {self._source.account} shows a difference: {what}. "
            "Nothing of the import was kept; check the database before you try again"
        )


def _make_room(backend: Backend, imports: Iterable[AccountImport]) -> None:
    """Refuse accounts that are there, all before any is touched; delete what killed imports have left."""
    for account in leftovers_of(backend, imports):
        backend.delete_account(account)


def leftovers_of(backend: Backend, imports: Iterable[AccountImport]) -> list[Account]:
    """What killed imports have left of these accounts. Raises ConfigurationError for one that is there otherwise."""
    there = backend.accounts()
    leftovers = []
    for each in imports:
        if each.account in there:
            if not _is_leftover(backend, each):
                raise ConfigurationError(
                    f"{each.account} is in the database already and is left as it is; import into another database, "
                    "or choose other accounts with --user-id and --device-id"
                )
            leftovers.append(each.account)
    return leftovers


def _is_leftover(backend: Backend, source: AccountImport) -> bool:
    try:
        with backend.open_store(source.account, Mode.READ, pickle_key=source.pickle_key) as store:
            if store.get(Value, [UNFINISHED_IMPORT.key]):
                return True
            read_whole(store)
    except WrongPickleKey:
        pass
    return False


def _create(backend: Backend, source: AccountImport, created: list[CryptoStore]) -> CryptoStore:
    def refuse(there: CryptoStore | None) -> None:
        if there is not None:
            raise FencedOut(f"a client opened {source.account} in the database meanwhile; it was left as it is")

    store = backend.open_store(source.account, pickle_key=source.pickle_key, look=refuse)
    if store.ownership.epoch != 1:
        raise FencedOut(f"a client opened {source.account} in the database at the same moment; start it again")
    created.append(store)
    return store


def _undo(backend: Backend, created: Iterable[CryptoStore]) -> None:
    """Delete the accounts that this import created, unless a client has taken one over meanwhile."""
    for store in created:
        try:
            now = backend.accounts().get(store.account)
            if now is not None and now.incarnation == store.ownership.incarnation:
                backend.delete_account(store.account)
        except CryptoStoreError as error:
            _log.error(  # the cause is the error that ended the import, which is on its way
                "what was imported of %s could not be deleted (%s); the next import of it starts over",
                store.account,
                error,
            )
