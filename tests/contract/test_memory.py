"""The in-memory model against the contract."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from cryptostore_contract import Ability, Harness, StoreContract, managed, not_verified


class MemoryHarness(Harness):
    name = "memory"
    abilities = frozenset({Ability.REOPEN})

    def __init__(self) -> None:
        self._url = f"memory://{uuid4()}"

    @property
    def url(self) -> str:
        return self._url

    def close(self) -> None:
        pass  # a few dictionaries, which go with the process


class TestMemory(StoreContract):
    @pytest.fixture
    def harness(self) -> Iterator[Harness]:
        yield from managed(MemoryHarness())


def test_what_memory_leaves_unverified() -> None:
    assert not_verified(StoreContract, MemoryHarness) == frozenset()
