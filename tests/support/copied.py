"""An account in one database and its copy in another, and a kill in between."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cryptostore import (
    AccountElsewhere,
    AccountNotFound,
    AccountRow,
    Backend,
    Batch,
    Changes,
    Mode,
    Record,
    SyncToken,
    TrackedUser,
)
from cryptostore.store.copying import How, Place, copy
from cryptostore.store.memory import MemoryDatabase, MemoryHandle
from cryptostore.store.rekeying import rekey
from example_records import ALICE
from sealed_database import KEY, OTHER_KEY, rows_of

RECORDS: list[Record] = [SyncToken("s1"), *[TrackedUser(f"@{number}:x") for number in range(30)]]
PLAIN, OPENED = How(), How(pickle_key=KEY)


class Killed(BaseException):
    """What ends a process that is killed, as far as this process can show it."""


class Handle(MemoryHandle):
    """A database that something is done to before or after each of its commits."""

    def __init__(self, shared: MemoryDatabase) -> None:
        super().__init__(shared)
        self.before: Callable[[int], None] = lambda _number: None
        self.after: Callable[[int], None] = lambda _number: None
        self.commits = 0

    def commit(self, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        self.before(self.commits)
        row = super().commit(account_id, batch, timeout)
        self.after(self.commits)
        self.commits += 1
        return row


def place(name: str) -> Place:
    """An empty database."""
    return Place(Backend(Handle(MemoryDatabase()), name=name, owner=name), f"memory://{name}")


def handle(where: Place) -> Handle:
    """The database, to do something to it."""
    assert isinstance(where.backend.database, Handle)
    return where.backend.database


def save(where: Place, *records: Record) -> None:
    """Alice's client writes here."""
    with where.backend.open_store(ALICE, pickle_key=KEY) as store:
        store.apply(Changes(records))


def contents(where: Place) -> dict[bytes, bytes]:
    """Alice's rows here, sealed as they are."""
    return dict(rows_of(where.backend, ALICE))


def token(where: Place) -> str:
    """Alice's sync token here."""
    with where.backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        return store.get(SyncToken, [()])[()].token


def refuses(where: Place, words: str) -> None:
    """Nobody opens the account here, and nothing is taken over."""
    before = where.backend.accounts()
    for mode in Mode:
        with pytest.raises(AccountElsewhere, match=words):
            where.backend.open_store(ALICE, mode, pickle_key=KEY)
    with pytest.raises(AccountElsewhere, match=words):
        rekey(where.backend, ALICE, KEY, OTHER_KEY)
    assert where.backend.accounts() == before


def kill_at(killed: Handle, moment: str, number: int, source: Place, destination: Place, how: How) -> bool:
    """Whether a copy came to this commit, at which it is killed."""

    def kill(at: int) -> None:
        if at == number:
            raise Killed

    setattr(killed, moment, kill)
    try:
        copy(source, destination, ALICE, how)
    except Killed:
        setattr(killed, moment, lambda _number: None)
        killed.commits += 1
        return True
    return False


def is_opened(where: Place) -> bool:
    """Whether a client finds the account's records here."""
    try:
        with where.backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
            return bool(store.get(SyncToken, [()]))
    except (AccountElsewhere, AccountNotFound):
        return False


def interrupted(source: Place, destination: Place) -> None:
    """A copy is killed before its fourth commit."""
    assert kill_at(handle(destination), "before", handle(destination).commits + 3, source, destination, PLAIN)
