"""Places where a matrix-nio store keeps its keys: ours on any backend, and nio's own beside it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import pytest
from nio.crypto import InboundGroupSession, OlmAccount, OutboundGroupSession, OutboundSession
from nio.store import DefaultStore, MatrixStore, SqliteStore

import spoiling
from cryptostore import Account, Changes, CryptoStore, Mode, Record, Row, open_backend
from cryptostore import OlmAccount as OlmAccountRecord
from cryptostore.nio import NioStore, storage
from cryptostore.nio.pickles import Pickles
from cryptostore_contract.samples import ALICE, KEY

S = TypeVar("S", bound=MatrixStore)
R = TypeVar("R", bound=Record)

ROOM = "!room:example.org"


class Place(ABC, Generic[S]):
    """One database, opened as often as a test likes; everything is closed at the end."""

    def __init__(self) -> None:
        self._opened: list[S] = []

    def open(self, account: Account = ALICE, pickle_key: str = KEY) -> S:
        """A store as a new process would open it."""
        store = self._make(account, pickle_key)
        self._opened.append(store)
        return store

    def reopen(self, store: S, pickle_key: str = KEY) -> S:
        """Close a store and open its account again."""
        account = Account(store.user_id, store.device_id)
        self.close(store)
        return self.open(account, pickle_key)

    def close(self, store: S) -> None:
        """Close one store."""
        self._opened.remove(store)
        self._end(store)

    def close_all(self) -> None:
        """Close what is still open."""
        for store in list(self._opened):
            self.close(store)

    @abstractmethod
    def _make(self, account: Account, pickle_key: str) -> S: ...

    @abstractmethod
    def _end(self, store: S) -> None: ...


class Ours(Place[NioStore]):
    """NioStore on a backend."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def open(self, account: Account = ALICE, pickle_key: str = KEY) -> NioStore:
        """A store as a new process would open it. nio makes an Olm account before anything else is saved."""
        store = self.open_new(account, pickle_key)
        if store.load_account() is None:
            store.save_account(OlmAccount())
        return store

    def open_new(self, account: Account = ALICE, pickle_key: str = KEY) -> NioStore:
        """A store as a new process would open it, before nio has made an Olm account."""
        return super().open(account, pickle_key)

    def _make(self, account: Account, pickle_key: str) -> NioStore:
        return NioStore(account.user_id, account.device_id, self.url, pickle_key, "")

    def _end(self, store: NioStore) -> None:
        store.close()

    def stored(self, kind: type[R], account: Account = ALICE) -> list[R]:
        """What the database holds of one kind, read back through a handle of its own."""
        with open_backend(self.url) as backend, backend.open_store(account, Mode.READ, pickle_key=KEY) as store:
            return store.select(kind, [()])[()]

    def put(self, *records: Record, account: Account = ALICE) -> None:
        """Write records behind the adapter's back, to an account that has an Olm account."""
        with self.owned(account) as store:
            is_whole = OlmAccountRecord in map(type, records) or store.get(OlmAccountRecord, [()])
            made = [] if is_whole else [Pickles(account).account_record(OlmAccount())]
            store.apply(Changes([*records, *made]))

    def rows(self, kind: type[Record], account: Account = ALICE) -> list[Row]:
        """The stored rows of one kind, sealed as they are."""
        return spoiling.stored_rows(self.url, account, kind)

    def put_rows(self, *rows: Row, account: Account = ALICE) -> None:
        """Write rows as somebody may who has the database and no pickle key."""
        spoiling.put_rows(self.url, account, *rows)

    def spoil(self, kind: type[Record], account: Account = ALICE) -> list[Row]:
        """Damage every row of a kind. Returns them as they are now."""
        return spoiling.spoil(self.url, account, kind)

    @contextmanager
    def owned(self, account: Account = ALICE) -> Iterator[CryptoStore]:
        """The account, taken over by somebody else."""
        with open_backend(self.url) as backend, backend.open_store(account, pickle_key=KEY) as store:
            yield store


class Theirs(Place[SqliteStore]):
    """nio's SqliteStore: one file for every account."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def _make(self, account: Account, pickle_key: str) -> SqliteStore:
        return SqliteStore(account.user_id, account.device_id, str(self._folder), pickle_key, "shared.db")

    def _end(self, store: SqliteStore) -> None:
        store.database.close()


class TheirFiles(Place[DefaultStore]):
    """nio's DefaultStore, with trust in three files."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def _make(self, account: Account, pickle_key: str) -> DefaultStore:
        return DefaultStore(account.user_id, account.device_id, str(self._folder), pickle_key)

    def _end(self, store: DefaultStore) -> None:
        store.database.close()


class Ratchet:
    """The creator's side of a Megolm session, which may give its key away at any message index."""

    def __init__(self, sender_key: str = "curve-of-sender", room: str = ROOM) -> None:
        self._creator = OutboundGroupSession()
        self._creator.mark_as_shared()
        self._sender_key = sender_key
        self._room = room

    @property
    def id(self) -> str:
        """The session's id."""
        return self._creator.id

    def advance(self, messages: int) -> Ratchet:
        """Encrypt some messages."""
        for _ in range(messages):
            self._creator.encrypt("message")
        return self

    def inbound(self, *chain: str, signing_key: str = "ed-of-sender") -> InboundGroupSession:
        """The session from the present index on: directly from its creator, or forwarded along `chain`."""
        made = InboundGroupSession(self._creator.session_key, signing_key, self._sender_key, self._room, list(chain))
        assert made.id == self.id
        return made

    def found_in(self, store: MatrixStore) -> InboundGroupSession | None:
        """This session in a store."""
        found: InboundGroupSession | None = store.load_inbound_group_sessions().get(
            self._room, self._sender_key, self.id
        )
        return found


def olm_session() -> OutboundSession:
    """An Olm session with somebody."""
    one, other = OlmAccount(), OlmAccount()
    other.generate_one_time_keys(1)
    (one_time_key,) = other.one_time_keys["curve25519"].values()
    return OutboundSession(one, other.identity_keys["curve25519"], one_time_key)


class Counted:
    """A backend, or a store of one, that writes down its calls, scanned records and batches."""

    def __init__(self, inner: Any, calls: list[str] | None = None, batches: list[Changes] | None = None) -> None:
        self._inner = inner
        self.calls: list[str] = [] if calls is None else calls
        self.batches: list[Changes] = [] if batches is None else batches

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def open_store(self, account: Account, *, look: Callable[[Any], None], **given: Any) -> Counted:
        self.calls.append("open_store")

        def counted_look(store: Any) -> None:
            look(store and Counted(store, self.calls, self.batches))

        store = self._inner.open_store(account, look=counted_look, **given)
        return Counted(store, self.calls, self.batches)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._inner.close()

    def get(self, kind: type[Record], keys: Any) -> Any:
        self.calls.append(f"get {kind.kind_name}")
        return self._inner.get(kind, keys)

    def select(self, kind: type[Record], prefixes: Any) -> Any:
        self.calls.append(f"select {kind.kind_name}")
        return self._inner.select(kind, prefixes)

    def select_together(self, prefixes: Any) -> Any:
        self.calls.append("select together")
        return self._inner.select_together(prefixes)

    def scan(self, kind: type[Record], prefix: Any = ()) -> Iterator[Record]:
        for record in self._inner.scan(kind, prefix):
            self.calls.append(f"scanned {kind.kind_name}")
            yield record

    def apply(self, changes: Changes) -> None:
        self._inner.apply(changes)
        if changes:
            self.calls.append("apply")
            self.batches.append(changes)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """What every backend that NioStore opens in this test is asked for."""
    counted = Counted(None)

    def open_counted(url: str) -> Counted:
        return Counted(open_backend(url), counted.calls, counted.batches)

    monkeypatch.setattr(storage, "open_backend", open_counted)
    return counted


def outcome(call: Callable[[], Any]) -> Any:
    """What a call answers, or the type of what it raises."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001  # nio raises whatever its libraries raise
        return type(error)
