"""Commands that are killed at random moments: they are run again, and nothing is lost."""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from nio.crypto import OlmAccount

from command_line import Run
from cryptostore import (
    AccountElsewhere,
    Changes,
    InboundGroupSession,
    Key,
    Mode,
    Record,
    ReplayPage,
    RestoredAccount,
    WrongPickleKey,
    new_pickle_key,
    open_backend,
)
from cryptostore.nio import NioStore
from cryptostore.store import backup_file
from cryptostore.store.marks import MARK_KEY
from cryptostore.store.ring import RING_KEYS
from example_records import ALICE
from killed_commands import Left, killed, left, measured
from nio_places import Ratchet

KEY: Final = new_pickle_key()
NEW: Final = new_pickle_key()
#: So many that each command writes some batches, and so many that `prune` does.
SESSIONS: Final = 700
TO_PRUNE: Final = 3_100
ROOMS: Final = ("!0:x", "!1:x", "!2:x")

#: How many moments of each command on each database: a sample, and what it takes to trust them.
sampled = pytest.mark.parametrize("kills", [3, pytest.param(24, marks=[pytest.mark.soak, pytest.mark.timeout(1_800)])])


class Places(NamedTuple):
    """A database, and one of the other kind."""

    url: str
    other: str


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", KEY)
    monkeypatch.setenv("NEW_KEY", NEW)
    monkeypatch.setenv("PASSPHRASE", "a passphrase")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=["sqlite", "postgres"])
def places(request: pytest.FixtureRequest, tmp_path: Path, postgres_url: str) -> Places:
    sqlite_url = f"sqlite:///{tmp_path}/keys.db"
    return Places(sqlite_url, postgres_url) if request.param == "sqlite" else Places(postgres_url, sqlite_url)


def fill(url: str, number: int = SESSIONS) -> list[Record]:
    """Make an account with so many real sessions, each with a replay page."""
    store = NioStore(ALICE.user_id, ALICE.device_id, url, KEY)
    store.save_account(OlmAccount())
    with store.batch():
        for each in range(number):
            store.save_inbound_group_session(Ratchet(room=ROOMS[each % 3]).inbound())
    store.close()
    with open_backend(url) as backend, backend.open_store(ALICE, pickle_key=KEY) as opened:
        sessions = list(opened.scan(InboundGroupSession))
        pages = [ReplayPage(each.session_id, each.sender_key, 0, b"\x01", bytes(12)) for each in sessions]
        opened.apply(Changes(pages))
    return [*sessions, *pages]


def all_open(url: str, sessions: int, pickle_key: str, number: int, kills: int) -> bool:
    """Whether a new process finds everything: after the last kill, and in a long run after each."""
    return number < min(kills, 4) or left(url, pickle_key) == Left(0, sessions)


def sealed(url: str) -> dict[bytes, bytes]:
    with open_backend(url) as backend, backend.open_store(ALICE, Mode.READ) as store:
        return {key: value for key, value in store.stored_rows() if key not in (*RING_KEYS, MARK_KEY)}


def data_keys(url: str) -> set[bytes]:
    """The beginnings of sealed values, which name the data key."""
    return {value[:5] for value in sealed(url).values()}


def opens(url: str, pickle_key: str) -> bool:
    with open_backend(url) as backend, suppress(WrongPickleKey):
        backend.open_store(ALICE, Mode.READ, pickle_key=pickle_key).close()
        return True
    return False


def is_marked(url: str) -> bool:
    """Whether not all of it is there, or what was brought back is not safe yet."""
    with open_backend(url) as backend:
        if ALICE not in backend.accounts():
            return False
        try:
            with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
                found = store.get(RestoredAccount, [()]).get(())
                return found is not None and not found.is_disarmed
        except AccountElsewhere:
            return True


def keys_of(records: Iterable[Record], kind: type[Record], rooms: tuple[str, ...] = ROOMS) -> set[Key]:
    return {each.key for each in records if isinstance(each, kind) and getattr(each, "room_id", rooms[0]) in rooms}


@sampled
def test_a_copy(run: Run, places: Places, kills: int) -> None:
    """It goes there, and then back and forth."""
    draw = random.Random(seed := random.randrange(2**32))
    fill(places.url)
    before = sealed(places.url)
    ways = [(places.url, places.other), (places.other, places.url)]
    works = [measured(Path("report"), "copy", *way, "--watch", "0") for way in ways]
    between = 0
    moments = zip(*[work.moments(kills, draw) for work in works], strict=True)
    for number, there_and_back in enumerate(moments, 1):
        source, destination = ways[1 - number % 2]
        killed(there_and_back[1 - number % 2], "copy", source, destination, "--watch", "0")
        between += is_marked(destination)
        ended = run("copy", source, destination, "--watch", "0")
        assert ended.code == 0, (seed, ended)
        assert sealed(destination) == before, seed
        assert all_open(destination, SESSIONS, KEY, number, kills), seed
        with open_backend(source) as backend, pytest.raises(AccountElsewhere):
            backend.open_store(ALICE, pickle_key=KEY)
    assert between, seed


@sampled
def test_a_restore(run: Run, places: Places, kills: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The destination is emptied each time."""
    # A passphrase is stretched before anything is written.
    monkeypatch.setattr(backup_file, "COST", 10)
    draw = random.Random(seed := random.randrange(2**32))
    fill(places.url)
    before, words = sealed(places.url), ("restore", "a.backup", places.other, "--passphrase-env", "PASSPHRASE")
    assert run("backup", "a.backup", places.url, "--passphrase-env", "PASSPHRASE").code == 0
    work = measured(Path("report"), *words)
    between = 0
    for number, moment in enumerate(work.moments(kills, draw), 1):
        with open_backend(places.other) as backend:
            backend.delete_account(ALICE)
        killed(moment, *words)
        between += is_marked(places.other)
        ended = run(*words)
        # A kill after its last write leaves what is complete.
        assert ended.code == 0 or (moment[0] == work.writes - 1 and "is in" in ended.err), (seed, moment, ended)
        assert before.items() <= sealed(places.other).items(), seed
        assert all_open(places.other, SESSIONS, KEY, number, kills), seed
        assert not is_marked(places.other), seed
    assert between, seed


@sampled
def test_a_rekey(run: Run, places: Places, kills: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two pickle keys take turns."""
    draw = random.Random(seed := random.randrange(2**32))
    fill(places.url)
    before, words = sealed(places.url).keys(), ("rekey", places.url, "--new-pickle-key-env", "NEW_KEY")
    work = measured(Path("report"), *words)
    old, new, between = NEW, KEY, 0
    for number, moment in enumerate(work.moments(kills, draw), 1):
        monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", old)
        monkeypatch.setenv("NEW_KEY", new)
        (before_it,) = data_keys(places.url)
        killed(moment, *words)
        between += opens(places.url, new) and before_it in data_keys(places.url)
        ended = run(*words)
        assert ended.code == 0, (seed, ended)
        assert sealed(places.url).keys() == before, seed
        assert data_keys(places.url).isdisjoint({before_it}), seed
        assert len(data_keys(places.url)) == 1, seed
        assert all_open(places.url, SESSIONS, new, number, kills), seed
        assert not opens(places.url, old), seed
        old, new = new, old
    assert between, seed


@sampled
def test_a_prune(run: Run, places: Places, kills: int) -> None:
    """What it deletes is put back each time."""
    draw = random.Random(seed := random.randrange(2**32))
    words = ("prune", places.url, "--room", ROOMS[0], "--room", ROOMS[1], "--yes", "--watch", "0")
    records = fill(places.url, TO_PRUNE)
    kept = keys_of(records, InboundGroupSession, ROOMS[2:])
    work = measured(Path("report"), *words)
    between = 0
    for number, moment in enumerate(work.moments(kills, draw), 1):
        with open_backend(places.url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
            store.apply(Changes(records))
        killed(moment, *words)
        sessions, pages = stored_keys(places.url, InboundGroupSession), stored_keys(places.url, ReplayPage)
        assert kept <= sessions, seed
        # A session goes with its replay page, or a message could be decrypted twice.
        assert {key[1] for key in sessions} == {key[0] for key in pages}, seed
        between += len(kept) < len(sessions) < TO_PRUNE
        assert run(*words).code == 0, seed
        assert stored_keys(places.url, InboundGroupSession) == kept, seed
        assert all_open(places.url, len(kept), KEY, number, kills), seed
    assert between, seed


def stored_keys(url: str, kind: type[Record]) -> set[Key]:
    with open_backend(url) as backend, backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        return set(store.keys(kind))
