"""`cryptostore contract` on a real server, which keeps none of its schemas."""

from __future__ import annotations

import json
import signal

import psycopg
import pytest

from contract_command import interrupt, interrupt_over_an_orphan, run
from cryptostore_contract.places import place_for
from postgres_database import PostgresDatabase


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
