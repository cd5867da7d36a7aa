"""What a case says when it fails, where a comparison alone would not tell where to look."""

from __future__ import annotations

import pytest

from cryptostore import Account
from cryptostore.memory import MemoryBackend
from cryptostore_contract import StoreContract
from cryptostore_contract.handles import Handles
from cryptostore_contract.manifest import functions_of
from cryptostore_contract.memory import MemoryHarness
from cryptostore_contract.mutants.accounts import account_missing_from_a_where
from cryptostore_contract.samples import ALICE

ISOLATION_3 = functions_of(StoreContract)["ISOLATION-3"]


def test_records_that_are_gone_with_another_account_are_said_to_be_its(monkeypatch: pytest.MonkeyPatch) -> None:
    original = MemoryBackend.delete_account

    def delete_account(backend: MemoryBackend, account: Account) -> None:
        original(backend, account)
        for row in backend._database.rows.values():
            row.tables.clear()

    monkeypatch.setattr(MemoryBackend, "delete_account", delete_account)
    with pytest.raises(AssertionError, match=r"^@.* was not deleted, and has not all of its records"):
        ISOLATION_3(StoreContract(), Handles(MemoryHarness()))


def test_records_that_outlive_an_account_are_said_to_be_its(monkeypatch: pytest.MonkeyPatch) -> None:
    account_missing_from_a_where(monkeypatch)
    with pytest.raises(AssertionError, match=f"^{ALICE} was deleted, and has records again"):
        ISOLATION_3(StoreContract(), Handles(MemoryHarness()))
