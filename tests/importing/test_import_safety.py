"""The source stays as it is, the destination gets all or nothing, and no client falls between the two."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nio.crypto import OlmAccount

from cryptostore import (
    Account,
    Changes,
    ConfigurationError,
    CryptoStore,
    EncryptedRoom,
    FencedOut,
    InboundGroupSession,
    Mode,
    Record,
    StorageFull,
    open_backend,
)
from cryptostore.nio import NioStore
from cryptostore.nio.importing import ReadBackFailed
from cryptostore.nio.pickles import Pickles
from cryptostore.nio.wholeness import UNFINISHED_IMPORT
from databases_in_use import accounts_in
from nio_sources import ALICE, BOB, KEY, ROOM, Client, all_of, fingerprints, import_all

Apply = Callable[[CryptoStore, Changes], None]

#: An import that is killed in the middle of its third batch.
KILLED_IMPORT = """
import os, signal, sys
from pathlib import Path
from cryptostore_sqlite.database import SQLiteDatabase
from nio_sources import import_all

durable_commit = SQLiteDatabase.commit

def commit(database, account_id, batch, timeout):
    if batch.number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return durable_commit(database, account_id, batch, timeout)

SQLiteDatabase.commit = commit
import_all(Path(sys.argv[1]), sys.argv[2])
"""


def failing_at(number: int, action: Callable[[CryptoStore], None]) -> Apply:
    """An `apply` that does something else when it comes to the batch of that number."""
    apply = CryptoStore.apply

    def apply_or_fail(store: CryptoStore, changes: Changes) -> None:
        if store._sequence.last_committed + 1 == number:
            action(store)
        apply(store, changes)

    return apply_or_fail


def fill(client: Client, sessions: int) -> None:
    with client.store.database.atomic():
        for _ in range(sessions):
            client.received_session()


def test_the_source_is_not_changed(memory_url: str, alice: Client, folder: Path) -> None:
    alice.received_session()
    alice.close()
    before = fingerprints(folder)
    import_all(alice.path, memory_url)
    assert fingerprints(folder) == before


def test_a_write_ahead_log_is_read_and_not_changed(memory_url: str, alice: Client, folder: Path) -> None:
    """The file alone does not hold the last sessions; opening it in place would write beside it."""
    alice.store.database.execute_sql("PRAGMA journal_mode = WAL")
    alice.store.database.execute_sql("PRAGMA wal_autocheckpoint = 0")
    _, inbound = alice.received_session()
    before = fingerprints(folder)
    assert {"nio.db", "nio.db-wal"} <= before.keys()
    import_all(alice.path, memory_url)
    assert [session.session_id for session in all_of(memory_url, InboundGroupSession)] == [inbound.id]
    assert fingerprints(folder) == before


def test_a_write_ahead_log_of_a_killed_client(memory_url: str, alice: Client, folder: Path, tmp_path: Path) -> None:
    alice.store.database.execute_sql("PRAGMA journal_mode = WAL")
    _, inbound = alice.received_session()
    left_behind = tmp_path / "left"
    left_behind.mkdir()
    for name in ("nio.db", "nio.db-wal"):
        (left_behind / name).write_bytes((folder / name).read_bytes())
    before = fingerprints(left_behind)
    import_all(left_behind / "nio.db", memory_url)
    assert [session.session_id for session in all_of(memory_url, InboundGroupSession)] == [inbound.id]
    assert fingerprints(left_behind) == before


def test_an_unfinished_transaction_of_a_killed_client(memory_url: str, alice: Client, tmp_path: Path) -> None:
    """A journal beside the file says what to take back; that happens in a copy."""
    _, inbound = alice.received_session()
    alice.close()
    connection = sqlite3.connect(alice.path, isolation_level=None)
    connection.execute("PRAGMA cache_size = 0")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM megolminboundsessions")
    left_behind = tmp_path / "left"
    left_behind.mkdir()
    for file in alice.path.parent.iterdir():
        (left_behind / file.name).write_bytes(file.read_bytes())
    connection.close()
    assert (left_behind / "nio.db-journal").stat().st_size
    before = fingerprints(left_behind)
    import_all(left_behind / "nio.db", memory_url)
    assert [session.session_id for session in all_of(memory_url, InboundGroupSession)] == [inbound.id]
    assert fingerprints(left_behind) == before


def test_no_private_copy_is_left(
    memory_url: str, alice: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    alice.store.database.execute_sql("PRAGMA journal_mode = WAL")
    alice.received_session()
    import_all(alice.path, memory_url)
    assert list(temporary.iterdir()) == []


def test_a_source_that_changes_meanwhile(memory_url: str, alice: Client) -> None:
    """A client that runs on would use ratchets again that the database has already."""
    alice.received_session()
    with pytest.raises(ConfigurationError, match="was changed while it was read; stop the client"):
        import_all(alice.path, memory_url, advance=lambda: append_to(alice.path))
    assert accounts_in(memory_url) == []


def append_to(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0" * 4096)


def test_an_account_that_is_there_is_refused_with_all_others(url: str, alice: Client, bob: Client) -> None:
    fill(bob, 1)
    with open_backend(url) as backend, backend.open_store(BOB, pickle_key=KEY) as store:
        store.apply(Changes([EncryptedRoom(ROOM), an_olm_account(BOB)]))
        ownership = store.ownership
    with pytest.raises(ConfigurationError, match=f"{BOB} is in the database already and is left as it is"):
        import_all(alice.path, url)
    assert accounts_in(url) == [BOB]
    with open_backend(url) as backend:
        assert backend.accounts()[BOB].epoch == ownership.epoch
    assert all_of(url, EncryptedRoom, BOB) == [EncryptedRoom(ROOM)]
    assert all_of(url, InboundGroupSession, BOB) == []


def test_a_second_import_is_refused(url: str, alice: Client) -> None:
    import_all(alice.path, url)
    with pytest.raises(ConfigurationError, match="is in the database already"):
        import_all(alice.path, url)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_failure_leaves_nothing(
    memory_url: str, alice: Client, bob: Client, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever batch fails, of the second account too: none of the import's accounts stays."""
    fill(bob, 600)

    def no_room(store: CryptoStore) -> None:
        if store.account == BOB:
            raise StorageFull("no room")

    monkeypatch.setattr(CryptoStore, "apply", failing_at(number, no_room))
    with pytest.raises(StorageFull):
        import_all(alice.path, memory_url)
    assert accounts_in(memory_url) == []


def test_an_interrupt_leaves_nothing(memory_url: str, alice: Client) -> None:
    fill(alice, 3)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_all(alice.path, memory_url, advance=interrupt)
    assert accounts_in(memory_url) == []


def test_a_database_that_gives_back_less_is_noticed(
    memory_url: str, alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(alice, 3)
    apply = CryptoStore.apply

    def forget_one(store: CryptoStore, changes: Changes) -> None:
        sessions = changes.puts(InboundGroupSession)
        apply(store, Changes(sessions[1:]) if sessions else changes)

    monkeypatch.setattr(CryptoStore, "apply", forget_one)
    with pytest.raises(ReadBackFailed, match="3 records were stored and 2 are there"):
        import_all(alice.path, memory_url)
    assert accounts_in(memory_url) == []


def test_a_database_that_gives_back_something_else_is_noticed(
    memory_url: str, alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(alice, 1)
    apply = CryptoStore.apply

    def change_one(store: CryptoStore, changes: Changes) -> None:
        sessions: list[Any] = changes.puts(InboundGroupSession)
        apply(store, Changes([replace(each, session_key=b"another") for each in sessions]) if sessions else changes)

    monkeypatch.setattr(CryptoStore, "apply", change_one)
    with pytest.raises(ReadBackFailed, match="is not what was stored"):
        import_all(alice.path, memory_url)
    assert accounts_in(memory_url) == []


def test_a_client_that_takes_the_account_over_keeps_it(
    memory_url: str, alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(alice, 3)

    def take_over(store: CryptoStore) -> None:
        monkeypatch.undo()
        with open_backend(memory_url) as backend, backend.open_store(ALICE, pickle_key=KEY) as other:
            other.apply(Changes([EncryptedRoom("!theirs:example.org")]))

    monkeypatch.setattr(CryptoStore, "apply", failing_at(2, take_over))
    with pytest.raises(FencedOut):
        import_all(alice.path, memory_url)
    assert all_of(memory_url, EncryptedRoom) == [EncryptedRoom("!theirs:example.org")]


def test_a_killed_import_is_noticed_and_replaced(sqlite_url: str, alice: Client) -> None:
    """Until then no client may open the account: it would find no identity there, and make a new one."""
    fill(alice, 600)
    alice.close()
    support = str(Path(__file__).parents[1] / "support")
    killed = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({support!r})\n{KILLED_IMPORT}", alice.path, sqlite_url],
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert accounts_in(sqlite_url) == [ALICE]
    assert len(all_of(sqlite_url, InboundGroupSession)) == 500
    with pytest.raises(ConfigurationError, match=r"was interrupted.*run `cryptostore import-nio` again"):
        NioStore(ALICE.user_id, ALICE.device_id, sqlite_url, KEY)

    assert not import_all(alice.path, sqlite_url)
    assert len(all_of(sqlite_url, InboundGroupSession)) == 600
    store = NioStore(ALICE.user_id, ALICE.device_id, sqlite_url, KEY)
    assert store.load_account() is not None
    store.close()


def test_a_mark_is_no_license_to_delete_other_accounts(memory_url: str, alice: Client, bob: Client) -> None:
    """One account is half imported, the other in use: nothing is touched."""
    with open_backend(memory_url) as backend:
        with backend.open_store(ALICE, pickle_key=KEY) as store:
            store.apply(Changes([UNFINISHED_IMPORT]))
        with backend.open_store(BOB, pickle_key=KEY) as store:
            store.apply(Changes([EncryptedRoom(ROOM), an_olm_account(BOB)]))
    with pytest.raises(ConfigurationError, match=str(BOB)):
        import_all(alice.path, memory_url)
    assert accounts_in(memory_url) == [ALICE, BOB]
    assert still_marked(memory_url, ALICE)


def an_olm_account(account: Account) -> Record:
    return Pickles(account).account_record(OlmAccount())


def still_marked(url: str, account: Account) -> bool:
    with open_backend(url) as backend, backend.open_store(account, Mode.READ, pickle_key=KEY) as store:
        return bool(store.get(type(UNFINISHED_IMPORT), [UNFINISHED_IMPORT.key]))
