"""What the core tells observers, and when."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import pytest

from cryptostore import (
    Account,
    AccountNotFound,
    AccountRow,
    Backend,
    BackendUnavailable,
    Batch,
    Changes,
    ConfigurationError,
    FencedOut,
    InboundGroupSession,
    Mode,
    StorageFull,
    SyncToken,
    WrongPickleKey,
    new_pickle_key,
    open_backend,
)
from cryptostore.observing.documents import document
from cryptostore.plugins.hookspecs import ObserverHooks
from cryptostore.plugins.observers import notify
from cryptostore.store import pruning
from cryptostore.store.copying import How, Place, copy
from cryptostore.store.memory import MemoryDatabase, MemoryHandle
from cryptostore.store.prunable import Rules
from cryptostore.store.pruning import prune
from cryptostore.store.rekeying import rekey
from example_records import ALICE, example
from told import Told, told

__all__ = ["told"]

KEY = new_pickle_key()
OTHER_KEY = new_pickle_key()
TOKEN = Changes([SyncToken("s1")])
NOBODY = Account("@nobody:x", "NOBODY")


class Faulty(MemoryHandle):
    """A database of which some commits and reads end in an error."""

    def __init__(self, shared: MemoryDatabase) -> None:
        super().__init__(shared)
        self.errors: list[BaseException] = []

    def commit(self, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        self._raise()
        return super().commit(account_id, batch, timeout)

    def find(self, user_id: str, device_id: str, timeout: float) -> AccountRow | None:
        self._raise()
        return super().find(user_id, device_id, timeout)

    def _raise(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


@pytest.fixture
def faulty(told: Told) -> Faulty:
    return Faulty(MemoryDatabase())


@pytest.fixture
def opened(faulty: Faulty) -> Callable[[str], Backend]:
    """Opens the database as one more owner."""
    return lambda owner: Backend(faulty, name="memory", owner=owner, notify=notify, url="memory://x", deadline=0.3)


@pytest.fixture
def backend(opened: Callable[[str], Backend]) -> Iterator[Backend]:
    with opened("first") as backend:
        yield backend


def test_a_database_that_is_opened_and_closed(told: Told) -> None:
    with open_backend("memory://box?deadline=5") as backend:
        pass
    backend.close()
    facts = [("memory", "memory://box?deadline=5", backend.database.connections)]
    assert told.of("database_opened", "backend", "database", "connections") == facts
    assert told.of("database_closed", "backend", "database", "connections") == facts
    assert backend.database.connections() is None


def test_who_opens_an_account_and_who_had_it_before(opened: Callable[[str], Backend], told: Told) -> None:
    opened("first").open_store(ALICE, pickle_key=KEY).apply(TOKEN)
    opened("second").open_store(ALICE, pickle_key=KEY)
    opened("reader").open_store(ALICE, Mode.READ, pickle_key=KEY)
    opened("counter").open_store(ALICE, Mode.READ)
    assert told.of("store_opened", "account", "mode", "epoch", "owner", "previous_owner", "has_pickle_key") == [
        (ALICE, "own", 1, "first", "", True),
        (ALICE, "own", 2, "second", "first", True),
        (ALICE, "read", 2, "reader", "second", True),
        (ALICE, "read", 2, "counter", "second", False),
    ]


def test_a_wrong_pickle_key_and_an_account_that_is_not_there(backend: Backend, told: Told) -> None:
    backend.open_store(ALICE, pickle_key=KEY).apply(TOKEN)
    with pytest.raises(WrongPickleKey) as caught:
        backend.open_store(ALICE, pickle_key=OTHER_KEY)
    with pytest.raises(AccountNotFound):
        backend.open_store(NOBODY, Mode.READ)
    facts = told.of("open_failed", "account", "mode", "owner", "error", "reason")
    assert facts[0] == (ALICE, "own", "first", "WrongPickleKey", str(caught.value))
    assert facts[1][:4] == (NOBODY, "read", "first", "AccountNotFound")


def test_a_batch_with_its_records_bytes_seconds_and_retries(backend: Backend, faulty: Faulty, told: Told) -> None:
    store = backend.open_store(ALICE, pickle_key=KEY)
    faulty.errors = [BackendUnavailable("lost"), BackendUnavailable("lost")]
    store.apply(Changes([example(InboundGroupSession), SyncToken("s")]))
    size = sum(len(row.key) + len(row.value) for row in store.stored_rows())
    [applied] = told.of("batch_applied")
    assert 0.05 < applied.pop("seconds") < 0.3
    assert applied == {"account": ALICE, "records": 2, "size": size, "retries": 2, "backend": "memory"}
    assert told.of("retried", "account", "reason") == [(ALICE, "lost")] * 2
    assert not told.of("unavailable")


def test_a_retry_of_opening_and_of_reading(backend: Backend, faulty: Faulty, told: Told) -> None:
    faulty.errors = [BackendUnavailable("lost")]
    store = backend.open_store(ALICE, pickle_key=KEY)
    faulty.errors = [BackendUnavailable("lost again")]
    store.check_ownership()
    assert told.of("retried", "account", "reason") == [(ALICE, "lost"), (ALICE, "lost again")]


def test_an_empty_batch_is_none_and_a_pending_one_counts_when_it_is_settled(
    backend: Backend, faulty: Faulty, told: Told
) -> None:
    store = backend.open_store(ALICE, pickle_key=KEY)
    store.apply(Changes())
    assert not told.of("batch_applied")
    faulty.errors = [BackendUnavailable("no answer")] * 9
    with pytest.raises(BackendUnavailable):
        store.apply(TOKEN)
    faulty.errors = []
    store.apply(Changes([SyncToken("s2")]))
    assert told.of("batch_applied", "records") == [(2,)]


def test_an_outage_is_told_once_and_its_end_with_its_length(backend: Backend, faulty: Faulty, told: Told) -> None:
    store = backend.open_store(ALICE, pickle_key=KEY)
    faulty.errors = [BackendUnavailable("away")] * 99
    for _ in range(2):
        with pytest.raises(BackendUnavailable):
            store.apply(TOKEN)
    faulty.errors = []
    store.apply(TOKEN)
    store.apply(Changes([SyncToken("s2")]))
    told[:] = [each for each in told if each[0] != "retried"]
    assert told.names[2:] == ["batch_failed", "unavailable", "batch_failed", "recovered", *["batch_applied"] * 2]
    [(reason,)] = told.of("unavailable", "reason")
    assert reason.startswith("away; batch 1 (")
    [(seconds,)] = told.of("recovered", "seconds")
    assert seconds >= sum(each for (each,) in told.of("batch_failed", "seconds"))
    assert [error for (error,) in told.of("batch_failed", "error")] == ["BackendUnavailable"] * 2


def test_an_outage_is_not_over_before_a_batch_arrives(backend: Backend, faulty: Faulty, told: Told) -> None:
    store = backend.open_store(ALICE, pickle_key=KEY)
    faulty.errors = [BackendUnavailable("away", outcome_unknown=False)] * 99
    with pytest.raises(BackendUnavailable):
        store.apply(TOKEN)
    # It asks nobody.
    store.apply(Changes())
    assert told.of("unavailable")
    assert not told.of("recovered")
    faulty.errors = []
    store.apply(TOKEN)
    assert told.of("recovered")


def test_a_full_database(backend: Backend, faulty: Faulty, told: Told) -> None:
    store = backend.open_store(ALICE, pickle_key=KEY)
    faulty.errors = [StorageFull("the disk is full")]
    with pytest.raises(StorageFull):
        store.apply(TOKEN)
    assert told.of("batch_failed", "error", "reason", "retries") == [("StorageFull", "the disk is full", 0)]
    assert not told.of("unavailable")


@pytest.mark.parametrize("how", ["by a batch", "by asking"])
def test_who_was_fenced_and_by_whom_is_told_once(how: str, opened: Callable[[str], Backend], told: Told) -> None:
    store = opened("the bot").open_store(ALICE, pickle_key=KEY)
    opened("cryptostore rekey on host").open_store(ALICE, pickle_key=KEY)
    for _ in range(2):
        with pytest.raises(FencedOut) as caught:
            store.apply(TOKEN) if how == "by a batch" else store.check_ownership()
    [fenced] = told.of("fenced")
    assert fenced == {
        "account": ALICE,
        "owner": "cryptostore rekey on host",
        "since": caught.value.since,
        "previous_owner": "the bot",
        "backend": "memory",
    }


def test_an_account_that_is_deleted(backend: Backend, told: Told) -> None:
    backend.open_store(ALICE, pickle_key=KEY)
    with pytest.raises(AccountNotFound):
        backend.delete_account(NOBODY)
    assert not told.of("account_deleted")
    backend.delete_account(ALICE)
    assert told.of("account_deleted", "account", "owner") == [(ALICE, "first")]


@pytest.mark.parametrize("wrap_only", [True, False])
def test_another_pickle_key(wrap_only: bool, backend: Backend, told: Told) -> None:
    backend.open_store(ALICE, pickle_key=KEY).apply(TOKEN)
    rekey(backend, ALICE, KEY, OTHER_KEY, wrap_only=wrap_only)
    assert told.of("rekeyed", "account", "records", "unreadable", "wrap_only", "owner") == [
        (ALICE, 0 if wrap_only else 1, 0, wrap_only, "first")
    ]


@pytest.mark.parametrize("dry_run", [True, False])
def test_old_records_that_are_deleted(dry_run: bool, backend: Backend, told: Told) -> None:
    store = backend.open_store(ALICE, pickle_key=KEY)
    store.apply(Changes([example(InboundGroupSession)]))
    rules = Rules(received_before=datetime.now(UTC) + timedelta(days=1))
    prune(store, rules, dry_run=dry_run)
    deleted = {InboundGroupSession.kind_name: 1}
    assert told.of("pruned", "account", "deleted", "owner") == ([] if dry_run else [(ALICE, deleted, "first")])
    told.clear()
    prune(store, Rules(received_before=datetime(2000, 1, 1, tzinfo=UTC)))
    assert not told.of("pruned")


@pytest.mark.parametrize("error", [BackendUnavailable("away"), KeyboardInterrupt()])
def test_what_was_deleted_before_the_rest_could_not_be(
    error: BaseException, backend: Backend, faulty: Faulty, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "_BATCH", 2)
    store = backend.open_store(ALICE, pickle_key=KEY)
    store.apply(Changes([example(InboundGroupSession, session_id=f"{number}") for number in range(9)]))
    batches: list[int] = []

    def advance(number: int) -> None:
        batches.append(number)
        if len(batches) == 2:
            faulty.errors = [error] * 99

    with pytest.raises(type(error)):
        prune(store, Rules(received_before=datetime.now(UTC) + timedelta(days=1)), advance=advance)
    assert told.of("pruned", "deleted") == [({InboundGroupSession.kind_name: 4},)]


@pytest.mark.parametrize("leave_source", [True, False])
def test_an_account_that_goes_to_another_database(leave_source: bool, backend: Backend, told: Told) -> None:
    backend.open_store(ALICE, pickle_key=KEY).apply(TOKEN)
    other = Backend(MemoryHandle(MemoryDatabase()), name="memory", owner="first")
    places = Place(backend, "memory://source"), Place(other, "memory://destination")
    how = How(leave_source=leave_source)
    copy(*places, ALICE, how)
    with nullcontext() if not leave_source else pytest.raises(ConfigurationError, match="is in memory://destination"):
        copy(*places, ALICE, how)
    facts = ("account", "records", "way", "destination", "owner")
    assert told.of("keys_exported", *facts) == [(ALICE, 3, "copy", "memory://destination", "first")]
    moved = [(ALICE, "memory://source", "memory://destination", "first")]
    assert told.of("account_moved", "account", "source", "destination", "owner") == ([] if leave_source else moved)


def test_no_fact_has_the_name_of_what_a_log_adds_to_each_event() -> None:
    added = document("event", {"account": ALICE}).keys() | {"time", "process"}
    hooks = [each for name, each in vars(ObserverHooks).items() if name.startswith("cryptostore_")]
    hooks.remove(ObserverHooks.cryptostore_event)
    assert len(hooks) > 20
    assert not [hook.__name__ for hook in hooks if added & inspect.signature(hook).parameters.keys()]
