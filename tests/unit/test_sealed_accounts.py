"""Opening sealed accounts: pickle keys, key rings, and accounts from which something is missing."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from cryptostore import (
    Account,
    AccountNotFound,
    AccountRow,
    Backend,
    BackendUnavailable,
    Changes,
    ConfigurationError,
    DatabaseWentBack,
    FencedOut,
    Mode,
    SyncToken,
    TakeOver,
    TrackedUser,
    UnreadableRecord,
    WrongPickleKey,
)
from cryptostore.store import account_keys
from cryptostore.store.keys import encode_key
from cryptostore.store.memory import MemoryDatabase, MemoryHandle
from cryptostore.store.rekeying import rekey
from cryptostore.store.ring import RING_KEYS, Ring, wrap
from example_records import ALICE
from sealed_database import BOB, KEY, OTHER_KEY, backend, plant, rows_of, saved, stored

__all__ = ["backend"]


def test_a_wrong_pickle_key_takes_nothing_over(backend: Backend) -> None:
    owner = backend.open_store(ALICE, pickle_key=KEY)
    owner.apply(Changes([SyncToken("s1")]))
    for mode in Mode:
        for wrong in (OTHER_KEY, "a passphrase instead of a generated key"):
            with pytest.raises(WrongPickleKey, match="Nothing is damaged"):
                backend.open_store(ALICE, mode, pickle_key=wrong)
    owner.apply(Changes([SyncToken("s2")]))


def test_a_short_passphrase_draws_one_warning(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        backend.open_store(ALICE, pickle_key="short").apply(Changes([SyncToken("s1")]))
        assert [record.getMessage() for record in caplog.records] == [caplog.messages[0]]
    assert "which can be guessed" in caplog.text
    assert "short" not in caplog.text.replace("shorter", "")


def test_a_store_without_a_pickle_key_copies_and_reads_nothing(backend: Backend) -> None:
    saved(backend, SyncToken("s1"))
    with pytest.raises(ConfigurationError, match=r"to own @alice:example\.org ALICEDEVICE, give open_store its pickle"):
        backend.open_store(ALICE)
    with backend.open_store(ALICE, Mode.READ) as store:
        assert [row.key for row in store.stored_rows()] == [RING_KEYS[0], encode_key(SyncToken, ()), RING_KEYS[1]]
        for read in (
            lambda: store.get(SyncToken, [()]),
            lambda: store.select(SyncToken, [()]),
            lambda: store.scan(SyncToken),
        ):
            with pytest.raises(ConfigurationError, match="was opened without a pickle key"):
                read()


def test_a_reader_that_came_before_the_first_batch_reads_it(backend: Backend) -> None:
    owner = backend.open_store(ALICE, pickle_key=KEY)
    reader = backend.open_store(ALICE, Mode.READ, pickle_key=KEY)
    assert reader.get(SyncToken, [()]) == {}
    with pytest.raises(UnreadableRecord, match="the key ring of"):
        _ = reader.replay_key
    owner.apply(Changes([SyncToken("s1")]))
    assert reader.get(SyncToken, [()]) == {(): SyncToken("s1")}


def test_an_account_that_never_had_a_batch_takes_any_pickle_key(backend: Backend) -> None:
    backend.open_store(ALICE, pickle_key=KEY)
    backend.open_store(ALICE, pickle_key=OTHER_KEY).apply(Changes([SyncToken("s1")]))
    with pytest.raises(WrongPickleKey):
        backend.open_store(ALICE, pickle_key=KEY)


def test_the_ring_comes_with_the_first_batch_and_no_other(backend: Backend) -> None:
    store = backend.open_store(ALICE, pickle_key=KEY)
    assert rows_of(backend, ALICE) == {}
    store.apply(Changes([SyncToken("s1")]))
    ring = {key: rows_of(backend, ALICE)[key] for key in RING_KEYS}
    store.apply(Changes([SyncToken("s2")]))
    backend.open_store(ALICE, pickle_key=KEY).apply(Changes([SyncToken("s3")]))
    assert {key: rows_of(backend, ALICE)[key] for key in RING_KEYS} == ring


def test_the_replay_key_stays_the_same(backend: Backend) -> None:
    with backend.open_store(ALICE, pickle_key=KEY) as store:
        replay_key = store.replay_key
        store.apply(Changes([SyncToken("s1")]))
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        assert store.replay_key == replay_key


@pytest.mark.parametrize("lost", RING_KEYS)
def test_one_lost_copy_of_the_ring_is_written_again(
    backend: Backend, lost: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    saved(backend, SyncToken("s1"))
    stored(backend, ALICE).delete(lost)
    with caplog.at_level(logging.WARNING):
        saved(backend, TrackedUser("@bob:x"))
    assert "of the key ring of @alice:example.org ALICEDEVICE" in caplog.text
    assert "the next batch of its owner writes it again" in caplog.text
    [other] = set(RING_KEYS) - {lost}
    stored(backend, ALICE).delete(other)
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        assert store.get(SyncToken, [()]) == {(): SyncToken("s1")}


def test_a_lost_copy_of_the_ring_is_wrapped_by_who_writes_it_alone(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(backend, SyncToken("s1"))
    stored(backend, ALICE).delete(RING_KEYS[0])
    wrapped: list[Ring] = []

    def noted(account: Account, ring: Ring, pickle_key: str) -> dict[bytes, bytes]:
        wrapped.append(ring)
        return wrap(account, ring, pickle_key)

    monkeypatch.setattr(account_keys, "wrap", noted)
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as reader:
        assert reader.get(SyncToken, [()])
    assert wrapped == []
    with backend.open_store(ALICE, pickle_key=KEY) as owner:
        for token in ("s2", "s3"):
            owner.apply(Changes([SyncToken(token)]))
    assert len(wrapped) == 1
    assert rows_of(backend, ALICE).keys() >= {*RING_KEYS}


def test_a_batch_without_the_ring_leaves_it_to_the_next(backend: Backend) -> None:
    saved(backend, SyncToken("s1"))
    stored(backend, ALICE).delete(RING_KEYS[0])
    with backend.open_store(ALICE, pickle_key=KEY) as owner:
        owner.put_rows([row for row in owner.stored_rows() if row.key not in RING_KEYS])
        assert RING_KEYS[0] not in rows_of(backend, ALICE)
        owner.apply(Changes([SyncToken("s2")]))
    assert RING_KEYS[0] in rows_of(backend, ALICE)


def without_records(backend: Backend) -> None:
    for key in list(rows_of(backend, ALICE)):
        stored(backend, ALICE).delete(key)


def without_ring(backend: Backend) -> None:
    for key in RING_KEYS:
        stored(backend, ALICE).delete(key)


def without_history(backend: Backend) -> None:
    without_ring(backend)
    assert isinstance(backend.database, MemoryHandle)
    accounts = backend.database.shared.accounts
    accounts.update({name: row._replace(sequence=0) for name, row in accounts.items()})


@pytest.mark.parametrize("damage", [without_records, without_ring, without_history])
def test_a_missing_ring_is_never_made_anew(backend: Backend, damage: Callable[[Backend], None]) -> None:
    saved(backend, SyncToken("s1"))
    damage(backend)
    before, owner = dict(rows_of(backend, ALICE)), backend.accounts()[ALICE]
    for mode in Mode:
        with pytest.raises(UnreadableRecord, match=r"the key ring of @alice:example\.org ALICEDEVICE is missing"):
            backend.open_store(ALICE, mode, pickle_key=KEY)
    assert (rows_of(backend, ALICE), backend.accounts()[ALICE]) == (before, owner)


def test_a_ring_that_is_lost_under_a_reader_is_an_error(backend: Backend) -> None:
    owner = backend.open_store(ALICE, pickle_key=KEY)
    reader = backend.open_store(ALICE, Mode.READ, pickle_key=KEY)
    owner.apply(Changes([SyncToken("s1")]))
    without_ring(backend)
    with pytest.raises(UnreadableRecord, match="the key ring of"):
        reader.get(SyncToken, [()])


def test_an_old_copy_of_the_ring_under_an_open_store_is_refused(backend: Backend) -> None:
    saved(backend, SyncToken("s1"))
    before = {key: rows_of(backend, ALICE)[key] for key in RING_KEYS}
    old_token = rows_of(backend, ALICE)[encode_key(SyncToken, ())]
    rekey(backend, ALICE, KEY, KEY)
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as reader:
        rows_of(backend, ALICE).update(before | {encode_key(SyncToken, ()): old_token})
        with pytest.raises(UnreadableRecord, match="is older than the one that this store uses"):
            reader.get(SyncToken, [()])


def test_another_accounts_ring_opens_nothing(backend: Backend) -> None:
    saved(backend, SyncToken("s1"))
    saved(backend, SyncToken("s1"), account=BOB)
    for key in RING_KEYS:
        plant(backend, ALICE, key, rows_of(backend, BOB)[key])
    with pytest.raises((UnreadableRecord, WrongPickleKey)):
        backend.open_store(ALICE, pickle_key=KEY)


def test_a_take_over_in_between_is_noticed() -> None:
    """The pickle key is changed between the look at the account and its take-over."""
    shared = MemoryDatabase()

    class Interrupted(MemoryHandle):
        def take_over(self, user_id: str, device_id: str, claim: TakeOver, timeout: float) -> AccountRow:
            with Backend(MemoryHandle(shared), name="other") as other:
                other.delete_account(ALICE)
                other.open_store(ALICE, pickle_key=OTHER_KEY).apply(Changes([SyncToken("s")]))
            return super().take_over(user_id, device_id, claim, timeout)

    with Backend(MemoryHandle(shared), name="first") as first:
        saved(first, SyncToken("s1"))
    with Backend(Interrupted(shared), name="interrupted") as backend, pytest.raises(WrongPickleKey):
        backend.open_store(ALICE, pickle_key=KEY)


def test_an_account_that_cannot_be_read_is_left_out_of_the_list(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    saved(backend, SyncToken("s"))
    assert isinstance(backend.database, MemoryHandle)
    accounts = backend.database.shared.accounts
    accounts["", "D"] = AccountRow(1, "", "D", 1, 1, 1, "o", 0)
    accounts["@late:x", "D"] = AccountRow(2, "@late:x", "D", 1, 1, 1, "o", 2**63 - 1)
    accounts["@half:x", "D"] = AccountRow(3, "@half:x", "D", 0, 0, 0, "", 0)
    with caplog.at_level(logging.WARNING):
        assert list(backend.accounts()) == [ALICE]
        listing = backend.listing()
    assert (list(listing.accounts), *listing[1:]) == ([ALICE], 3, [Account("@half:x", "D")])
    for why in ("InvalidRecord", "ValueError", "the ownership of @half:x D is missing"):
        assert caplog.text.count(f"skipped an unreadable account ({why})") == 1


def test_the_list_of_accounts_is_one_list_and_is_tried_again() -> None:
    """What is deleted while it is made was not unreadable."""
    calls: list[float] = []

    class Deleting(MemoryHandle):
        def accounts(self, timeout: float) -> list[AccountRow]:
            calls.append(timeout)
            if len(calls) == 1:
                raise BackendUnavailable("it is away")
            rows = super().accounts(timeout)
            deleting.delete_account(BOB)
            return rows

    with Backend(Deleting(MemoryDatabase()), name="deleting", deadline=3.0) as deleting:
        for account in (ALICE, BOB):
            saved(deleting, SyncToken("s"), account=account)
        listing = deleting.listing()
    assert (list(listing.accounts), listing.left_out) == ([ALICE, BOB], 0)
    assert len(calls) == 2
    assert max(calls) <= 3.0


def test_an_owner_can_ask_whether_it_still_is(backend: Backend) -> None:
    owner = backend.open_store(ALICE, pickle_key=KEY)
    owner.apply(Changes([SyncToken("s1")]))
    owner.check_ownership()
    assert isinstance(backend.database, MemoryHandle)
    accounts = backend.database.shared.accounts
    [(name, row)] = accounts.items()
    accounts[name] = row._replace(sequence=0)
    with pytest.raises(DatabaseWentBack):
        owner.check_ownership()
    accounts[name] = row._replace(epoch=row.epoch - 1)
    with pytest.raises(DatabaseWentBack):
        owner.check_ownership()
    accounts[name] = row
    backend.open_store(ALICE, pickle_key=KEY)
    with pytest.raises(FencedOut):
        owner.check_ownership()
    backend.delete_account(ALICE)
    with pytest.raises(AccountNotFound):
        owner.check_ownership()
