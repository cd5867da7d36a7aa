"""`cryptostore contract` on a real server, which keeps none of its schemas."""

from __future__ import annotations

import json
import signal

import pytest

from contract_command import interrupt, run
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
