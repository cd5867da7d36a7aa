"""The look at an account before it is taken over, and asking later whether it is still ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from clock import AttemptsClock, clock
from cryptostore import (
    AccountNotFound,
    AccountRow,
    Backend,
    BackendUnavailable,
    Changes,
    CryptoStore,
    CryptoStoreError,
    DatabaseWentBack,
    FencedOut,
    Mode,
    Range,
    ReadOnlyStore,
    Row,
    StoreClosed,
    SyncToken,
    TakeOver,
    new_pickle_key,
)
from cryptostore.store import pickle_keys
from cryptostore.store.memory import MemoryDatabase, MemoryHandle
from example_records import ALICE

__all__ = ["clock"]

KEY = new_pickle_key()


class NotNowError(Exception):
    """What a look raises."""


@pytest.fixture
def database() -> MemoryDatabase:
    return MemoryDatabase()


@pytest.fixture
def backend(database: MemoryDatabase) -> Iterator[Backend]:
    with Backend(MemoryHandle(database), name="memory") as opened:
        yield opened


def test_a_new_owner_looks_at_the_account_before_it_takes_it_over(backend: Backend) -> None:
    seen: list[object] = []

    def look(found: CryptoStore | None) -> None:
        seen.append(found and (found.ownership.epoch, found.mode, found.get(SyncToken, [()])[()].token))

    with backend.open_store(ALICE, pickle_key=KEY, look=look) as store:
        store.apply(Changes([SyncToken("s1")]))
    assert backend.open_store(ALICE, pickle_key=KEY, look=look).ownership.epoch == 2
    assert seen == [None, (1, Mode.READ, "s1")]


@pytest.mark.parametrize("is_there", [False, True])
def test_what_a_look_raises_takes_nothing_over(backend: Backend, *, is_there: bool) -> None:
    def look(_: CryptoStore | None) -> None:
        raise NotNowError

    owner = backend.open_store(ALICE, pickle_key=KEY) if is_there else None
    with pytest.raises(NotNowError):
        backend.open_store(ALICE, pickle_key=KEY, look=look)
    if owner is None:
        assert not backend.accounts()
    else:
        owner.apply(Changes([SyncToken("still ours")]))


def test_what_was_looked_at_is_closed_with_the_look(backend: Backend) -> None:
    seen: list[CryptoStore] = []
    backend.open_store(ALICE, pickle_key=KEY).close()
    backend.open_store(ALICE, pickle_key=KEY, look=lambda found: seen.append(found) if found else None)
    with pytest.raises(StoreClosed):
        seen[0].get(SyncToken, [()])


class Slow(MemoryHandle):
    """A database that is away for the first seconds of each kind of call, and notes what each attempt may take."""

    def __init__(self, shared: MemoryDatabase, clock: AttemptsClock, away: Mapping[str, float]) -> None:
        super().__init__(shared)
        self.clock = clock
        self.away = dict(away)
        self.given: list[tuple[str, float]] = []

    def _wait(self, call: str, timeout: float) -> None:
        self.given.append((call, timeout))
        waited = min(timeout, self.away.get(call, 0))
        self.away[call] = self.away.get(call, 0) - waited
        self.clock.sleep(waited)
        if self.away[call]:
            raise BackendUnavailable("away")

    def find(self, user_id: str, device_id: str, timeout: float) -> AccountRow | None:
        self._wait("find", timeout)
        return super().find(user_id, device_id, timeout)

    def get(self, account_id: int, keys: Sequence[bytes], timeout: float) -> list[Row]:
        self._wait("get", timeout)
        return super().get(account_id, keys, timeout)

    def take_over(self, user_id: str, device_id: str, claim: TakeOver, timeout: float) -> AccountRow:
        self._wait("take_over", timeout)
        return super().take_over(user_id, device_id, claim, timeout)


@pytest.mark.parametrize(
    "away", [{"find": 9, "get": 9}, {"find": 5, "get": 3, "take_over": 5}, {"get": 99}, {"take_over": 99}], ids=str
)
def test_all_of_an_opening_has_one_deadline(
    database: MemoryDatabase, backend: Backend, clock: AttemptsClock, away: Mapping[str, float]
) -> None:
    backend.open_store(ALICE, pickle_key=KEY).apply(Changes([SyncToken("s1")]))
    began = clock.now
    with pytest.raises(BackendUnavailable):
        Backend(Slow(database, clock, away), name="memory", deadline=10).open_store(ALICE, pickle_key=KEY)
    assert clock.now - began <= 10


@pytest.mark.parametrize("is_there", [False, True])
def test_a_passphrase_and_a_look_take_nothing_of_the_databases_time(
    database: MemoryDatabase, backend: Backend, clock: AttemptsClock, monkeypatch: pytest.MonkeyPatch, *, is_there: bool
) -> None:
    monkeypatch.setattr(pickle_keys, "COST", 10)
    if is_there:
        backend.open_store(ALICE, pickle_key="a passphrase").apply(Changes([SyncToken("s1")]))
    stretched = pickle_keys.stretched

    def slow(*given: Any) -> bytes:
        clock.sleep(100)
        return stretched(*given)

    monkeypatch.setattr(pickle_keys, "stretched", slow)
    slow_database = Slow(database, clock, {})
    opened = Backend(slow_database, name="memory", deadline=10)
    opened.open_store(ALICE, pickle_key="a passphrase", look=lambda _found: clock.sleep(100))
    assert clock.now >= 1_200
    assert {timeout for _, timeout in slow_database.given} == {5}
    assert "take_over" in dict(slow_database.given)


@pytest.mark.parametrize("mode", Mode)
def test_a_first_batch_between_the_look_for_the_ring_and_the_look_for_rows_is_no_damage(
    backend: Backend, database: MemoryDatabase, mode: Mode
) -> None:
    owner = backend.open_store(ALICE, pickle_key=KEY)

    class Late(MemoryHandle):
        def page(self, account_id: int, within: Range, size: int, timeout: float) -> list[Row]:
            owner.apply(Changes([SyncToken("s1")]))
            return super().page(account_id, within, size, timeout)

    with Backend(Late(database), name="memory") as late:
        store = late.open_store(ALICE, mode, pickle_key=KEY)
        assert store.get(SyncToken, [()]) == {(): SyncToken("s1")}


def test_an_account_that_is_still_ours(backend: Backend) -> None:
    with backend.open_store(ALICE, pickle_key=KEY) as store:
        store.check_ownership()
        store.apply(Changes([SyncToken("s1")]))
        store.check_ownership()


def test_only_an_open_owner_may_ask(backend: Backend) -> None:
    owner = backend.open_store(ALICE, pickle_key=KEY)
    with pytest.raises(ReadOnlyStore):
        backend.open_store(ALICE, Mode.READ).check_ownership()
    owner.close()
    with pytest.raises(StoreClosed):
        owner.check_ownership()


@pytest.mark.parametrize(
    ("happened", "error"),
    [
        ({"epoch": 2, "incarnation": 1, "owner": "another"}, FencedOut),
        ({"incarnation": 1, "owner": "another"}, FencedOut),
        ({"epoch": 0}, DatabaseWentBack),
        ({"sequence": 0}, DatabaseWentBack),
        ({"id": 1}, AccountNotFound),
    ],
)
def test_an_account_that_is_not_ours_any_more(
    backend: Backend, database: MemoryDatabase, happened: dict[str, int | str], error: type[CryptoStoreError]
) -> None:
    with backend.open_store(ALICE, pickle_key=KEY) as store:
        store.apply(Changes([SyncToken("s1")]))
        name = (ALICE.user_id, ALICE.device_id)
        database.accounts[name] = database.accounts[name]._replace(**happened)  # type: ignore[arg-type]  # as they come
        with pytest.raises(error):
            store.check_ownership()


def test_an_account_that_was_deleted(backend: Backend) -> None:
    with backend.open_store(ALICE, pickle_key=KEY) as store:
        backend.delete_account(ALICE)
        with pytest.raises(AccountNotFound, match="was deleted"):
            store.check_ownership()
