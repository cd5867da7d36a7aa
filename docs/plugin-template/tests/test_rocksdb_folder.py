"""What the contract cannot know of: RocksDB's folder, its lock and its log."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from rocksdict import Options, Rdict, WriteBatch, WriteOptions

from cryptostore import (
    Account,
    BackendUnavailable,
    Changes,
    ConfigurationError,
    CryptoStoreError,
    Mode,
    StorageFull,
    StoreClosed,
    SyncToken,
    new_pickle_key,
    open_backend,
    open_existing,
)
from cryptostore_contract import limited_files
from cryptostore_rocksdb.engine import release, shared
from cryptostore_rocksdb.errors import mapped_errors
from cryptostore_rocksdb.schema import CURRENT, file_of

ALICE = Account("@alice:example.org", "ALICEDEVICE")
KEY = new_pickle_key()

#: A process that has the database open until its standard input ends.
HOLDER = """
import sys
from cryptostore import open_backend

with open_backend(sys.argv[1]):
    print("open", flush=True)
    sys.stdin.read()
"""

#: A process that ends without closing the database, so that its batches are in RocksDB's log alone.
KILLED_WRITER = """
import os, sys
from cryptostore import Account, Changes, SyncToken, open_backend

store = open_backend(sys.argv[1]).open_store(Account("@alice:example.org", "ALICEDEVICE"), pickle_key="KEY")
for token in sys.argv[2:]:
    store.apply(Changes([SyncToken(token)]))
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def url(folder: Path) -> str:
    return f"rocksdb:///{folder}"


def write_tokens(url: str, *tokens: str) -> None:
    with open_backend(url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        for token in tokens:
            store.apply(Changes([SyncToken(token)]))


def token_in(url: str) -> str:
    with open_backend(url) as backend, backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        return store.get(SyncToken, [()])[()].token


def log_of_a_killed_writer(url: str, folder: Path, *tokens: str) -> Path:
    ended = subprocess.run(
        [sys.executable, "-c", KILLED_WRITER.replace("KEY", KEY), url, *tokens], capture_output=True, check=False
    )
    assert ended.returncode == -9, ended.stderr
    [log] = folder.glob("*.log")
    return log


def test_another_process_waits_for_the_lock_and_is_told_why(url: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(BackendUnavailable, match=r"open in another process.*database of its own"):
            open_backend(url, deadline=0.3)
        holder.kill()
    write_tokens(url, "after the other process")


def test_a_close_waits_for_no_use_and_the_end_of_the_last_use_closes(url: str, folder: Path) -> None:
    engine = shared(folder, 10)
    with engine.using(10):
        release(engine)
        with pytest.raises(BackendUnavailable, match="open in another process"):
            open_backend(url, deadline=0.1)
    with pytest.raises(StoreClosed), engine.using(10):
        raise AssertionError("it was closed")
    write_tokens(url, "after the last user")


def test_a_new_folder_is_private(url: str, folder: Path) -> None:
    write_tokens(url, "token")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_two_names_of_one_folder_are_one_database(url: str, folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    with open_backend(url) as backend:
        link.symlink_to(folder)
        # RocksDB itself takes them for two, and would let this process open the folder twice.
        write_tokens(f"rocksdb:///{link}", "through the link")
        assert list(backend.accounts()) == [ALICE]


@pytest.mark.parametrize("is_there", [False, True])
def test_a_database_that_is_not_there_is_not_made_for_a_command_that_looks(
    url: str, folder: Path, is_there: bool
) -> None:
    if is_there:
        folder.mkdir()
    with pytest.raises(ConfigurationError, match=r"there is no database in .*create=auto"):
        open_existing(url)
    assert not is_there or list(folder.iterdir()) == []
    assert folder.exists() == is_there
    write_tokens(url, "token")
    open_existing(url).close()


def test_an_option_that_is_misspelt_is_named(url: str) -> None:
    with pytest.raises(ConfigurationError, match="'create' must be"):
        open_backend(f"{url}?create=no")


def test_a_folder_with_other_files_is_left_alone(url: str, folder: Path) -> None:
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"a picture")
    with pytest.raises(ConfigurationError, match="holds other files"):
        open_backend(url)
    assert [entry.name for entry in folder.iterdir()] == ["holiday.jpg"]


@pytest.mark.parametrize("made", [[], [file_of(CURRENT)]])
def test_a_first_start_that_was_killed_is_gone_on_with(url: str, folder: Path, made: list[str]) -> None:
    folder.mkdir()
    for name in made:
        (folder / name).touch()
    write_tokens(url, "token")
    assert token_in(url) == "token"


def test_a_missing_parent_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="missing/keys"):
        open_backend(f"rocksdb:///{tmp_path}/missing/keys")


@pytest.mark.parametrize(
    "wrong", ["rocksdb:keys", "rocksdb://keys", "rocksdb:///", "rocksdb:///keys#1", "rocksdb:///%00"]
)
def test_a_url_without_a_folder_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="three slashes"):
        open_backend(wrong)


def test_a_database_without_its_version_is_an_error(url: str, folder: Path) -> None:
    write_tokens(url, "token")
    (folder / file_of(CURRENT)).unlink()
    with pytest.raises(ConfigurationError, match="restore this one"):
        open_backend(url)


def test_a_database_that_cannot_be_opened_is_left_to_others(url: str, folder: Path) -> None:
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"a picture")
    with pytest.raises(ConfigurationError):
        open_backend(url)
    (folder / "holiday.jpg").unlink()
    write_tokens(url, "token")


def test_a_log_that_is_cut_off_loses_its_last_batch_only(url: str, folder: Path) -> None:
    log = log_of_a_killed_writer(url, folder, "first", "second")
    os.truncate(log, log.stat().st_size - 3)
    assert token_in(url) == "first"


def test_a_log_that_is_damaged_in_the_middle_is_an_error(url: str, folder: Path) -> None:
    log = log_of_a_killed_writer(url, folder, "first", "second", "third")
    written = bytearray(log.read_bytes())
    written[len(written) // 2] ^= 1
    log.write_bytes(written)
    with pytest.raises(ConfigurationError, match="damaged"):
        open_backend(url, deadline=1)


def test_a_database_that_could_not_be_opened_again_is_opened_by_a_later_use(url: str) -> None:
    with open_backend(url, deadline=1) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        with limited_files(0), pytest.raises(StorageFull):
            store.apply(Changes([SyncToken("too much")]))
        store.apply(Changes([SyncToken("later")]))
    assert token_in(url) == "later"


def test_what_rocksdb_refuses_is_no_open_outcome(folder: Path) -> None:
    contradictory = WriteOptions()
    contradictory.sync = True
    contradictory.disable_wal = True  # type: ignore[method-assign,assignment]  # the stub takes the property for a method
    rdict = Rdict(str(folder), Options(raw_mode=True))
    with pytest.raises(CryptoStoreError, match=r"\(Invalid argument\)") as caught, mapped_errors(folder):
        rdict.write(WriteBatch(raw_mode=True), contradictory)
    rdict.close()
    # A batch that is refused as BackendUnavailable would be sent again before every later one.
    assert type(caught.value) is CryptoStoreError
