"""Who has the key of an outbound session: written once, read when it is asked for, gone with the session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from nio.crypto import OutboundGroupSession

from cryptostore import Backend, Changes, SharedPart, open_backend
from cryptostore import OutboundGroupSession as Stored
from cryptostore.nio.client import outbound
from cryptostore.nio.client.buffer import BufferedStorage
from cryptostore.nio.client.outbound import OutboundSessions
from cryptostore.nio.client.rotations import Rotations
from cryptostore.nio.client.statistics import Statistics
from cryptostore.nio.pickles import Pickles
from cryptostore.store.keys import encode_own_key
from cryptostore.store.values import encode_value
from cryptostore_contract.samples import ALICE, KEY
from spoiling import put_rows, spoil, stored_rows

ROOM: Final = "!room:example.org"

Pair = tuple[str, str]


class Sender:
    """A client's outbound sessions on an open account."""

    def __init__(self, backend: Backend) -> None:
        store = backend.open_store(ALICE, pickle_key=KEY)
        self.statistics = Statistics()
        self.storage = BufferedStorage(store, lambda: None, self.statistics)
        self.storage.attach(lambda: None)
        self.outbound = OutboundSessions(self.storage, Pickles(ALICE), Rotations(self.storage))

    def begin(self, *pairs: Pair, ignored: tuple[Pair, ...] = (), room: str = ROOM) -> OutboundGroupSession:
        """A new session for the room, shared with these devices."""
        session = self.outbound.live[room] = OutboundGroupSession()
        session.users_shared_with |= set(pairs)
        session.users_ignored |= set(ignored)
        session.mark_as_shared()
        return session

    def flush(self) -> Changes:
        """As the flusher does it."""
        assert self.outbound.is_dirty
        batch = self.storage.take(self.outbound.collect())
        self.storage.apply_taken()
        self.storage.taken()
        assert not self.outbound.is_dirty
        return batch

    def is_used_again(self, *pairs: Pair) -> bool:
        """Whether the room's session of an earlier process is used again with these devices."""
        return self.outbound.judge(ROOM, set(pairs), self.outbound.read_shares(ROOM))


@contextmanager
def sender(url: str) -> Iterator[Sender]:
    with open_backend(url) as backend:
        yield Sender(backend)


def devices(count: int) -> list[Pair]:
    return [(f"@user{number // 3}:example.org", f"DEVICE{number}") for number in range(count)]


def size_of(batch: Changes) -> int:
    records = [record for kind in batch.kinds() for record in batch.puts(kind)]
    return sum(len(encode_own_key(record)) + len(encode_value(record)) for record in records)


def cost_of_a_message(url: str, recipients: int) -> int:
    with sender(url) as alice:
        alice.begin(*devices(recipients), ignored=tuple(devices(recipients // 10)))
        alice.flush()
        alice.outbound.live[ROOM].encrypt("hello")
        return size_of(alice.flush())


def test_a_message_costs_the_same_with_10_and_with_10_000_recipients(memory_url: str) -> None:
    few, many = cost_of_a_message(memory_url, 10), cost_of_a_message(f"{memory_url}-2", 10_000)
    assert many <= 1.2 * few


def test_a_flush_looks_at_the_sessions_that_were_used(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []
    state = outbound._state

    def counted(session: OutboundGroupSession) -> Any:
        looked_at.append(session.id)
        return state(session)

    with sender(memory_url) as alice:
        rooms = [f"!room{number}:example.org" for number in range(2_000)]
        for room in rooms:
            alice.begin(room=room)
        alice.flush()
        monkeypatch.setattr(outbound, "_state", counted)
        assert not alice.outbound.is_dirty
        assert looked_at == []
        used = alice.outbound.live[rooms[1_000]]
        used.encrypt("hello")
        del alice.outbound.live[rooms[0]]
        batch = alice.flush()
        assert [record.key for record in batch.puts(Stored)] == [(rooms[1_000],)]
        assert batch.deletes(Stored) == [(rooms[0],)]
        assert set(looked_at) == {used.id}


def test_a_part_is_written_once(url: str) -> None:
    with sender(url) as alice:
        alice.begin(*devices(120), ignored=(("@eve:example.org", "EVE"),))
        assert len(alice.flush().puts(SharedPart)) == 3
        written = stored_rows(url, ALICE, SharedPart)
        alice.outbound.live[ROOM].encrypt("hello")
        assert alice.flush().kinds() == [Stored]
        alice.outbound.live[ROOM].users_shared_with.add(("@late:example.org", "LATE"))
        (part,) = alice.flush().puts(SharedPart)
        assert isinstance(part, SharedPart)
        assert (part.part, part.shared_with) == (3, frozenset({("@late:example.org", "LATE")}))
        assert stored_rows(url, ALICE, SharedPart)[:3] == written


def test_a_restart_reads_parts_only_when_the_session_is_judged(url: str) -> None:
    pairs = devices(120)
    with sender(url) as alice:
        session = alice.begin(*pairs, ignored=(("@eve:example.org", "EVE"),))
        session.encrypt("hello")
        alice.flush()
    with sender(url) as alice:
        (restored,) = alice.outbound._restored.values()
        assert (restored.users_shared_with, restored.users_ignored) == (set(), set())
        assert alice.is_used_again(*pairs)
        again = alice.outbound.live[ROOM]
        assert (again.id, again.message_index) == (session.id, 1)
        assert again.users_shared_with == set(pairs)
        assert again.users_ignored == {("@eve:example.org", "EVE")}
        # Nothing of it is new.
        assert not alice.outbound.is_dirty
        again.encrypt("again")
        assert alice.flush().kinds() == [Stored]
        alice.outbound.note(ROOM)
        again.users_shared_with.add(("@late:example.org", "LATE"))
        assert [part.key[-1] for part in alice.flush().puts(SharedPart)] == [3]


@pytest.mark.parametrize("change", ["one more", "one less", "another"])
def test_a_session_that_others_have_is_not_used_again(memory_url: str, change: str) -> None:
    pairs = devices(60)
    expected = {"one more": devices(61), "one less": devices(59), "another": [*devices(59), ("@eve:x", "EVE")]}[change]
    with sender(memory_url) as alice:
        alice.begin(*pairs)
        alice.flush()
    with sender(memory_url) as alice:
        assert not alice.is_used_again(*expected)
        alice.flush()
    assert stored_rows(memory_url, ALICE, SharedPart) == stored_rows(memory_url, ALICE, Stored) == []


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("how", ["deleted", "damaged"])
def test_a_session_whose_devices_are_not_all_known_is_not_used_again(memory_url: str, how: str, number: int) -> None:
    pairs = devices(120)
    with sender(memory_url) as alice:
        alice.begin(*pairs)
        alice.flush()
        part = alice.storage.select(SharedPart, [()])[()][number]
        alice.storage._store.apply(Changes(deletes=[(SharedPart, part.key)] if how == "deleted" else []))
    if how == "damaged":
        row = stored_rows(memory_url, ALICE, SharedPart)[number]
        put_rows(memory_url, ALICE, row._replace(value=row.value[::-1]))
    with sender(memory_url) as alice:
        # As if the devices of that part had been blacklisted since: they have the key all the same.
        assert not alice.is_used_again(*set(pairs) - part.shared_with)
        alice.flush()
    assert stored_rows(memory_url, ALICE, SharedPart) == []


def test_parts_go_with_the_session_that_is_replaced_or_given_up(url: str) -> None:
    with sender(url) as alice:
        alice.begin(*devices(120))
        alice.begin(*devices(60), room="!other:example.org")
        alice.flush()
        assert len(stored_rows(url, ALICE, SharedPart)) == 5
        new = alice.begin(*devices(10))
        alice.flush()
        kept = alice.storage.select(SharedPart, [(ROOM,)])[ROOM,]
        assert [(part.session_id, part.part) for part in kept] == [(new.id, 0)]
        alice.outbound.live.clear()
        alice.flush()
    assert stored_rows(url, ALICE, SharedPart) == stored_rows(url, ALICE, Stored) == []


@pytest.mark.parametrize("are_parts_damaged", [False, True])
def test_parts_of_a_session_that_nobody_can_read_go_with_the_next_one(
    memory_url: str, *, are_parts_damaged: bool
) -> None:
    with sender(memory_url) as alice:
        alice.begin(*devices(120))
        alice.begin(*devices(10), room="!other:example.org")
        alice.flush()
    spoil(memory_url, ALICE, Stored)
    if are_parts_damaged:
        spoil(memory_url, ALICE, SharedPart)
    with sender(memory_url) as alice:
        assert not alice.outbound.is_restored(ROOM)
        assert not alice.outbound.is_dirty
        assert len(stored_rows(memory_url, ALICE, SharedPart)) == 4
        alice.begin(*devices(1))
        alice.flush()
        assert len(stored_rows(memory_url, ALICE, SharedPart)) == 2


def test_a_session_that_was_not_shared_yet_is_not_used_again(memory_url: str) -> None:
    with sender(memory_url) as alice:
        alice.begin(*devices(10)).shared = False
        alice.flush()
    with sender(memory_url) as alice:
        assert not alice.outbound.is_restored(ROOM)
        alice.flush()
    assert stored_rows(memory_url, ALICE, SharedPart) == []
