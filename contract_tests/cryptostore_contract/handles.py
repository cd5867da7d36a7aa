"""Opening the database under test: every handle that a case opens is closed when it ends."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import wait
from typing import Any, TypeVar

from cryptostore import KINDS, Account, Backend, Changes, CryptoStore, Mode, Record

from . import waiting
from .harness import Harness
from .raw import RawOwner
from .samples import ALICE, KEY
from .waiting import start

R = TypeVar("R", bound=Record)


class Handles:
    """The handles of one case on one database, each with nothing in common but the storage."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self._opened: list[Backend] = []

    def open(self, **options: Any) -> Backend:
        """A new handle."""
        backend = self._harness.open(**options)
        self._opened.append(backend)
        return backend

    def own(self, account: Account = ALICE, **options: Any) -> CryptoStore:
        """The account, taken over through a new handle."""
        return own(self.open(**options), account)

    def read(self, account: Account = ALICE) -> CryptoStore:
        """The account in READ mode, through a new handle."""
        return read(self.open(), account)

    def raw(self, account: Account = ALICE) -> RawOwner:
        """The account, taken over past the core through a new handle."""
        return RawOwner(self.open().database, account)

    def stored(self, kind: type[R], account: Account = ALICE) -> list[R]:
        """Every record of one kind, read back through a handle of its own."""
        with self._harness.open() as backend, read(backend, account) as store:
            return store.select(kind, [()])[()]

    def everything(self, account: Account = ALICE) -> dict[type[Record], list[Record]]:
        """What the function `everything` finds, read back through a handle of its own."""
        with self._harness.open() as backend:
            return everything(backend, account)

    def close(self) -> None:
        """Close every handle that `open` gave out; fails at the first that hangs, and leaves the rest as they are."""
        for number, backend in enumerate(self._opened, 1):
            closed = start(backend.close)
            wait([closed], waiting.HANGS)
            assert closed.done(), (
                f"handle {number} of the {len(self._opened)} that the case opened does not close: still waiting after "
                f"{waiting.HANGS:g} s, perhaps for what an abandoned scan holds"
            )
            closed.result()


def own(backend: Backend, account: Account = ALICE) -> CryptoStore:
    """Take an account over."""
    return backend.open_store(account, pickle_key=KEY)


def read(backend: Backend, account: Account = ALICE) -> CryptoStore:
    """An account in READ mode."""
    return backend.open_store(account, Mode.READ, pickle_key=KEY)


def everything(backend: Backend, account: Account) -> dict[type[Record], list[Record]]:
    """Every record of an account, by kind; kinds without any are left out."""
    with read(backend, account) as store:
        found = {kind: store.select(kind, [()])[()] for kind in KINDS}
    return {kind: records for kind, records in found.items() if records}


def by_kind(records: Iterable[Record]) -> dict[type[Record], list[Record]]:
    """Records as `everything` gives them, where they stand in key order within their kind."""
    found: dict[type[Record], list[Record]] = {}
    for record in records:
        found.setdefault(type(record), []).append(record)
    return found


def put(store: CryptoStore, *records: Record) -> None:
    """Apply one batch of records."""
    store.apply(Changes(records))
