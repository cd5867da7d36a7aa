"""What is sealed opens for its account, name and pickle key alone."""

from __future__ import annotations

import pytest

from cryptostore import Account, UnreadableRecord, WrongPickleKey
from cryptostore.nio.key_ring import KeyRing
from cryptostore.nio.sealing import Seal
from cryptostore.records import OlmAccount
from cryptostore_contract.samples import ALICE, BOB

#: The salt and the nonce, which no two secrets may share.
DRAWN = 16 + 12


def test_a_secret_comes_back() -> None:
    assert Seal(ALICE, "key").open("name", Seal(ALICE, "key").seal("name", "a secret")) == "a secret"


def test_no_two_seals_are_alike() -> None:
    seal = Seal(ALICE, "key")
    assert len({seal.seal("name", "a secret")[part] for part in (slice(0, 16), slice(16, DRAWN)) for _ in "12"}) == 4


@pytest.mark.parametrize(
    ("account", "key", "name"),
    [
        (BOB, "key", "name"),
        (Account(ALICE.user_id, "ANOTHER"), "key", "name"),
        (ALICE, "another key", "name"),
        (ALICE, "key", "another name"),
    ],
    ids=["user", "device", "key", "name"],
)
def test_it_opens_nowhere_else(account: Account, key: str, name: str) -> None:
    sealed = Seal(ALICE, "key").seal("name", "a secret")
    with pytest.raises(UnreadableRecord):
        Seal(account, key).open(name, sealed)


def test_a_ring_opens_for_its_account_alone() -> None:
    ring = KeyRing.of(ALICE, "key", None)
    record = OlmAccount(b"", key_check=ring.sealed)
    assert KeyRing.of(ALICE, "key", record).keys == ring.keys
    with pytest.raises(WrongPickleKey):
        KeyRing.of(BOB, "key", record)


def test_a_ring_shows_none_of_its_keys() -> None:
    ring = KeyRing.of(ALICE, "a secret", None)
    assert len(ring.keys) == 2
    assert not [key for key in ring.keys if key in repr(ring)]
