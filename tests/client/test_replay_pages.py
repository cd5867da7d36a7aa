"""Which event used a message index: remembered in pages, over restarts, whatever a server sends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clock import Clock
from cryptostore import Account, Backend, BackendUnavailable, Changes, InboundGroupSession, ReplayPage, open_backend
from cryptostore.nio.client import replay
from cryptostore.nio.client.buffer import BufferedStorage
from cryptostore.nio.client.replay import ReplayProtection
from cryptostore.nio.client.statistics import Statistics
from cryptostore.store.memory import MemoryHandle
from cryptostore.store.rekeying import rekey
from cryptostore_contract.samples import ALICE, KEY, public_key, sample
from spoiling import put_rows, spoil, stored_rows

SESSION: Final = (public_key("session", 1), public_key("sender", 1))
#: What a row costs beside its key and value, twice the key among it: PostgreSQL's headers, in the table and the index.
ROW_OVERHEAD: Final = 100

Event = tuple[str, int]


class Reader:
    """A client's replay protection on an open account."""

    def __init__(self, backend: Backend, pickle_key: str = KEY) -> None:
        store = backend.open_store(ALICE, pickle_key=pickle_key)
        self.storage = BufferedStorage(store, lambda: None, Statistics())
        self.replays = ReplayProtection(self.storage, self.storage.replay_key)

    def use(self, index: int, event: Event, session: tuple[str, str] = SESSION) -> bool:
        return self.replays.use(session, index, *event)

    def flush(self) -> None:
        """As the flusher does it."""
        batch = self.storage.take(self.replays.collect())
        try:
            self.storage.apply_taken()
        except BaseException:
            self.storage.put_back()
            raise
        self.storage.taken()
        self.replays.settle(batch)


@contextmanager
def reader(url: str, pickle_key: str = KEY) -> Iterator[Reader]:
    """A client that is closed in good order."""
    with open_backend(url) as backend:
        opened = Reader(backend, pickle_key)
        yield opened
        opened.flush()


def event(number: int) -> Event:
    return f"$event{number}", number


def test_another_event_with_a_used_index_is_refused_after_a_restart(url: str) -> None:
    with reader(url) as first:
        assert all(first.use(index, event(index)) for index in range(130))
        assert not first.use(5, event(6))
        assert not first.use(5, ("$event5", 6))
        assert first.use(5, event(5))
    with reader(url) as second:
        assert not any(second.use(index, event(index + 1)) for index in range(130))
        assert all(second.use(index, event(index)) for index in range(130))
        assert second.use(130, event(131))
    pages = stored_rows(url, ALICE, ReplayPage)
    assert len(pages) == 3


ODD_KEYS: Final = ["", "\0", "\ud800", "\ud801", "k" * 256, "k" * 257]


def test_no_session_or_sender_is_too_odd(memory_url: str) -> None:
    sessions = [(odd, "curve") for odd in ODD_KEYS] + [("session", odd) for odd in ODD_KEYS]
    with reader(memory_url) as first:
        assert all(first.use(7, event(number), session) for number, session in enumerate(sessions))
    with reader(memory_url) as second:
        assert not any(second.use(7, event(number + 1), session) for number, session in enumerate(sessions))
        assert all(second.use(7, event(number), session) for number, session in enumerate(sessions))


def test_sessions_and_senders_are_told_apart(memory_url: str) -> None:
    sessions = [(session, sender) for session in ("one", "two") for sender in ("curve", "other curve")]
    for _ in range(2):
        with reader(memory_url) as opened:
            assert all(opened.use(7, event(number), session) for number, session in enumerate(sessions))


ODD: Final[list[Event]] = [
    ("", 0),
    ("$a", 2**70),
    ("$a", -1),
    ("$a", -(2**63)),
    ("\0", 1),
    ("$\ud800", 1),
    ("$\ud801", 1),
    ("$" + "x" * 300, 1),
    ("$" + "x" * 1_000_000, 1),
    ("$a", 10**5_000),
    # What a careless encoding would take for one and the same.
    ("1 $b", 1),
    ("$b", 11),
    ("1$b", 1),
    ("?", 1),
]


def test_no_event_is_too_odd(url: str) -> None:
    for _ in range(2):
        with reader(url) as opened:
            assert all(opened.use(index, odd) for index, odd in enumerate(ODD))
            for index in range(len(ODD)):
                assert [opened.use(index, odd) for odd in ODD] == [number == index for number in range(len(ODD))]


def test_a_time_that_is_a_whole_number_in_another_way(memory_url: str) -> None:
    with reader(memory_url) as opened:
        assert opened.use(0, ("$a", 1.0))  # type: ignore[arg-type]  # nio's schema takes it for an integer
        assert opened.use(0, ("$a", 1))


_SESSIONS: Final = [SESSION, (SESSION[0], public_key("sender", 2)), (public_key("session", 2), SESSION[1])]
_USES: Final = st.tuples(st.sampled_from(_SESSIONS), st.sampled_from([0, 1, 62, 63, 64, 127, 128]), st.integers(0, 2))


@given(st.lists(st.one_of(_USES, st.sampled_from(["flush", "restart", "crash"])), max_size=40))
def test_any_history_is_that_of_a_dictionary(steps: list[tuple[tuple[str, str], int, int] | str]) -> None:
    with open_backend("memory://") as database:
        model: dict[tuple[tuple[str, str], int], int] = {}
        durable = dict(model)
        opened = Reader(database)
        for step in steps:
            match step:
                case (session, index, number):
                    expected = model.setdefault((session, index), number) == number
                    assert opened.use(index, event(number), session) == expected
                case "crash":
                    opened, model = Reader(database), dict(durable)
                case _:
                    opened.flush()
                    durable = dict(model)
                    opened = Reader(database) if step == "restart" else opened


def test_a_page_is_written_only_with_what_was_on_it(memory_url: str) -> None:
    with reader(memory_url) as first:
        first.use(3, event(3))
    with reader(memory_url) as second:
        second.use(4, event(4))
    with reader(memory_url) as third:
        assert not third.use(3, event(4))
        assert not third.use(4, event(3))


def test_a_page_says_when_it_was_read_last(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(replay, "now", clock)
    first_day = (clock() - datetime.fromtimestamp(0, UTC)).days

    def read_again(index: int) -> tuple[bool, int]:
        """Whether it is written anew, and the day that is stored."""
        with reader(memory_url) as opened:
            assert opened.use(index, event(index))
            is_dirty = opened.replays.is_dirty
        with reader(memory_url) as opened:
            (page,) = opened.storage.select(ReplayPage, [()])[()]
        return is_dirty, page.used_on

    assert read_again(3) == (True, first_day)
    clock.passes(days=6)
    assert read_again(3) == (False, first_day)
    assert read_again(4) == (True, first_day + 6)
    clock.passes(days=7)
    assert read_again(3) == (True, first_day + 13)
    assert read_again(4) == (False, first_day + 13)


def test_a_page_that_cannot_be_read_counts_as_used_and_is_kept(url: str) -> None:
    with reader(url) as first:
        first.use(3, event(3))
        first.use(64, event(64))
    first_page, _ = stored_rows(url, ALICE, ReplayPage)
    damaged = first_page._replace(value=first_page.value[::-1])
    put_rows(url, ALICE, damaged)
    for _ in range(2):
        with reader(url) as opened:
            # Also the event that used it: the page cannot be read.
            assert not any(opened.use(index, event(index)) for index in range(64))
            assert opened.use(64, event(64))
            assert opened.use(65, event(65))
    assert stored_rows(url, ALICE, ReplayPage)[0] == damaged


@pytest.mark.parametrize(
    ("used", "events"),
    [(b"", b""), (bytes(8), b"x"), (bytes(7) + b"\1", b"short"), (bytes(7) + b"\3", bytes(12)), (bytes(9), b"")],
)
def test_a_page_that_makes_no_sense_counts_as_used(memory_url: str, used: bytes, events: bytes) -> None:
    with open_backend(memory_url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.apply(Changes([ReplayPage(*SESSION, 0, used, events)]))
        with reader(memory_url) as opened:
            assert not opened.use(0, event(0))
            assert not opened.use(1, event(1))


def test_what_could_not_be_saved_is_remembered_and_saved_later(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise BackendUnavailable("away")

    url = f"{memory_url}?deadline=0.01"
    with reader(url) as opened:
        opened.use(0, event(0))
        with monkeypatch.context() as patch:
            patch.setattr(MemoryHandle, "commit", away)
            with pytest.raises(BackendUnavailable):
                opened.flush()
        assert opened.use(1, event(1))
        assert not opened.use(0, event(1))
    with reader(url) as opened:
        assert not opened.use(0, event(1))
        assert not opened.use(1, event(0))


def test_what_is_used_during_a_flush_goes_with_the_next(memory_url: str) -> None:
    with reader(memory_url) as opened:
        opened.use(0, event(0))
        batch = opened.storage.take(opened.replays.collect())
        opened.use(1, event(1))
        opened.storage.apply_taken()
        opened.storage.taken()
        opened.replays.settle(batch)
        # As if many other pages had been used since.
        opened.replays._pages._recent.clear()
        assert not opened.use(1, event(2))
    with reader(memory_url) as opened:
        assert not opened.use(0, event(2))
        assert not opened.use(1, event(2))


def test_another_pickle_key_forgets_no_event(url: str) -> None:
    with reader(url) as opened:
        opened.use(0, event(0))
    with open_backend(url) as backend:
        rekey(backend, ALICE, KEY, "another key")
    with reader(url, "another key") as opened:
        assert opened.use(0, event(0))
        assert not opened.use(0, event(1))


def test_two_accounts_remember_one_event_by_different_bytes(memory_url: str) -> None:
    with open_backend(memory_url) as backend:
        keys = {backend.open_store(Account("@alice:x", device), pickle_key=KEY).replay_key for device in "AB"}
    assert len(keys) == 2


@pytest.mark.parametrize(("messages", "allowed"), [(100, 40), (5, 120)])
def test_a_message_costs_few_bytes(memory_url: str, messages: int, allowed: int) -> None:
    with reader(memory_url) as opened:
        for index in range(messages):
            opened.use(index, event(index))
    rows = stored_rows(memory_url, ALICE, ReplayPage)
    cost = sum(2 * len(row.key) + len(row.value) + ROW_OVERHEAD for row in rows)
    assert cost / messages <= allowed


@pytest.mark.parametrize("is_damaged", [False, True])
def test_pages_go_with_their_session(memory_url: str, *, is_damaged: bool) -> None:
    with reader(memory_url) as opened:
        for session in _SESSIONS:
            opened.use(0, event(0), session)
            opened.use(64, event(1), session)
    if is_damaged:
        spoil(memory_url, ALICE, ReplayPage)
    with open_backend(memory_url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.apply(store.session_deletion(sample(InboundGroupSession, session_id=SESSION[0], sender_key=SESSION[1])))
    assert len(stored_rows(memory_url, ALICE, ReplayPage)) == 4
