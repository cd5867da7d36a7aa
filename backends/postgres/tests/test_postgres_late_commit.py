"""A server that is still at a batch when its client is dead: the suite's kills must not blame the store for that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Final

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from cryptostore_contract.cases.crashes import Crashes
from cryptostore_contract.handles import Handles
from postgres_database import PostgresDatabase
from postgres_harness import PostgresHarness

#: Seconds that a commit takes, so that a kill in the middle of it leaves the server much to do.
_COMMIT: Final = 1


@pytest.fixture
def slow_harness(breakable_database: PostgresDatabase, admin: psycopg.Connection) -> Iterator[PostgresHarness]:
    """A database in which each commit takes its time."""
    with closing(PostgresHarness(breakable_database)) as harness:
        harness.open().close()
        schema = Identifier(harness.schema)
        admin.execute(
            SQL(
                "CREATE FUNCTION {0}.delay() RETURNS trigger LANGUAGE plpgsql "
                "AS 'BEGIN PERFORM pg_sleep({1}); RETURN NULL; END'"
            ).format(schema, _COMMIT)
        )
        admin.execute(
            SQL(
                "CREATE TRIGGER delay AFTER INSERT ON {0}.record FOR EACH STATEMENT EXECUTE FUNCTION {0}.delay()"
            ).format(schema)
        )
        admin.commit()
        yield harness


def test_what_a_server_still_does_for_a_killed_process_is_waited_for(slow_harness: PostgresHarness) -> None:
    with closing(Handles(slow_harness)) as handles:
        assert Crashes(handles, slow_harness).commits("die-after", f"{_COMMIT / 2}")
