from __future__ import annotations

import pytest

from cryptostore_contract import StoreContract, not_verified
from postgres_harness import ExternalPostgresHarness, PostgresHarness


class TestPostgres(StoreContract):
    @pytest.fixture
    def harness(self, postgres_harness: ExternalPostgresHarness) -> ExternalPostgresHarness:
        return postgres_harness


def test_nothing_is_left_unverified() -> None:
    assert not_verified(StoreContract, PostgresHarness) == frozenset()
