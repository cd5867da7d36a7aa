"""The in-memory model against the contract."""

from collections.abc import Iterator

import pytest

from cryptostore_contract import Harness, StoreContract, managed, not_verified
from cryptostore_contract.memory import MemoryHarness
from unverified import published


class TestMemory(StoreContract):
    @pytest.fixture
    def harness(self) -> Iterator[Harness]:
        yield from managed(MemoryHarness())


def test_what_memory_leaves_unverified() -> None:
    assert not_verified(StoreContract, MemoryHarness) == published("memory")
