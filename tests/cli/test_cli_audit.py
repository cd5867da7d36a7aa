"""The audit log of commands: each runs in a process of its own, and writes down what it did and who it was."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nio.crypto import OlmAccount

from command_line import Run, run_process
from cryptostore import Account, Changes, FencedOut, Mode, RestoredAccount, WrongPickleKey, open_backend
from cryptostore.cli.exits import ExitCode
from cryptostore.nio import NioStore
from cryptostore.plugins.observers import observers
from nio_places import Ratchet
from told import Told, told

__all__ = ["told"]

ALICE = Account("@alice:example.org", "A")
OLD, NEW, PASSPHRASE = "the old secret", "the new secret", "the passphrase"


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Before there is a `.env` file: it is for the commands.
    observers()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", OLD)
    monkeypatch.setenv("PASS", PASSPHRASE)
    Path("new.key").write_text(NEW)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/keys.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@contextmanager
def owned(url: str) -> Iterator[NioStore]:
    """The store of a client that runs."""
    store = NioStore(ALICE.user_id, ALICE.device_id, url, OLD)
    store.save_account(OlmAccount())
    store.save_inbound_group_session(Ratchet().inbound())
    try:
        yield store
    finally:
        store.close()


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("audit.jsonl").read_text().splitlines()]


def test_commands_write_what_they_did_and_who_they_are(url: str, told: Told) -> None:
    Path(".env").write_text("CRYPTOSTORE_AUDIT_LOG=audit.jsonl\n")
    with owned(url) as store:
        assert run_process("show", url, env={"CRYPTOSTORE_PICKLE_KEY": "a guess"}).code == ExitCode.USAGE
        rekeyed = run_process("rekey", url, "--new-pickle-key-file", "new.key")
        assert rekeyed.code == 0, rekeyed.err
        with pytest.raises(FencedOut):
            store.save_inbound_group_session(Ratchet().inbound())
    # The client is told by whom, and has no audit log here.
    [(by, before)] = told.of("fenced", "owner", "previous_owner")
    deleted = run_process("delete", url, "--yes")
    assert deleted.code == 0, deleted.err
    found = lines()
    own = [each for each in found if each.get("mode") == "own" or each["event"] != "store_opened"]
    assert [(each["event"], re.sub(" on .*", "", each["owner"])) for each in own] == [
        ("open_failed", "cryptostore show"),
        ("store_opened", "cryptostore rekey"),
        ("rekeyed", "cryptostore rekey"),
        ("account_deleted", "cryptostore delete"),
    ]
    assert own[0]["error"] == "WrongPickleKey"
    assert (own[1]["owner"], own[1]["previous_owner"]) == (by, before)
    assert own[2]["records"] == 2
    assert len({each["process"] for each in found}) == 3
    text = Path("audit.jsonl").read_text()
    assert not [secret for secret in (OLD, NEW, "a guess") if secret in text]


def test_keys_that_leave_and_come(run: Run, tmp_path: Path, told: Told) -> None:
    source, copied = f"sqlite:///{tmp_path}/keys.db", f"sqlite:///{tmp_path}/copy.db"
    with owned(source):
        pass
    passed = ("--passphrase-env", "PASS")
    assert run("export-keys", "keys.txt", source, *passed).code == 0
    assert run("import-keys", "keys.txt", source, *passed, "--even-if-used").code == 0
    assert run("backup", "alice.backup", source, *passed).code == 0
    assert run("copy", source, copied).code == 0
    assert run("delete", source, "--yes").code == 0
    assert run("restore", "alice.backup", source, *passed).code == 0
    assert told.of("keys_exported", "account", "records", "way", "destination") == [
        (ALICE, 1, "export-keys", "keys.txt"),
        (ALICE, 2, "backup", "alice.backup"),
        (ALICE, 4, "copy", copied),
    ]
    assert told.of("keys_imported", "account", "way", "source") == [
        (ALICE, "import-keys", "keys.txt"),
        (ALICE, "restore", "alice.backup"),
    ]
    owners = told.of("keys_exported", "owner") + told.of("keys_imported", "owner")
    assert all(re.match(r"cryptostore [a-z-]+ on ", owner) for (owner,) in owners)
    assert told.of("account_moved", "source", "destination") == [(source, copied)]


def test_a_restore_that_lacks_its_last_step(run: Run, tmp_path: Path, told: Told) -> None:
    url, passed = f"sqlite:///{tmp_path}/keys.db", ("--passphrase-env", "PASS")
    with owned(url):
        pass
    assert run("backup", "alice.backup", url, *passed).code == 0
    assert run("delete", url, "--yes").code == 0
    assert run("restore", "alice.backup", url, *passed).code == 0
    with open_backend(url) as backend, backend.open_store(ALICE, pickle_key=OLD) as store:
        store.apply(Changes([RestoredAccount(datetime.now(UTC))]))
    ended = run("restore", "alice.backup", url, *passed)
    assert ended.code == 0
    assert "already, and was not made safe yet" in ended.out
    assert told.of("keys_imported", "records", "way") == [(2, "restore")] * 2


def test_an_audit_log_that_cannot_be_written_is_an_error_before_anything_is_done(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/keys.db"
    with owned(url):
        pass
    environment = {"CRYPTOSTORE_AUDIT_LOG": f"{tmp_path}/missing/audit.jsonl"}
    ended = run_process("rekey", url, "--new-pickle-key-file", "new.key", "--json", env=environment)
    assert ended.code == ExitCode.USAGE
    assert ended.document["error"] == "ConfigurationError"
    assert "make its folder" in ended.document["message"]
    assert "Traceback" not in ended.err
    with open_backend(url) as backend:
        backend.open_store(ALICE, Mode.READ, pickle_key=OLD).close()
        with pytest.raises(WrongPickleKey):
            backend.open_store(ALICE, Mode.READ, pickle_key=NEW)
