"""A hypothesis state machine: two accounts, two owners, readers, reopening, against plain dictionaries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from cryptostore import (
    Account,
    AccountNotFound,
    Backend,
    Changes,
    CryptoStore,
    FencedOut,
    InboundGroupSession,
    Key,
    Record,
    ReplayPage,
    SyncToken,
    Value,
)
from cryptostore_contract.handles import own, read
from cryptostore_contract.harness import Harness
from cryptostore_contract.samples import ALICE, BOB, changed, in_key_order, sample

ACCOUNTS: Final = (ALICE, BOB)

accounts: Final = st.sampled_from(ACCOUNTS)
owners: Final = st.sampled_from((0, 1))
#: Few kinds, of every form of key, and few keys, so that a batch often meets what another left.
KINDS: Final[tuple[type[Record], ...]] = (InboundGroupSession, ReplayPage, SyncToken, Value)
_kinds: Final = st.sampled_from(KINDS)
_numbers: Final = st.integers(1, 2)
_put: Final = st.tuples(_kinds, _numbers, st.integers(1, 9))
puts_of_a_batch: Final = st.lists(_put, max_size=4)
#: Enough for a middle, where half of a batch is to be looked for.
puts_of_a_full_batch: Final = st.lists(_put, min_size=3, max_size=6)
deletes_of_a_batch: Final = st.lists(st.tuples(_kinds, _numbers), max_size=4)
_batches: Final = st.lists(st.tuples(puts_of_a_batch, deletes_of_a_batch), min_size=3, max_size=5)


@dataclass
class Model:
    """One account as it ought to be: nothing of the interface, only dictionaries."""

    records: dict[tuple[type[Record], Key], Record] = field(default_factory=dict)
    batches: int = 0
    #: Which owner may write; None before the account was made.
    owner: int | None = None

    def write(self, changes: Changes) -> None:
        self.batches += 1 if changes else 0
        for kind in changes.kinds():
            for record in changes.puts(kind):
                self.records[kind, record.key] = record
            for key in changes.deletes(kind):
                self.records.pop((kind, key), None)

    def of_kind(self, kind: type[Record]) -> list[Record]:
        return in_key_order([record for (of, _), record in self.records.items() if of is kind])


class StoreMachine(RuleBasedStateMachine):
    """Two programs that own accounts in turns, each with one handle on the database, and readers beside them."""

    #: Of the case that runs the machine.
    harness: ClassVar[Harness]

    def __init__(self) -> None:
        super().__init__()
        self._observer = self.harness.open()
        for account in self._observer.accounts():
            self._observer.delete_account(account)
        self._backends: dict[int, Backend] = {}
        self._stores: dict[tuple[int, Account], CryptoStore] = {}
        self._abandoned: list[Backend] = []
        self.models = {account: Model() for account in ACCOUNTS}

    @initialize(batches=_batches)
    def start(self, batches: list[tuple[list[Any], list[Any]]]) -> None:
        """Begin with some batches in one account: a short history alone would seldom have two in one."""
        for puts, deletes in batches:
            self.apply(0, ALICE, puts, deletes)

    @rule(owner=owners, account=accounts)
    def open(self, owner: int, account: Account) -> None:
        """Take an account over."""
        self._open(owner, account)

    @rule(owner=owners, account=accounts, puts=puts_of_a_batch, deletes=deletes_of_a_batch)
    def apply(self, owner: int, account: Account, puts: list[tuple[Any, int, int]], deletes: list[Any]) -> None:
        """Write a batch, as the owner or as one who was taken over, and look at once."""
        store = self._stores.get((owner, account)) or self._open(owner, account)
        changes, model = batch_of(puts, deletes), self.models[account]
        if model.owner == owner:
            store.apply(changes)
            model.write(changes)
        elif changes:
            with pytest.raises(FencedOut):
                store.apply(changes)
        with read(self._observer, account) as reader:
            self._compare(reader, account)

    @rule(account=accounts)
    def read(self, account: Account) -> None:
        """Look through a handle that knows nothing."""
        with self.harness.open() as backend:
            if self.models[account].owner is None:
                with pytest.raises(AccountNotFound):
                    read(backend, account)
            else:
                with read(backend, account) as reader:
                    self._compare(reader, account)

    @precondition(lambda self: self._stores)
    @rule(data=st.data())
    def read_as_owner(self, data: st.DataObject) -> None:
        """Look through a handle that writes, or wrote: it sees what is stored as well."""
        owner, account = data.draw(st.sampled_from(sorted(self._stores, key=repr)), "by owner and account")
        if self.models[account].owner is not None:
            self._compare(self._stores[owner, account], account)

    @precondition(lambda self: self._backends)
    @rule(owner=owners, abandon=st.booleans())
    def end(self, owner: int, *, abandon: bool) -> None:
        """End one program, in good order or without closing anything; its process lives on, for it is this one."""
        backend = self._backends.pop(owner, None)
        for key in [key for key in self._stores if key[0] == owner]:
            del self._stores[key]
        if backend is not None and abandon:
            # Closed at the very end only, so that whatever was left open stays open.
            self._abandoned.append(backend)
        elif backend is not None:
            backend.close()

    @rule(account=accounts)
    def delete_account(self, account: Account) -> None:
        """Delete an account while stores on it are open."""
        with self.harness.open() as backend:
            if self.models[account].owner is None:
                with pytest.raises(AccountNotFound):
                    backend.delete_account(account)
            else:
                backend.delete_account(account)
        self.models[account] = Model()
        # An old handle stays fenced for good, and what it raises depends on what comes after: two cases of their own.
        for owner in (0, 1):
            self._stores.pop((owner, account), None)

    @invariant()
    def every_account_has_its_batches(self) -> None:
        """The database counts what was acknowledged."""
        counted = {account: owned.sequence for account, owned in self._observer.accounts().items()}
        assert counted == {account: model.batches for account, model in self.models.items() if model.owner is not None}

    def teardown(self) -> None:
        self._close_everything()

    def _close_everything(self) -> None:
        for backend in (*self._backends.values(), *self._abandoned, self._observer):
            backend.close()
        self._stores.clear()
        self._backends.clear()
        self._abandoned.clear()

    def _open(self, owner: int, account: Account) -> CryptoStore:
        store = self._stores[owner, account] = own(self._backend(owner), account)
        self.models[account].owner = owner
        return store

    def _backend(self, owner: int) -> Backend:
        if owner not in self._backends:
            self._backends[owner] = self.harness.open(owner=name_of(owner))
        return self._backends[owner]

    def _compare(self, store: CryptoStore, account: Account) -> None:
        for kind in KINDS:
            expected = self.models[account].of_kind(kind)
            assert store.select(kind, [()])[()] == expected
            assert list(store.scan(kind)) == expected
            keys = [sample(kind, number).key for number in (1, 2)]
            assert store.get(kind, keys) == {record.key: record for record in expected}


def name_of(owner: int) -> str:
    """What a program calls itself."""
    return f"owner {owner}"


def batch_of(puts: list[tuple[type[Record], int, int]], deletes: list[tuple[type[Record], int]]) -> Changes:
    """A batch, in which a later word on a key takes the place of an earlier one."""
    records = {(kind, sample(kind, number).key): changed(sample(kind, number), value) for kind, number, value in puts}
    gone = {(kind, sample(kind, number).key) for kind, number in deletes} - records.keys()
    return Changes(records.values(), sorted(gone, key=repr))
