"""What a case says when it fails, where a comparison alone would not tell where to look."""

from __future__ import annotations

import pytest

from cryptostore.store.memory import MemoryHandle
from cryptostore_contract import StoreContract
from cryptostore_contract.handles import Handles
from cryptostore_contract.manifest import functions_of
from cryptostore_contract.memory import MemoryHarness
from cryptostore_contract.samples import ALICE

ISOLATION_3 = functions_of(StoreContract)["ISOLATION-3"]


def test_rows_that_are_gone_with_another_account_are_said_to_be_its(monkeypatch: pytest.MonkeyPatch) -> None:
    original = MemoryHandle.delete

    def delete(handle: MemoryHandle, account_id: int, timeout: float) -> None:
        original(handle, account_id, timeout)
        handle.shared.records.clear()

    monkeypatch.setattr(MemoryHandle, "delete", delete)
    with pytest.raises(AssertionError, match=r"^@.* was not deleted, and has not all of its rows"):
        ISOLATION_3(StoreContract(), Handles(MemoryHarness()))


def test_rows_that_outlive_an_account_are_said_to_be_its(monkeypatch: pytest.MonkeyPatch) -> None:
    def delete(handle: MemoryHandle, account_id: int, timeout: float) -> None:
        handle.shared.accounts = {name: row for name, row in handle.shared.accounts.items() if row.id != account_id}

    monkeypatch.setattr(MemoryHandle, "delete", delete)
    with pytest.raises(AssertionError, match=f"^{ALICE} was deleted, and its rows are still there"):
        ISOLATION_3(StoreContract(), Handles(MemoryHarness()))
