"""`cryptostore demo`, with real processes, real kills and real ratchets."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from command_line import Run, run_process
from cryptostore import Account, Changes, ConfigurationError, SyncToken, open_backend
from cryptostore.cli.demo import command
from cryptostore.cli.demo.audience import Audience
from cryptostore.cli.demo.checks import checks_of
from cryptostore.cli.demo.conversation import Conversation, Settings, planned_kills
from cryptostore.cli.demo.database import temporary_accounts
from cryptostore.cli.demo.processes import PartyFailed, exit_code_of_party
from cryptostore.cli.demo.relay import WINDOW, Relay
from cryptostore.cli.exits import ExitCode
from cryptostore_contract.samples import KEY
from databases_in_use import accounts_in
from fake_distributions import FakeSite

BYSTANDER = Account("@bystander:localhost", "PHONE")

#: A backend that keeps everything but Megolm sessions, and says nothing about it.
FORGETFUL = """
from cryptostore import BackendPlugin, FULL, INTERFACE_VERSION, Capability, InboundGroupSession, hookimpl
from cryptostore_sqlite.database import SQLiteDatabase
from cryptostore_sqlite.plugin import open_sqlite

durable_commit = SQLiteDatabase.commit

def commit(database, account_id, batch, timeout):
    kept = [row for row in batch.puts if row.key[0] != InboundGroupSession.kind_number]
    return durable_commit(database, account_id, batch._replace(puts=kept), timeout)

def open_forgetful(url, options, timeout):
    SQLiteDatabase.commit = commit
    return open_sqlite(url.replace("forgetful", "sqlite", 1), options, timeout)

@hookimpl
def cryptostore_backends():
    return [BackendPlugin("forgetful", INTERFACE_VERSION, open_forgetful, {Capability.SURVIVES_PROCESS_KILL: FULL})]
"""


def failed(document: Mapping[str, Any]) -> list[str]:
    return [check["name"] for check in document["checks"] if not check["passed"]]


def children_of(pid: int) -> list[int]:
    """The processes that a process started, as Linux tells them."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_no_message_is_lost_over_three_kills(tmp_path: Path) -> None:
    ended = run_process("demo", "--json", "--messages", "30", "--seed", "7", env={"TMPDIR": str(tmp_path)})
    assert ended.code == 0, ended.err
    document = ended.document
    assert document["passed"]
    assert failed(document) == []
    assert document["seed"] == 7
    assert len(document["kills"]) == 3
    assert all(kill["unacknowledged"] > 0 for kill in document["kills"])
    planned = planned_kills(Settings("", 3, 30, 7))
    assert [kill["microseconds"] for kill in document["kills"]] == [kill.microseconds for kill in planned]
    assert all(kill["acknowledged"] >= plan.acknowledged for kill, plan in zip(document["kills"], planned, strict=True))
    counts = {check["name"]: check["found"] for check in document["checks"]}
    assert counts["messages from Alice that Bob decrypted"] == 30
    assert counts["messages from Bob that Alice decrypted"] == 30
    assert counts["messages that fresh processes read at the end"] == 120
    assert counts["later starts that found the first identity"] == 5
    assert "seed 7" in ended.err
    assert list(tmp_path.iterdir()) == [], "the temporary database was left behind"


def test_a_seed_chooses_the_same_moments_again() -> None:
    settings = Settings("sqlite:///unused", 3, 30, 7)
    assert planned_kills(settings) == planned_kills(settings)
    assert planned_kills(settings) != planned_kills(settings._replace(seed=8))


@pytest.mark.parametrize("seed", range(20))
def test_every_kill_leaves_messages_for_the_next(seed: int) -> None:
    planned = planned_kills(Settings("sqlite:///unused", 4, 20, seed))
    for left, kill in zip((4, 3, 2, 1), planned, strict=True):
        assert kill.acknowledged <= 20 - left * WINDOW


def test_the_accounts_are_deleted_and_others_left_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/keys.db"
    with open_backend(url) as backend, backend.open_store(BYSTANDER, pickle_key=KEY) as store:
        store.apply(Changes([SyncToken("before")]))
        ownership = store.ownership
    ended = run_process("demo", "--store", url, "--messages", "5", "--kills", "1")
    assert ended.code == 0, ended.err
    assert "messages from Alice that Bob decrypted" in ended.out
    assert accounts_in(url) == [BYSTANDER]
    with open_backend(url) as backend:
        assert backend.accounts()[BYSTANDER].epoch == ownership.epoch


def test_no_message_is_lost_on_postgresql(postgres_url: str) -> None:
    ended = run_process("demo", "--json", "--messages", "20", "--kills", "2", "--store", postgres_url)
    assert ended.code == 0, ended.err
    assert failed(ended.document) == []
    assert accounts_in(postgres_url) == []


def test_an_interrupt_leaves_no_account_and_no_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/keys.db"
    # A shell starts what runs in the background with SIGINT ignored, and children inherit that.
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    arguments = [sys.executable, "-c", f"{heeding}; from cryptostore.cli import main; main()"]
    arguments += ["demo", "--store", url, "--messages", "500", "--kills", "100"]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr is not None
        # The first line tells the seed, the second the first kill: by then both parties run.
        lines = [demo.stderr.readline(), demo.stderr.readline()]
        parties = children_of(demo.pid)
        demo.send_signal(signal.SIGINT)
        _, rest = demo.communicate(timeout=120)
    assert "killed Bob" in lines[1]
    assert demo.returncode == 130
    assert "Traceback" not in rest
    assert accounts_in(url) == []
    assert parties
    assert [pid for pid in parties if Path(f"/proc/{pid}").exists()] == []


def test_a_relay_that_loses_a_room_key_fails_the_demo(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Losing(Relay):
        lost = 0

        def send_to_device(self, sender: str, messages: Mapping[str, Mapping[str, Any]]) -> None:
            self.lost += 1
            if self.lost != 3:
                super().send_to_device(sender, messages)

    monkeypatch.setattr(command, "Relay", Losing)
    ended = run("demo", "--json", "--messages", "12", "--kills", "0", "--store", f"sqlite:///{tmp_path}/keys.db")
    assert ended.code == ExitCode.CHECK_FAILED
    document = ended.document
    assert not document["passed"]
    assert "messages that fresh processes read at the end" in failed(document)


def test_a_relay_that_withholds_a_message_ends_the_demo(tmp_path: Path) -> None:
    class Withholding(Relay):
        def deliver(self, user_id: str) -> dict[str, Any]:
            delivery = super().deliver(user_id)
            if "bob" in user_id:
                delivery |= {"timeline": [], "to_device": [], "next_batch": "0"}
            return delivery

    settings = Settings(f"sqlite:///{tmp_path}/keys.db", 0, 3, 1, patience=3)
    accounts = [Account(f"@{name}:localhost", name) for name in ("alice", "bob")]
    relay = Withholding("!room:localhost", [account.user_id for account in accounts])
    story = command.play(settings, accounts, relay, Audience(3))
    assert story.stalled
    assert not checks_of(settings, story, relay)[0].passed
    assert not command.report(settings, story, relay, as_json=False)
    assert accounts_in(settings.url) == []


def test_a_store_that_forgets_fails_the_demo(site: FakeSite, tmp_path: Path) -> None:
    site.install("forgetful", {"cryptostore.backends": {"forgetful": "forgetful"}}, forgetful=FORGETFUL)
    url, seed = f"forgetful:///{tmp_path}/keys.db", 1
    # A Bob who is killed before his first message is durable has nothing to read again.
    assert planned_kills(Settings(url, kills=1, messages=10, seed=seed))[0].acknowledged > 0
    ended = run_process(
        *("demo", "--json", "--messages", "10", "--kills", "1", "--seed", seed, "--store", url),
        env={"PYTHONPATH": str(site.folder)},
    )
    assert ended.code == ExitCode.CHECK_FAILED, ended.err
    assert "messages that fresh processes read at the end" in failed(ended.document)
    assert "old messages that Bob read again after kills" in failed(ended.document)


#: SQLite, but only one process at a time, as an engine with a lock on its files is.
EXCLUSIVE = """
import fcntl
from cryptostore import BackendPlugin, BackendUnavailable, INTERFACE_VERSION, Capability, Claim, FULL, Support, hookimpl
from cryptostore_sqlite.database import SQLiteDatabase
from cryptostore_sqlite.given import path_of
from cryptostore_sqlite.plugin import open_sqlite

def open_exclusive(url, options, timeout):
    url = url.replace("exclusive", "sqlite", 1)
    lock = open(f"{path_of(url)}.lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BackendUnavailable("another process has it") from None
    database = open_sqlite(url, options, timeout)
    database.lock = lock
    return database

def close(database, close=SQLiteDatabase.close):
    close(database)
    database.lock.close()

SQLiteDatabase.close = close

@hookimpl
def cryptostore_backends():
    return [BackendPlugin("exclusive", INTERFACE_VERSION, open_exclusive, {
        Capability.SURVIVES_PROCESS_KILL: FULL,
        Capability.SEVERAL_PROCESSES: Claim(Support.UNSUPPORTED, "it locks its file"),
    })]
"""


def test_a_database_for_one_process_becomes_one_for_each_party(site: FakeSite, tmp_path: Path) -> None:
    site.install("exclusive", {"cryptostore.backends": {"exclusive": "exclusive"}}, exclusive=EXCLUSIVE)
    ended = run_process(
        *("demo", "--json", "--messages", "10", "--kills", "1", "--store", f"exclusive:///{tmp_path}/keys?deadline=9"),
        env={"PYTHONPATH": str(site.folder)},
    )
    assert ended.code == ExitCode.DONE, ended.err
    assert "Alice and Bob get a database each" in ended.err
    for party in ("alice", "bob"):
        assert accounts_in(f"sqlite:///{tmp_path}/keys-{party}") == []
    assert not (tmp_path / "keys").exists()


def test_a_database_that_ends_with_its_process_is_refused(run: Run) -> None:
    ended = run("demo", "--store", "memory://keys")
    assert ended.code == ExitCode.USAGE
    assert "keeps nothing beyond its process" in ended.err
    assert "Traceback" not in ended.err


def test_a_database_that_is_not_there_is_unavailable(run: Run) -> None:
    ended = run("demo", "--store", "postgresql://user:secret@127.0.0.1:1/none?deadline=1")
    assert ended.code == ExitCode.UNAVAILABLE
    assert "secret" not in ended.out + ended.err
    assert "Traceback" not in ended.err


def test_more_kills_than_messages_are_refused(run: Run) -> None:
    ended = run("demo", "--kills", "5", "--messages", "24")
    assert ended.code == ExitCode.USAGE
    assert "5 kills with messages in flight need 25 messages or more" in ended.err


def test_accounts_that_are_there_are_not_touched(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/keys.db"
    with open_backend(url) as backend:
        backend.open_store(BYSTANDER, pickle_key=KEY).close()
    with pytest.raises(ConfigurationError, match="is left alone"), temporary_accounts(url, [BYSTANDER]):
        pass
    assert accounts_in(url) == [BYSTANDER]


def test_a_partys_error_is_the_commands(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A database that fails under the parties alone: theirs is in a folder that is not there."""

    def elsewhere(settings: Settings, *others: Any) -> Any:
        return Conversation(settings._replace(url=f"sqlite:///{tmp_path}/missing/keys.db"), *others)

    monkeypatch.setattr(command, "Conversation", elsewhere)
    url = f"sqlite:///{tmp_path}/keys.db"
    ended = run("demo", "--store", url)
    assert ended.code == ExitCode.USAGE
    assert "stopped: ConfigurationError: " in ended.err
    assert "Traceback" not in ended.err
    assert accounts_in(url) == []


@pytest.mark.parametrize(("code", "expected"), [(2, 2), (3, 3), (4, 4), (1, 1), (-11, 1), (77, 1)])
def test_a_partys_exit_code_is_passed_on(code: int, expected: int) -> None:
    assert exit_code_of_party(PartyFailed("ended", code)) == expected
