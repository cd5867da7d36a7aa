"""`cryptostore contract` on a real server, which keeps none of its schemas."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from contract_command import interrupt, interrupt_over_an_orphan, run
from cryptostore import open_backend
from cryptostore_contract.places import place_for
from postgres_database import PASSWORD, PostgresDatabase

#: What a plug-in does to a case, so that it fails: an error says the URL, or a call ends that has it as an argument.
FAILURES = {
    "the URL's password was said": "secrets.error_of = lambda call: os.environ[URL_VARIABLE]",
    "ZeroDivisionError": "secrets.everything_said_of_urls = lambda url: 1 / 0",
}
IMPORTS = """
import os
from cryptostore_contract.cases import secrets
from cryptostore_contract.live import URL_VARIABLE
"""


def schemas(database: PostgresDatabase) -> list[str]:
    """Those that the command has made and not yet removed."""
    with database.connect() as connection:
        named = "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, 'cryptostore_contract_')"
        return [name for (name,) in connection.execute(named).fetchall()]


def test_the_cases_run_and_nothing_is_left(breakable_database: PostgresDatabase) -> None:
    ended = run(breakable_database.url("mine"), "--json")
    [contract] = json.loads(ended.stdout)["contracts"]
    assert (ended.returncode, contract["verdict"]) == (1, "INCOMPLETE")
    assert (contract["backend"], contract["counts"]["passed"]) == ("postgresql", 2)
    assert schemas(breakable_database) == []


@pytest.mark.parametrize("failure", FAILURES)
def test_a_case_that_fails_does_not_tell_the_password(
    breakable_database: PostgresDatabase, tmp_path: Path, failure: str
) -> None:
    (tmp_path / "failing.py").write_text(IMPORTS + FAILURES[failure])
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    env = {"PYTHONPATH": paths, "PYTEST_ADDOPTS": "-p failing -k logs_errors_or_reprs -l --tb=long"}
    ended = run(breakable_database.url("mine"), env=env)
    assert failure in ended.stdout
    for password in (PASSWORD, quote(PASSWORD), PASSWORD.encode().hex()):
        assert password not in ended.stdout + ended.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("processes", ["1", "2"])
def test_an_interrupt_leaves_nothing_behind(
    breakable_database: PostgresDatabase, processes: str, number: signal.Signals
) -> None:
    url = breakable_database.url("mine")
    assert interrupt(url, processes, number, lambda: schemas(breakable_database) != []) == 130
    assert schemas(breakable_database) == []


def test_a_child_of_a_process_that_was_killed_makes_nothing_after_the_end(breakable_database: PostgresDatabase) -> None:
    assert interrupt_over_an_orphan(breakable_database.url("mine")) == 130
    assert schemas(breakable_database) == []


def test_clearing_ends_no_session_of_its_own(breakable_database: PostgresDatabase) -> None:
    """A pooler may give it one that has the name of those that are to be ended."""
    place = place_for(f"{breakable_database.url('mine')}&application_name=cryptostore_contract_run", "run")
    open_backend(place.new_url()).close()
    place.clear()
    assert schemas(breakable_database) == []


def test_what_the_server_has_not_finished_for_a_process_that_is_gone_is_not_left(
    breakable_database: PostgresDatabase,
) -> None:
    """Its schema is not there to be dropped before the transaction is over."""
    place = place_for(breakable_database.url("mine"), "run")
    url, _, schema = place.new_url().rpartition("&schema=")
    with psycopg.connect(url) as unfinished:
        unfinished.execute(f"CREATE SCHEMA {schema}")
        place.clear()
        with pytest.raises(psycopg.OperationalError):
            unfinished.commit()
    assert schemas(breakable_database) == []
