"""Shared backends, closing without being asked to, batches, and what waits while the database is away."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest
from nio.crypto import OlmAccount, OlmDevice

from cryptostore import (
    AccountRow,
    BackendUnavailable,
    Batch,
    Device,
    FencedOut,
    InboundGroupSession,
    StorageFull,
    StoreClosed,
    SyncToken,
    WrongPickleKey,
)
from cryptostore.nio import NioStore, storage
from cryptostore.records.fields import DeviceTrust
from cryptostore.store.memory import MemoryHandle
from cryptostore_contract.samples import ALICE, BOB, KEY
from nio_places import ROOM, Counted, Ours, Ratchet


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[MemoryHandle]:
    """The in-memory backends that were closed."""
    closed: list[MemoryHandle] = []
    close = MemoryHandle.close

    def watched(backend: MemoryHandle) -> None:
        closed.append(backend)
        close(backend)

    monkeypatch.setattr(MemoryHandle, "close", watched)
    return closed


def test_clients_on_one_url_share_a_backend_that_closes_with_the_last(
    in_memory: Ours, closed: list[MemoryHandle]
) -> None:
    one, other = in_memory.open(ALICE), in_memory.open(BOB)
    assert len(storage.backends._shared) == 1
    one.close()
    one.close()
    assert not closed
    other.save_account(OlmAccount())
    other.close()
    assert len(closed) == 1
    assert not storage.backends._shared


def test_a_store_that_nobody_closes_is_closed_when_it_is_forgotten(memory_url: str, closed: list[MemoryHandle]) -> None:
    sessions = NioStore(ALICE.user_id, ALICE.device_id, memory_url, KEY).load_inbound_group_sessions()
    gc.collect()
    assert not closed
    assert list(sessions) == []
    del sessions
    gc.collect()
    assert len(closed) == 1


def test_a_store_that_nobody_closes_is_closed_when_the_process_ends(tmp_path: Path) -> None:
    program = (
        "import sys; from cryptostore.nio import NioStore; from nio.crypto import Olm\n"
        "store = NioStore('@alice:example.org', 'DEVICE', *sys.argv[1:])\n"
        "olm = Olm('@alice:example.org', 'DEVICE', store)\n"
    )
    url = f"sqlite:///{tmp_path}/keys.db"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, url, KEY], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    # SQLite removes its journal with the last connection that is closed in good order.
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith("-wal")] == []


def test_a_refused_opening_gives_the_backend_back(in_memory: Ours, closed: list[MemoryHandle]) -> None:
    store = in_memory.open()
    store.save_account(OlmAccount())
    in_memory.close(store)
    before = len(closed)
    with pytest.raises(WrongPickleKey):
        in_memory.open(pickle_key="another key")
    assert len(closed) == before + 1
    assert not storage.backends._shared


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[type[BaseException]]:
    """What the next commits in memory raise before anything is stored."""
    failures: list[type[BaseException]] = []
    commit = MemoryHandle.commit

    def commit_or_fail(self: MemoryHandle, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        if failures:
            raise failures.pop()("the test says so")
        return commit(self, account_id, batch, timeout)

    monkeypatch.setattr(MemoryHandle, "commit", commit_or_fail)
    return failures


@pytest.mark.parametrize("error", [BackendUnavailable, StorageFull])
def test_what_could_not_be_saved_goes_with_the_next_save(
    memory_url: str, failures: list[type[BaseException]], error: type[Exception]
) -> None:
    place = Ours(f"{memory_url}?deadline=0.01")
    store, first, second = place.open(), Ratchet(), Ratchet()
    failures.append(error)
    with pytest.raises(error):
        store.save_inbound_group_session(first.inbound())
    assert place.stored(InboundGroupSession) == []
    assert first.found_in(store) is not None
    store.save_inbound_group_session(second.inbound())
    assert {row.session_id for row in place.stored(InboundGroupSession)} == {first.id, second.id}
    assert not store._group_sessions._sessions.pinned()
    place.close_all()


def test_what_waits_does_not_overwrite_what_was_saved_when_the_user_interrupted(
    memory_url: str, failures: list[type[BaseException]]
) -> None:
    place = Ours(f"{memory_url}?deadline=0.01")
    store = place.open()
    device = OlmDevice(BOB.user_id, "DEVICE", {"ed25519": "ed"})
    for decide, error in ((store.blacklist_device, BackendUnavailable), (store.verify_device, KeyboardInterrupt)):
        failures.append(error)
        with pytest.raises(error):
            decide(device)
    store.save_encrypted_rooms({ROOM})
    assert [row.trust for row in place.stored(Device)] == [DeviceTrust.VERIFIED]
    place.close_all()


def test_trust_that_could_not_be_saved_is_saved_by_the_next_attempt(
    memory_url: str, failures: list[type[BaseException]]
) -> None:
    place = Ours(f"{memory_url}?deadline=0.01")
    store, device = place.open(), OlmDevice(BOB.user_id, "DEVICE", {"ed25519": "ed"})
    failures.append(BackendUnavailable)
    with pytest.raises(BackendUnavailable):
        store.blacklist_device(device)
    store.blacklist_device(device)
    assert place.reopen(store).is_device_blacklisted(device)
    place.close_all()


def test_a_batch_is_stored_whole_when_its_block_ends(ours: Ours) -> None:
    store, ratchets = ours.open(), [Ratchet() for _ in range(3)]
    with store.batch():
        store.save_sync_token("s1")
        for ratchet in ratchets:
            store.save_inbound_group_session(ratchet.inbound())
        assert ours.stored(InboundGroupSession) == []
        assert all(ratchet.found_in(store) for ratchet in ratchets)
        store.save_encrypted_rooms({ROOM})
    assert len(ours.stored(InboundGroupSession)) == 3
    assert ours.stored(SyncToken) == [SyncToken("s1")]


def test_a_batch_that_raises_drops_the_token_and_keeps_the_rest(in_memory: Ours) -> None:
    store, ratchet = in_memory.open(), Ratchet()

    def handle_half_a_sync() -> None:
        store.save_sync_token("s1")
        store.save_inbound_group_session(ratchet.inbound())
        raise RuntimeError

    with pytest.raises(RuntimeError), store.batch():
        handle_half_a_sync()
    store.save_encrypted_rooms({ROOM})
    assert [row.session_id for row in in_memory.stored(InboundGroupSession)] == [ratchet.id]
    assert in_memory.stored(SyncToken) == []


def test_a_fenced_store_keeps_saying_so(in_memory: Ours) -> None:
    older = in_memory.open()
    in_memory.open()
    for _ in range(2):
        with pytest.raises(FencedOut):
            older.save_encrypted_rooms({ROOM})


def test_a_closed_store_refuses_everything(in_memory: Ours) -> None:
    store = in_memory.open()
    store.close()
    for call in (store.load_sync_token, store.load_encrypted_rooms, store.load_outgoing_key_requests):
        with pytest.raises(StoreClosed):
            call()
    with pytest.raises(StoreClosed):
        store.save_inbound_group_session(Ratchet().inbound())


def test_an_unchanged_account_is_not_written_again(in_memory: Ours, counted: Counted) -> None:
    store, account = in_memory.open_new(), OlmAccount()
    for _ in range(2):
        store.save_account(account)
    assert len(counted.batches) == 1
    account.generate_one_time_keys(1)
    store.save_account(account)
    assert len(counted.batches) == 2


def test_nothing_to_save_costs_nothing(in_memory: Ours, counted: Counted) -> None:
    store = in_memory.open()
    counted.batches.clear()
    store.save_sync_token("s1")
    store.save_encrypted_rooms(set())
    assert len(counted.batches) == 1
    counted.batches.clear()
    store.save_encrypted_rooms(set())
    store.save_device_keys({})
    store.ignore_devices([])
    assert counted.batches == []
