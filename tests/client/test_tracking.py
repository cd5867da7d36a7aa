"""Whose devices are followed: a flush looks at the users that were touched."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cryptostore import Changes, Record, TrackedUser, open_backend
from cryptostore.nio.client.buffer import BufferedStorage
from cryptostore.nio.client.statistics import Statistics
from cryptostore.nio.client.tracking import TrackedUsers
from cryptostore_contract.samples import ALICE, KEY

USERS = [f"@user{number}:example.org" for number in range(2_000)]


@pytest.fixture
def storage(memory_url: str) -> Iterator[BufferedStorage]:
    with open_backend(memory_url) as backend:
        store = backend.open_store(ALICE, pickle_key=KEY)
        store.apply(Changes([TrackedUser(user, False, 1) for user in USERS]))
        yield BufferedStorage(store, lambda: None, Statistics())


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    users: list[str] = []
    state = TrackedUsers._state

    def counted(self: TrackedUsers, user_id: str) -> tuple[bool, int] | None:
        users.append(user_id)
        return state(self, user_id)

    monkeypatch.setattr(TrackedUsers, "_state", counted)
    return users


def written(tracking: TrackedUsers) -> tuple[list[Record], list[object]]:
    assert tracking.is_dirty
    changes = tracking.collect()
    assert not tracking.is_dirty
    return changes.puts(TrackedUser), list(changes.deletes(TrackedUser))


def test_only_those_that_changed_are_looked_at(storage: BufferedStorage, looked_at: list[str]) -> None:
    tracking = TrackedUsers(storage, is_current=True)
    assert not tracking.is_dirty
    tracking.changed([USERS[3], "@stranger:example.org"])
    assert written(tracking) == ([TrackedUser(USERS[3], True, 2)], [])
    # As nio does when an answer came, and for a user who is new.
    tracking.outdated.remove(USERS[3])
    tracking.tracked.add("@new:example.org")
    puts, deletes = written(tracking)
    assert {record.key for record in puts} == {(USERS[3],), ("@new:example.org",)}
    assert deletes == []
    tracking.left([USERS[5]])
    assert written(tracking) == ([], [(USERS[5],)])
    assert set(looked_at) == {USERS[3], "@new:example.org", USERS[5]}


def test_after_another_token_everybody_is_asked_about(storage: BufferedStorage) -> None:
    tracking = TrackedUsers(storage, is_current=False)
    assert tracking.outdated == tracking.tracked == set(USERS)
    puts, deletes = written(tracking)
    assert (len(puts), deletes) == (len(USERS), [])
