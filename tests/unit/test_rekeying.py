"""Another pickle key and data key: nothing is lost, at whichever batch it is interrupted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from cryptostore import (
    KINDS,
    AccountNotFound,
    AccountRow,
    Backend,
    BackendUnavailable,
    Batch,
    Changes,
    ConfigurationError,
    CryptoStoreError,
    FencedOut,
    Mode,
    Record,
    SyncToken,
    TrackedUser,
    UnreadableRecord,
    WrongPickleKey,
    new_pickle_key,
)
from cryptostore.store import rekeying
from cryptostore.store.account_keys import AccountKeys
from cryptostore.store.interface import Row
from cryptostore.store.keys import encode_key
from cryptostore.store.memory import MemoryDatabase, MemoryHandle
from cryptostore.store.rekeying import Rekeyed, rekey
from cryptostore.store.ring import RING_KEYS
from example_records import ALICE, example

OLD, NEW, THIRD = (new_pickle_key() for _ in range(3))
RECORDS: list[Record] = [*map(example, KINDS), *[TrackedUser(f"@{number}:x") for number in range(30)]]


class Killed(BaseException):
    """What ends a process that is killed, as far as this process can show it."""


class Counted(MemoryHandle):
    """A database whose process is killed before or after one of its commits."""

    commits = 0
    killed_before = killed_after = -1

    def commit(self, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        if self.commits == self.killed_before:
            raise Killed
        row = super().commit(account_id, batch, timeout)
        if self.commits == self.killed_after:
            raise Killed
        self.commits += 1
        return row


@pytest.fixture
def shared() -> MemoryDatabase:
    shared = MemoryDatabase()
    with handle(shared) as backend, backend.open_store(ALICE, pickle_key=OLD) as store:
        store.apply(Changes(RECORDS))
    return shared


@pytest.fixture
def backend(shared: MemoryDatabase) -> Iterator[Backend]:
    with handle(shared) as backend:
        yield backend


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rekeying, "_BATCH_ROWS", 8)


def handle(shared: MemoryDatabase) -> Backend:
    return Backend(Counted(shared), name="memory")


def stored(shared: MemoryDatabase) -> dict[bytes, bytes]:
    [records] = shared.records.values()
    return records.values


def opens(backend: Backend, pickle_key: str) -> bool:
    try:
        with backend.open_store(ALICE, Mode.READ, pickle_key=pickle_key) as store:
            found = [record for kind in KINDS for record in store.scan(kind)]
    except WrongPickleKey:
        return False
    assert sorted(map(repr, found)) == sorted(map(repr, RECORDS))
    return True


def ring_of(backend: Backend, pickle_key: str) -> Any:
    row = backend.database.find(ALICE.user_id, ALICE.device_id, 1)
    assert row is not None
    keys = AccountKeys(ALICE, pickle_key, lambda wanted: backend.database.get(row.id, wanted, 1))
    assert keys.load()
    return keys.ring


def test_everything_is_sealed_again_and_only_the_new_key_opens(backend: Backend, shared: MemoryDatabase) -> None:
    before = dict(stored(shared))
    data_key, replay_key = ring_of(backend, OLD).data_keys[0], ring_of(backend, OLD).replay_key
    advanced = []
    done = rekey(backend, ALICE, OLD, NEW, advance=lambda: advanced.append(1))
    assert not done.unreadable
    assert done.resealed.total() == len(RECORDS) == len(advanced)
    assert opens(backend, NEW)
    assert not opens(backend, OLD)
    assert set(stored(shared)) == set(before)
    assert all(value != before[key] for key, value in stored(shared).items())
    ring = ring_of(backend, NEW)
    assert data_key not in ring.data_keys + ring.retired
    assert ring.replay_key == replay_key


def test_wrap_only_changes_the_ring_and_nothing_else(backend: Backend, shared: MemoryDatabase) -> None:
    before = dict(stored(shared))
    assert rekey(backend, ALICE, OLD, NEW, wrap_only=True) == Rekeyed()
    assert opens(backend, NEW)
    assert not opens(backend, OLD)
    changed = {key for key, value in stored(shared).items() if value != before[key]}
    assert changed == set(RING_KEYS)


def test_the_same_pickle_key_gets_a_new_data_key(backend: Backend) -> None:
    before = ring_of(backend, OLD)
    rekey(backend, ALICE, OLD, OLD)
    assert opens(backend, OLD)
    assert ring_of(backend, OLD).data_keys[0] != before.data_keys[0]


def test_a_call_after_the_last_changes_nothing(backend: Backend, shared: MemoryDatabase) -> None:
    rekey(backend, ALICE, OLD, NEW)
    before = dict(stored(shared))
    assert rekey(backend, ALICE, OLD, NEW) == Rekeyed()
    assert stored(shared) == before


@pytest.mark.parametrize("side", ["killed_before", "killed_after"])
@pytest.mark.parametrize("at", range(2 + -(-len(RECORDS) // 8)))
def test_after_a_kill_the_same_call_completes_it(shared: MemoryDatabase, side: str, at: int) -> None:
    with handle(shared) as victim:
        setattr(victim.database, side, at)
        with pytest.raises(Killed):
            rekey(victim, ALICE, OLD, NEW)
    with handle(shared) as backend:
        decided = at > 0 or side == "killed_after"
        assert opens(backend, NEW) == decided
        assert opens(backend, OLD) != decided
        rekey(backend, ALICE, OLD, NEW)
        assert opens(backend, NEW)
        assert len(ring_of(backend, NEW).data_keys) == 1


def test_a_rekey_has_two_batches_more_than_pages(backend: Backend) -> None:
    rekey(backend, ALICE, OLD, NEW)
    assert isinstance(backend.database, Counted)
    assert backend.database.commits == 2 + -(-len(RECORDS) // 8)


def test_a_row_that_cannot_be_opened_is_kept_and_counted(backend: Backend, shared: MemoryDatabase) -> None:
    boss, damaged = encode_key(TrackedUser, ("@1:x",)), b"\x01\xde\xad\xbe\xef and no more"
    old_value, data_key = stored(shared)[boss], ring_of(backend, OLD).data_keys[0]
    stored(shared)[boss] = damaged
    done = rekey(backend, ALICE, OLD, NEW)
    assert done.unreadable == {TrackedUser.kind_number: 1}
    assert stored(shared)[boss] == damaged
    ring = ring_of(backend, NEW)
    assert data_key in ring.retired
    assert data_key not in ring.data_keys
    # An old value that is put back opens for commands, and for no other store.
    stored(shared)[boss] = old_value
    with backend.open_store(ALICE, Mode.READ, pickle_key=NEW) as store:
        assert ("@1:x",) in store.get(TrackedUser, [("@1:x",)]).unreadable
    assert not rekey(backend, ALICE, NEW, THIRD).unreadable
    assert opens(backend, THIRD)
    assert ring_of(backend, THIRD).retired == ()


def test_a_kind_that_this_program_does_not_know_is_sealed_again(backend: Backend, shared: MemoryDatabase) -> None:
    with backend.open_store(ALICE, pickle_key=OLD) as store:
        key = b"\xc8from a later version"
        store.put_rows(store.owned_keys().seal_all([(key, b"what it holds")]))
    assert rekey(backend, ALICE, OLD, NEW).resealed[0xC8] == 1
    with backend.open_store(ALICE, pickle_key=NEW) as store:
        assert store.owned_keys().open(Row(key, stored(shared)[key])) == b"what it holds"


def test_large_values_go_in_batches_of_their_own(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rekeying, "_BATCH_BYTES", 1)
    assert isinstance(backend.database, Counted)
    rekey(backend, ALICE, OLD, NEW)
    assert backend.database.commits == 2 + len(RECORDS)


def test_two_rekeys_at_once_leave_one_pickle_key(shared: MemoryDatabase) -> None:
    with handle(shared) as slow, handle(shared) as fast:
        steps = iter(range(100))

        def overtaken() -> None:
            if next(steps) == 10:
                rekey(fast, ALICE, NEW, THIRD)

        with pytest.raises(FencedOut):
            rekey(slow, ALICE, OLD, NEW, advance=overtaken)
        assert opens(fast, THIRD)


def test_a_reader_of_the_same_pickle_key_reads_on(backend: Backend) -> None:
    with backend.open_store(ALICE, Mode.READ, pickle_key=OLD) as reader:
        rekey(backend, ALICE, OLD, OLD)
        assert len(list(reader.scan(TrackedUser))) == 31


def test_a_reader_of_the_old_pickle_key_is_told(backend: Backend) -> None:
    with backend.open_store(ALICE, Mode.READ, pickle_key=OLD) as reader:
        rekey(backend, ALICE, OLD, NEW)
        with pytest.raises(WrongPickleKey):
            reader.get(SyncToken, [()])


def test_an_owner_of_the_old_pickle_key_is_fenced_out(backend: Backend, shared: MemoryDatabase) -> None:
    with backend.open_store(ALICE, pickle_key=OLD) as owner, handle(shared) as other:
        rekey(other, ALICE, OLD, NEW)
        with pytest.raises(FencedOut, match=re.escape(other.owner)):
            owner.get(SyncToken, [()])


@pytest.mark.parametrize(
    ("old", "damage", "error"),
    [
        (THIRD, False, WrongPickleKey),
        (OLD, True, UnreadableRecord),
    ],
    ids=["wrong key", "damaged ring"],
)
def test_what_cannot_be_rekeyed_is_not_taken_over(
    backend: Backend, shared: MemoryDatabase, old: str, damage: bool, error: type[CryptoStoreError]
) -> None:
    if damage:
        stored(shared).update(dict.fromkeys(RING_KEYS, b"damaged"))
    before = backend.accounts()
    for attempt in (rekey, rekeying.check_pickle_keys):
        with pytest.raises(error):
            attempt(backend, ALICE, old, NEW)
    assert backend.accounts() == before


def test_an_account_without_rows_has_no_pickle_key_to_change() -> None:
    with handle(MemoryDatabase()) as backend:
        with pytest.raises(AccountNotFound):
            rekey(backend, ALICE, OLD, NEW)
        backend.open_store(ALICE, pickle_key=OLD)
        with pytest.raises(ConfigurationError, match="has no keys yet, so there is no pickle key to change"):
            rekey(backend, ALICE, OLD, NEW)


def test_an_outage_is_an_error_and_the_next_call_completes_it(shared: MemoryDatabase) -> None:
    class Away(MemoryHandle):
        commits = 0

        def commit(self, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
            self.commits += 1
            if self.commits > 3:
                raise BackendUnavailable("away")
            return super().commit(account_id, batch, timeout)

    with Backend(Away(shared), name="away", deadline=0.01) as away, pytest.raises(BackendUnavailable):
        rekey(away, ALICE, OLD, NEW)
    with handle(shared) as backend:
        rekey(backend, ALICE, OLD, NEW)
        assert opens(backend, NEW)
