"""The account's secrets, without a client."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest

from cryptostore import Changes, Mode, UnreadableRecord, open_backend
from cryptostore.nio.client.buffer import BufferedStorage
from cryptostore.nio.client.statistics import Statistics
from cryptostore.nio.trust.secrets import Secrets
from cryptostore.trust.cross_signing import MASTER
from cryptostore.trust.secret_storage import KEY_DESCRIPTION
from cryptostore_contract.samples import ALICE, KEY

SEED: Final = bytes(range(32))


def test_secrets_are_read_back_from_another_handle(url: str) -> None:
    with open_backend(url) as backend:
        with backend.open_store(ALICE, pickle_key=KEY) as store:
            secrets = _secrets(store)
            secrets.put(MASTER, SEED)
            secrets.put(KEY_DESCRIPTION + "a", SEED)
            secrets.note_shown(KEY_DESCRIPTION + "a")
            secrets.put(KEY_DESCRIPTION + "b", SEED)
            secrets.drop(KEY_DESCRIPTION + "b")
            store.apply(secrets.kept.collect())
        with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
            again = _secrets(store)
            assert (again.get(MASTER), again.get("absent")) == (SEED, None)
            assert again.names(KEY_DESCRIPTION) == [KEY_DESCRIPTION + "a"]
            assert [row.shown for row in again.kept.rows.values()] == [False, True]
            assert all(SEED not in row.sealed for row in again.kept.rows.values())


def test_the_same_secret_again_stays_shown(memory_url: str) -> None:
    with open_backend(memory_url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        secrets = _secrets(store)
        secrets.put(MASTER, SEED)
        secrets.note_shown(MASTER)
        secrets.put(MASTER, SEED)
        assert secrets.kept.rows[MASTER,].shown
        secrets.put(MASTER, bytes(32))
        assert not secrets.kept.rows[MASTER,].shown


def test_a_secret_under_another_name_is_no_secret(memory_url: str) -> None:
    with open_backend(memory_url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        secrets = _secrets(store)
        secrets.put(MASTER, SEED)
        moved = replace(secrets.kept.rows[MASTER,], name="m.cross_signing.self_signing")
        store.apply(Changes([moved]))
        with pytest.raises(UnreadableRecord, match="self_signing"):
            _secrets(store).get(moved.name)


def test_nothing_takes_the_place_of_a_secret_that_cannot_be_read(memory_url: str) -> None:
    with open_backend(memory_url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        secrets = _secrets(store)
        secrets.kept.unreadable.append((MASTER,))
        with pytest.raises(UnreadableRecord, match="restore the account"):
            secrets.put(MASTER, SEED)
        assert not secrets.kept.is_dirty


def _secrets(store: Any) -> Secrets:
    storage = BufferedStorage(store, lambda: None, Statistics())
    return Secrets(storage, storage.secrets)
