"""Isolation: accounts in one database never meet."""

from __future__ import annotations

import pytest

from cryptostore import (
    KINDS,
    Account,
    AccountNotFound,
    Capability,
    Changes,
    CryptoStore,
    InboundGroupSession,
    Mode,
    OlmAccount,
    Record,
    SyncToken,
    Value,
)
from cryptostore_contract.cases.base import CaseGroup
from cryptostore_contract.cases.reading import NEAR_MISSES
from cryptostore_contract.cases.records import every_kind
from cryptostore_contract.handles import Handles, by_kind, everything, put
from cryptostore_contract.harness import Ability, Harness, claims
from cryptostore_contract.manifest import case
from cryptostore_contract.samples import ALICE, BOB, LONGEST_IDENTIFIER, changed, one_of_each, sample, samples

#: Accounts that differ in one field, or only in where one field ends.
_LOOKALIKES = [
    ALICE,
    Account(ALICE.user_id, BOB.device_id),
    Account(BOB.user_id, ALICE.device_id),
    Account(ALICE.user_id + "A", ALICE.device_id[1:]),
    Account(ALICE.device_id, ALICE.user_id),
    Account(LONGEST_IDENTIFIER, LONGEST_IDENTIFIER),
    Account(LONGEST_IDENTIFIER, LONGEST_IDENTIFIER[:-1]),
    *[Account(text, "D") for text in NEAR_MISSES],
    *[Account("@u", text) for text in NEAR_MISSES],
]

#: Long enough that no two of them are found by chance.
_CANARY = b"canary-of-the-deleted-account-"


class IsolationCases(CaseGroup):
    """Two accounts in one database."""

    @case("ISOLATION-1", checks=("OPEN-1", "COMMIT-8", "GET-1", "SELECT-1", "SCAN-1"))
    @every_kind
    def test_the_same_keys_belong_to_two_accounts(self, handles: Handles, kind: type[Record]) -> None:
        backend = handles.open()
        alice, bob = backend.open_store(ALICE), backend.open_store(BOB)
        hers = samples(kind, 3)
        his = [changed(record, 50) for record in hers]
        put(alice, *hers)
        put(bob, *his)
        for account, expected in ((ALICE, hers), (BOB, his)):
            reader = handles.read(account)
            assert reader.get(kind, [record.key for record in hers]) == {record.key: record for record in expected}
            assert reader.select(kind, [hers[0].key]) == {hers[0].key: expected[:1]}
            assert list(reader.scan(kind)) == expected
        alice.apply(Changes(deletes=[(kind, record.key) for record in hers]))
        assert (handles.stored(kind, ALICE), handles.stored(kind, BOB)) == ([], his)

    @case("ISOLATION-2", checks=("ACCOUNTS-1", "OPEN-1", "GET-2"))
    def test_accounts_that_look_alike_are_different_accounts(self, handles: Handles) -> None:
        backend = handles.open()
        for number, account in enumerate(_LOOKALIKES):
            put(backend.open_store(account), sample(SyncToken, number), sample(Value, number))
        fresh = handles.open()
        assert list(fresh.accounts()) == sorted(
            _LOOKALIKES, key=lambda one: (one.user_id.encode(), one.device_id.encode())
        )
        for number, account in enumerate(_LOOKALIKES):
            assert everything(fresh, account) == by_kind([sample(SyncToken, number), sample(Value, number)])

    @case("ISOLATION-3", checks=("DELETE-1", "DELETE-3"))
    def test_deleting_an_account_deletes_all_of_it_and_nothing_else(self, handles: Handles) -> None:
        backend = handles.open()
        records = [record for kind in KINDS for record in samples(kind, 20)]
        others = {BOB, *_LOOKALIKES[1:4]}
        for account in (ALICE, *others):
            put(backend.open_store(account), *records)
        backend.delete_account(ALICE)
        assert handles.open().accounts().keys() == others
        for account in others:
            assert handles.everything(account) == by_kind(records), (
                f"{account} was not deleted, and has not all of its records"
            )
        handles.own(ALICE)
        assert handles.everything(ALICE) == {}, f"{ALICE} was deleted, and has records again"

    @case("ISOLATION-4", checks=("DELETE-1",), needs=(Ability.RAW_STORAGE,))
    def test_nothing_of_a_deleted_account_is_left_in_storage(self, handles: Handles, harness: Harness) -> None:
        backend = handles.open()
        gone = [_CANARY + kind.kind_name.encode() * 40 for kind in (OlmAccount, InboundGroupSession, Value)]
        kept = b"canary-of-the-account-that-stays"
        with backend.open_store(ALICE) as alice, backend.open_store(BOB) as bob:
            put(alice, sample(OlmAccount, pickle=gone[0]), sample(InboundGroupSession, pickle=gone[1]))
            put(alice, sample(Value, value=gone[2]))
            put(bob, sample(OlmAccount, pickle=kept))
        raw = harness.raw_storage()
        assert all(canary in raw for canary in [*gone, kept]), "raw_storage does not show what is stored"
        backend.delete_account(ALICE)
        raw = harness.raw_storage()
        assert kept in raw
        if claims(harness, Capability.SECURE_DELETE):
            assert _CANARY not in raw

    @case("ISOLATION-5", checks=("COMMIT-8",), needs=(Ability.RAW_STORAGE,))
    def test_nothing_of_a_replaced_or_deleted_pickle_is_left_in_storage(
        self, store: CryptoStore, harness: Harness
    ) -> None:
        old, new = b"canary-of-the-old-pickle" * 20, b"canary-of-the-new-pickle" * 20
        put(store, sample(OlmAccount, pickle=old), sample(Value, value=old))
        assert old in harness.raw_storage()
        store.apply(Changes([sample(OlmAccount, pickle=new)], [(Value, sample(Value).key)]))
        store.close()
        raw = harness.raw_storage()
        assert new in raw
        if claims(harness, Capability.SECURE_DELETE):
            assert old not in raw

    @case("ISOLATION-6", checks=("OPEN-4", "DELETE-2"))
    def test_an_account_that_is_not_there_is_not_found(self, handles: Handles) -> None:
        handles.own(ALICE)
        backend = handles.open()
        with pytest.raises(AccountNotFound, match="bob"):
            backend.open_store(BOB, Mode.READ)
        with pytest.raises(AccountNotFound, match="bob"):
            backend.delete_account(BOB)
        assert list(backend.accounts()) == [ALICE]

    @case("ISOLATION-7", checks=("DELETE-4", "COMMIT-4"))
    def test_an_account_deleted_under_its_owner_is_not_found(self, store: CryptoStore, handles: Handles) -> None:
        put(store, sample(Value))
        handles.open().delete_account(ALICE)
        for number in (1, 2):
            with pytest.raises(AccountNotFound, match="alice"):
                put(store, sample(Value, number))
        assert handles.open().accounts() == {}

    @case("ISOLATION-8", checks=("DELETE-4", "COMMIT-4", "DELETE-1"))
    @pytest.mark.parametrize("batches", [0, 1, 2])
    def test_an_account_made_anew_is_not_the_old_owners(
        self, store: CryptoStore, handles: Handles, batches: int
    ) -> None:
        put(store, sample(Value))
        handles.open().delete_account(ALICE)
        # The new owner is in the epoch that the old one had, with as many batches, more, and fewer.
        new = handles.own(ALICE)
        for number in range(batches):
            put(new, sample(SyncToken, number))
        before = handles.open().accounts(), handles.everything()
        with pytest.raises(AccountNotFound, match="alice"):
            put(store, *one_of_each(3))
        assert (handles.open().accounts(), handles.everything()) == before
        put(new, sample(Value, 4))

    @case("ISOLATION-9", checks=("ACCOUNTS-1",))
    def test_an_empty_database_has_no_accounts(self, handles: Handles) -> None:
        assert handles.open().accounts() == {}
