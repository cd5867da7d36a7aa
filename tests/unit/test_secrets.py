"""Secrets are sealed once more than every record is, and bound to their name and account."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import pytest

from cryptostore import Account, Backend, Changes, Mode, Secret, UnreadableRecord, new_pickle_key
from cryptostore.store.memory import MemoryDatabase, MemoryHandle
from cryptostore.store.rekeying import rekey
from cryptostore.store.secrets import SecretSeal
from example_records import ALICE, SECRET

NAME: Final = "m.cross_signing.master"
KEY: Final = bytes(range(32))
TIME: Final = datetime(2026, 11, 29, tzinfo=UTC)


def test_a_secret_opens_under_its_name() -> None:
    seal = SecretSeal(ALICE, KEY)
    sealed = seal.seal(NAME, SECRET.encode())
    assert SECRET.encode() not in sealed
    assert sealed != seal.seal(NAME, SECRET.encode())
    assert SecretSeal(ALICE, KEY).open(NAME, sealed) == SECRET.encode()


@pytest.mark.parametrize(
    ("account", "key", "name"),
    [
        (Account(ALICE.user_id, "OTHER"), KEY, NAME),
        (ALICE, bytes(32), NAME),
        (ALICE, KEY, "m.cross_signing.self_signing"),
    ],
)
def test_it_opens_nowhere_else(account: Account, key: bytes, name: str) -> None:
    sealed = SecretSeal(ALICE, KEY).seal(NAME, SECRET.encode())
    with pytest.raises(UnreadableRecord, match=name) as caught:
        SecretSeal(account, key).open(name, sealed)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("sealed", [b"", bytes(11), bytes(40)])
def test_what_is_no_sealed_secret(sealed: bytes) -> None:
    with pytest.raises(UnreadableRecord, match="was altered"):
        SecretSeal(ALICE, KEY).open(NAME, sealed)


def test_secrets_outlive_data_keys_and_pickle_keys() -> None:
    old, new = new_pickle_key(), new_pickle_key()
    with Backend(MemoryHandle(MemoryDatabase()), name="memory") as backend:
        with backend.open_store(ALICE, Mode.OWN, pickle_key=old) as store:
            store.apply(Changes([Secret(NAME, store.secrets.seal(NAME, SECRET.encode()), TIME)]))
        rekey(backend, ALICE, old, new)
        with backend.open_store(ALICE, Mode.READ, pickle_key=new) as store:
            (secret,) = store.get(Secret, [(NAME,)]).values()
            assert store.secrets.open(NAME, secret.sealed) == SECRET.encode()
