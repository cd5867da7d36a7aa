from __future__ import annotations

import pytest

from cryptostore_contract import StoreContract
from postgres_harness import ExternalPostgresHarness


class TestPostgres(StoreContract):
    @pytest.fixture
    def harness(self, postgres_harness: ExternalPostgresHarness) -> ExternalPostgresHarness:
        return postgres_harness
