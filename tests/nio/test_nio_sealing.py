"""What is sealed opens for its account, name and pickle key alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cryptostore import Account, UnreadableRecord, WrongPickleKey
from cryptostore.nio import sealing
from cryptostore.nio.key_ring import KeyRing
from cryptostore.nio.sealing import Seal
from cryptostore.records import OlmAccount
from cryptostore_contract.samples import ALICE, BOB

#: Where the salt and the nonce stand, which no two secrets may share.
SALT, NONCE = slice(1, 17), slice(17, 29)


def test_a_secret_comes_back() -> None:
    assert Seal(ALICE, "key").open("name", Seal(ALICE, "key").seal("name", "a secret")) == "a secret"


def test_no_two_seals_are_alike() -> None:
    seal = Seal(ALICE, "key")
    assert len({seal.seal("name", "a secret")[part] for part in (SALT, NONCE) for _ in "12"}) == 4


@pytest.mark.parametrize("cost", [0, 4, 15, 63, 255])
def test_another_cost_than_its_own_is_damage(cost: int) -> None:
    sealed = Seal(ALICE, "key").seal("name", "a secret")
    assert sealed[0] == sealing.COST != cost
    with pytest.raises(UnreadableRecord):
        Seal(ALICE, "key").open("name", bytes([cost]) + sealed[1:])


@pytest.mark.parametrize("length", [0, 1, 16, 44])
def test_a_seal_that_was_cut_is_damage(length: int) -> None:
    with pytest.raises(UnreadableRecord):
        Seal(ALICE, "key").open("name", Seal(ALICE, "key").seal("name", "a secret")[:length])


def test_a_guess_costs_users_what_it_should_and_tests_less() -> None:
    program = (
        "from cryptostore import Account; from cryptostore.nio.sealing import Seal;"
        "print(Seal(Account('@a:b', 'D'), 'key').seal('name', 'a secret')[0])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout == "14\n"
    assert sealing.COST < 14


def test_what_was_sealed_at_another_cost_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = Seal(ALICE, "key").seal("name", "a secret")
    monkeypatch.setattr(sealing, "COST", sealing.COST + 1)
    assert Seal(ALICE, "key").open("name", sealed) == "a secret"


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
