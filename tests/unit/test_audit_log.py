"""The observer `audit`: lines that are added, durable, private, and missing from nowhere without a word."""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cryptostore import ConfigurationError, FencedOut, Mode, SyncToken, WrongPickleKey, new_pickle_key
from cryptostore.observing.audit import AuditLog
from cryptostore.plugins.observers import Observers
from cryptostore.records.changes import Changes
from cryptostore.store.backend import Backend
from cryptostore.store.memory import MemoryDatabase, MemoryHandle
from cryptostore.store.owners import default_owner
from cryptostore.store.rekeying import rekey
from example_records import ALICE

KEY, OTHER_KEY = new_pickle_key(), new_pickle_key()
EXPORTED = {"account": ALICE, "records": 3, "way": "export-keys", "destination": "keys.txt", "owner": "me"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def observers(file: Path) -> Observers:
    return Observers({"CRYPTOSTORE_AUDIT_LOG": str(file)})


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(each) for each in file.read_text().splitlines()]


def test_who_did_what_to_which_account_and_when(observers: Observers, file: Path) -> None:
    shared = MemoryDatabase()

    def notify(hook: str, **facts: Any) -> None:
        observers.notify(hook, facts)

    def opened(owner: str) -> Backend:
        return Backend(MemoryHandle(shared), name="memory", owner=owner, notify=notify)

    before = datetime.now(UTC)
    bot = opened("the bot").open_store(ALICE, pickle_key=KEY)
    bot.apply(Changes([SyncToken("s1")]))
    with pytest.raises(WrongPickleKey):
        opened("somebody").open_store(ALICE, Mode.READ, pickle_key=OTHER_KEY)
    command = opened("cryptostore rekey on host")
    rekey(command, ALICE, KEY, OTHER_KEY)
    with pytest.raises(FencedOut):
        bot.apply(Changes([SyncToken("s2")]))
    command.delete_account(ALICE)
    found = lines(file)
    assert all(before <= datetime.fromisoformat(each["time"]) <= datetime.now(UTC) for each in found)
    assert all(each["time"].endswith("+00:00") and each["process"] == default_owner() for each in found)
    assert {(each["user_id"], each["device_id"]) for each in found} == {(ALICE.user_id, ALICE.device_id)}
    by = "cryptostore rekey on host"
    assert [(each["event"], each["owner"], each.get("previous_owner"), each.get("error")) for each in found] == [
        ("store_opened", "the bot", "", None),
        ("open_failed", "somebody", None, "WrongPickleKey"),
        # With which pickle key.
        ("store_opened", by, "the bot", None),
        ("store_opened", by, "the bot", None),
        ("rekeyed", by, None, None),
        ("fenced", by, "the bot", None),
        ("account_deleted", by, None, None),
    ]
    assert [each["mode"] for each in found if each["event"] == "store_opened"] == ["own", "read", "own"]
    text = file.read_text()
    assert KEY not in text
    assert OTHER_KEY not in text


def test_only_its_owner_may_read_it(observers: Observers, file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_bytes() == b""


def test_lines_are_added_to_those_that_are_there_and_to_a_new_file_when_the_old_one_was_moved(
    observers: Observers, file: Path
) -> None:
    observers.notify("cryptostore_keys_exported", EXPORTED)
    Observers({"CRYPTOSTORE_AUDIT_LOG": str(file)}).notify("cryptostore_keys_exported", EXPORTED)
    assert len(lines(file)) == 2
    moved = file.rename(file.with_suffix(".1"))
    observers.notify("cryptostore_keys_exported", EXPORTED)
    assert (len(lines(moved)), len(lines(file))) == (2, 1)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_line_that_was_cut_short_spoils_no_other(observers: Observers, file: Path) -> None:
    file.write_text('{"time": "20')
    observers.notify("cryptostore_keys_exported", EXPORTED)
    torn, whole = file.read_text().splitlines()
    assert torn == '{"time": "20'
    assert json.loads(whole)["event"] == "keys_exported"


def test_threads_write_whole_lines(observers: Observers, file: Path) -> None:
    def write() -> None:
        for _ in range(20):
            observers.notify("cryptostore_keys_exported", EXPORTED)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(file)) == 80


def test_it_is_made_durable_with_its_name(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[bool] = []
    original = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    audit = AuditLog(file)
    assert flushed == [False, True]
    audit.cryptostore_event("keys_exported", EXPORTED)
    assert flushed == [False, True, False]


def test_a_file_that_cannot_be_written_is_an_error_at_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "missing"
    with pytest.raises(ConfigurationError, match=f"the audit log {folder}/a, .* cannot be written: No such file"):
        Observers({"CRYPTOSTORE_AUDIT_LOG": f"{folder}/a"})
    with pytest.raises(ConfigurationError, match="Is a directory"):
        Observers({"CRYPTOSTORE_AUDIT_LOG": str(tmp_path)})


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys.db"
    file.write_bytes(b"SQLite format 3\0")
    with pytest.raises(ConfigurationError, match=r"keys\.db, which CRYPTOSTORE_AUDIT_LOG names, is no audit log"):
        Observers({"CRYPTOSTORE_AUDIT_LOG": str(file)})
    assert file.read_bytes() == b"SQLite format 3\0"


def test_a_file_that_cannot_be_written_later_stops_nothing_and_the_log_has_the_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    observers = Observers({"CRYPTOSTORE_AUDIT_LOG": f"{folder}/audit.jsonl"})
    away = folder.rename(tmp_path / "away")
    observers.notify("cryptostore_keys_exported", EXPORTED)
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "cannot be written (No such file or directory); it lacks: " in record.getMessage()
    assert json.loads(record.getMessage().partition("lacks: ")[2])["way"] == "export-keys"
    away.rename(folder)
    observers.notify("cryptostore_keys_exported", EXPORTED)
    assert len(lines(folder / "audit.jsonl")) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="not verified: this system has no /dev/full")
def test_a_full_disk_stops_nothing_and_the_log_has_the_line(
    observers: Observers, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.unlink()
    file.symlink_to("/dev/full")
    observers.notify("cryptostore_keys_exported", EXPORTED)
    assert "cannot be written (No space left on device)" in caplog.text


def test_a_disk_that_takes_a_part_of_a_line(
    observers: Observers, file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, text: original(descriptor, text[:10]))
    observers.notify("cryptostore_keys_exported", EXPORTED)
    assert "cannot be written (No space left on device)" in caplog.text
    monkeypatch.undo()
    observers.notify("cryptostore_keys_exported", EXPORTED)
    assert json.loads(file.read_text().splitlines()[-1])["event"] == "keys_exported"


def test_what_no_auditor_asks_for_is_not_written(observers: Observers, file: Path) -> None:
    observers.notify(
        "cryptostore_batch_applied",
        {"account": ALICE, "records": 1, "size": 1, "seconds": 0.1, "retries": 0, "backend": "memory"},
    )
    assert lines(file) == []
