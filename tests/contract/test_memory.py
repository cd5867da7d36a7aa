"""The in-memory model against the contract."""

from collections.abc import Iterator

import pytest

from cryptostore_contract import Harness, StoreContract, managed, not_verified
from cryptostore_contract.memory import MemoryHarness


class TestMemory(StoreContract):
    @pytest.fixture
    def harness(self) -> Iterator[Harness]:
        yield from managed(MemoryHarness())


#: There is no server, no file and no other process, and damage needs a form that records are decoded from.
NOT_VERIFIED = frozenset(
    [
        *[f"CRASHES-{number}" for number in range(1, 6)],
        *[f"FAULTS-{number}" for number in range(1, 13)],
        *["ISOLATION-4", "ISOLATION-5"],
        "NIO-1",
        *[f"RESTART-{number}" for number in range(2, 8)],
        *[f"SCHEMA-{number}" for number in (2, 3, 5, 6, 7, 8)],
        *[f"SECRETS-{number}" for number in range(2, 9)],
        *[f"SEVERING-{number}" for number in range(1, 8)],
        *[f"STORAGE-{number}" for number in range(1, 5)],
        *[f"UNREADABLE-{number}" for number in range(1, 7)],
    ]
)


def test_what_memory_leaves_unverified() -> None:
    assert not_verified(StoreContract, MemoryHarness) == NOT_VERIFIED
