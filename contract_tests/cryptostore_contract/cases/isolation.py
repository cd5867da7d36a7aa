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
    OlmAccount,
    Range,
    Record,
    SyncToken,
    Value,
)
from cryptostore_contract.cases.base import CaseGroup
from cryptostore_contract.cases.reading import NEAR_MISSES
from cryptostore_contract.cases.records import every_kind
from cryptostore_contract.handles import Handles, by_kind, everything, own, put, read
from cryptostore_contract.harness import Ability, Harness, claims
from cryptostore_contract.manifest import case
from cryptostore_contract.raw import TIMEOUT, RawOwner, copy_of, found, new_claim, rows_of
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

#: A namespace: keys are stored in the clear.
_CANARY = "canary-of-the-deleted-account"


class IsolationCases(CaseGroup):
    """Two accounts in one database."""

    @case("ISOLATION-1", checks=("OPEN-1", "COMMIT-1", "GET-1", "SELECT-1", "SCAN-1"))
    @every_kind
    def test_the_same_keys_belong_to_two_accounts(self, handles: Handles, kind: type[Record]) -> None:
        backend = handles.open()
        alice, bob = own(backend, ALICE), own(backend, BOB)
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

    @case("ISOLATION-2", checks=("ACCOUNTS-1", "ACCOUNTS-2", "OPEN-1", "GET-2"))
    def test_accounts_that_look_alike_are_different_accounts(self, handles: Handles) -> None:
        backend = handles.open()
        for number, account in enumerate(_LOOKALIKES):
            put(own(backend, account), sample(SyncToken, number), sample(Value, number))
        fresh = handles.open()
        assert list(fresh.accounts()) == sorted(
            _LOOKALIKES, key=lambda one: (one.user_id.encode(), one.device_id.encode())
        )
        for number, account in enumerate(_LOOKALIKES):
            assert everything(fresh, account) == by_kind([sample(SyncToken, number), sample(Value, number)])

    @case("ISOLATION-3", checks=("DELETE-1", "DELETE-3", "DELETE-2"))
    def test_deleting_an_account_deletes_all_of_it_and_nothing_else(self, handles: Handles) -> None:
        backend = handles.open()
        records = [record for kind in KINDS for record in samples(kind, 20)]
        others = {BOB, *_LOOKALIKES[1:4]}
        for account in (ALICE, *others):
            put(own(backend, account), *records)
        gone = found(backend.database).id
        before = {account: copy_of(backend.database, account) for account in others}
        backend.delete_account(ALICE)
        fresh = handles.open()
        assert fresh.accounts().keys() == others
        for account, copy in before.items():
            unharmed = copy_of(fresh.database, account) == copy
            assert unharmed, f"{account} was not deleted, and has not all of its rows as they were"
        assert rows_of(fresh.database, gone) == {}, f"{ALICE} was deleted, and its rows are still there"
        handles.own(ALICE)
        assert handles.everything(ALICE) == {}

    @case("ISOLATION-4", checks=("DELETE-1", "DELETE-3"), needs=(Ability.RAW_STORAGE,))
    def test_nothing_of_a_deleted_account_is_left_in_storage(self, handles: Handles, harness: Harness) -> None:
        backend = handles.open()
        with own(backend, ALICE) as alice, own(backend, BOB) as bob:
            put(alice, sample(OlmAccount), sample(Value, namespace=_CANARY))
            put(bob, sample(OlmAccount))
            gone, kept = sealed(alice, OlmAccount), sealed(bob, OlmAccount)
        raw = harness.raw_storage()
        shown = [canary in raw for canary in (gone, kept, _CANARY.encode())]
        assert all(shown), "raw_storage does not show what is stored"
        backend.delete_account(ALICE)
        raw = harness.raw_storage()
        assert kept in raw
        if claims(harness, Capability.SECURE_DELETE):
            assert gone not in raw, "the sealed pickle is still there"
            assert _CANARY.encode() not in raw, "a key is still there"

    @case("ISOLATION-5", checks=("COMMIT-1",), needs=(Ability.RAW_STORAGE,))
    def test_nothing_of_a_replaced_or_deleted_pickle_is_left_in_storage(
        self, store: CryptoStore, harness: Harness
    ) -> None:
        put(store, sample(OlmAccount), sample(InboundGroupSession))
        old = [sealed(store, OlmAccount), sealed(store, InboundGroupSession)]
        raw = harness.raw_storage()
        assert [one in raw for one in old] == [True, True], "raw_storage does not show what is stored"
        gone = [(InboundGroupSession, sample(InboundGroupSession).key)]
        store.apply(Changes([changed(sample(OlmAccount), 2)], gone))
        new = sealed(store, OlmAccount)
        store.close()
        raw = harness.raw_storage()
        assert new in raw
        if claims(harness, Capability.SECURE_DELETE):
            assert [one in raw for one in old] == [False, False]

    @case("ISOLATION-6", checks=("OPEN-4", "DELETE-4"))
    def test_an_account_that_is_not_there_is_not_found(self, handles: Handles) -> None:
        handles.own(ALICE)
        backend = handles.open()
        with pytest.raises(AccountNotFound, match="bob"):
            read(backend, BOB)
        with pytest.raises(AccountNotFound, match="bob"):
            backend.delete_account(BOB)
        assert list(backend.accounts()) == [ALICE]

    @case("ISOLATION-7", checks=("DELETE-5", "APPLY-10", "COMMIT-3"))
    def test_an_account_deleted_under_its_owner_is_not_found(self, store: CryptoStore, handles: Handles) -> None:
        put(store, sample(Value))
        handles.open().delete_account(ALICE)
        for number in (1, 2):
            with pytest.raises(AccountNotFound, match="alice"):
                put(store, sample(Value, number))
        assert handles.open().accounts() == {}

    @case("ISOLATION-8", checks=("DELETE-5", "APPLY-10", "COMMIT-3", "DELETE-1", "DELETE-3"))
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

    @case("ISOLATION-9", checks=("ACCOUNTS-1", "ACCOUNTS-2"))
    def test_an_empty_database_has_no_accounts(self, handles: Handles) -> None:
        assert handles.open().accounts() == {}

    @case("ISOLATION-10", checks=("TAKE-1", "FIND-1", "ACCOUNTS-1"))
    def test_an_account_keeps_the_id_that_the_core_gave_it(self, handles: Handles) -> None:
        numbers = (2**63 - 1, 1, 2**62, 2**31, 2**32, 2**53 + 1, *range(1_000, 2_000))
        ids = dict(zip(_LOOKALIKES, numbers, strict=False))
        database = handles.open().database
        for account, account_id in ids.items():
            raw = RawOwner(database, account, new_claim(new_id=account_id))
            assert raw.row.id == account_id
            raw.put({b"key": str(account_id).encode()})
        fresh = handles.open().database
        for account, account_id in ids.items():
            # An account that is there keeps its own, whatever the next claim brings.
            assert RawOwner(fresh, account, new_claim(new_id=7)).row.id == account_id
            assert found(fresh, account).id == account_id
            assert rows_of(fresh, account_id) == {b"key": str(account_id).encode()}
        assert sorted(row.id for row in fresh.accounts(TIMEOUT)) == sorted(ids.values())

    @case("ISOLATION-11", checks=("TAKE-1", "COMMIT-1", "ROWS-1", "RANGES-1", "PAGE-1", "DELETE-1"))
    def test_rows_are_those_of_one_id_and_of_no_neighbour(self, handles: Handles) -> None:
        database = handles.open().database
        owners = [
            RawOwner(database, Account(f"@user{number}:b", "D"), new_claim(new_id=account_id))
            for number, account_id in enumerate((1, 25, 255, 256, 2**63 - 2, 2**63 - 1))
        ]
        # Where ids and keys are joined as texts, the second account's "5" is in the third.
        keys = (b"\0", b"5", b"5\0", b"key", b"\xff" * 8)
        for owner in owners:
            owner.put(dict.fromkeys(keys, str(owner.row.id).encode()))
        database.delete(256, TIMEOUT)
        for owner in owners:
            expected = {} if owner.row.id == 256 else dict.fromkeys(keys, str(owner.row.id).encode())
            assert owner.everything() == expected
            assert owner.get(keys) == expected
            assert dict(database.page(owner.row.id, Range(b"\0", None), 100, TIMEOUT)) == expected


def sealed(store: CryptoStore, kind: type[Record]) -> bytes:
    """The value of the one record of a kind, as it is stored."""
    [value] = [row.value for row in store.stored_rows() if row.key[0] == kind.kind_number]
    return value
