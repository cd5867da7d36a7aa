"""Verifying an account: every row is opened, and what cannot be read is named."""

from __future__ import annotations

import pytest

from cryptostore import Account, Batch, Changes, OlmAccount, Row, SyncToken, TrackedUser, WrongPickleKey, open_backend
from cryptostore.store import verifying
from cryptostore.store.backend import Backend
from cryptostore.store.keys import encode_key
from cryptostore.store.ring import RING_KEYS
from database_urls import memory_url
from example_records import example

__all__ = ["memory_url"]

ALICE, KEY = Account("@alice:example.org", "A"), "a passphrase of alice"
BOB = TrackedUser("@bob:example.org")


def filled(backend: Backend, *damaged: Row) -> None:
    with backend.open_store(ALICE, pickle_key=KEY) as store:
        store.apply(Changes([example(OlmAccount), SyncToken("s1"), BOB, TrackedUser("@carol:example.org")]))
        if damaged:
            store.put_rows(damaged)


def problems(backend: Backend) -> dict[bytes, str]:
    return dict(verifying.verify(backend, ALICE, KEY).named)


def test_every_row_is_counted_and_told(memory_url: str) -> None:
    advanced: list[None] = []
    with open_backend(memory_url) as backend:
        filled(backend)
        verified = verifying.verify(backend, ALICE, KEY, lambda: advanced.append(None))
    assert verified.readable == {0: 1, 1: 1, 2: 1, 4: 2, 255: 1}
    assert (verified.unreadable.total(), verified.named) == (0, [])
    assert len(advanced) == 6


def test_what_is_damaged_is_named_and_the_rest_is_read(memory_url: str) -> None:
    key = encode_key(TrackedUser, BOB.key)
    unknown, no_key = b"\xc8of a later version", b"\x04\xff"
    with open_backend(memory_url) as backend:
        filled(backend, Row(key, b"damaged"), Row(unknown, b"damaged"), Row(no_key, b"damaged"))
        verified = verifying.verify(backend, ALICE, KEY)
    assert [key for key, _ in verified.named] == [key, no_key, unknown]
    assert dict(verified.named)[no_key] == "its key is not a valid key of its kind"
    assert verified.unreadable == {4: 2, 200: 1}
    assert verified.readable[4] == 1


def test_a_kind_of_a_later_version_is_opened_and_not_decoded(memory_url: str) -> None:
    with open_backend(memory_url) as backend:
        filled(backend)
        with backend.open_store(ALICE, pickle_key=KEY) as store:
            store.put_rows(store.owned_keys().seal_all([(b"\xc8x", b"\x01whatever")]))
        assert problems(backend) == {}


def test_a_value_that_is_none_of_its_kind_is_named(memory_url: str) -> None:
    key = encode_key(TrackedUser, BOB.key)
    with open_backend(memory_url) as backend:
        filled(backend)
        with backend.open_store(ALICE, pickle_key=KEY) as store:
            store.put_rows(store.owned_keys().seal_all([(key, b"\x01whatever")]))
        assert problems(backend) == {key: "does not hold the fields of its kind"}


def test_a_copy_of_the_ring_that_is_damaged_is_named(memory_url: str) -> None:
    with open_backend(memory_url) as backend:
        filled(backend, Row(RING_KEYS[1], b"damaged"))
        assert "the copy ff of the key ring" in problems(backend)[RING_KEYS[1]]


def test_a_copy_of_the_ring_that_is_missing_is_named(memory_url: str) -> None:
    with open_backend(memory_url) as backend:
        filled(backend)
        row = backend.database.find(ALICE.user_id, ALICE.device_id, 5)
        assert row is not None
        backend.database.commit(row.id, Batch(row.epoch, row.incarnation, row.sequence + 1, [], [RING_KEYS[0]]), 5)
        assert problems(backend) == {RING_KEYS[0]: "is missing; the next batch writes it again"}


def test_where_no_copy_opens_both_are_named_and_nothing_is_raised(memory_url: str) -> None:
    with open_backend(memory_url) as backend:
        filled(backend, *(Row(key, b"damaged") for key in RING_KEYS))
        assert problems(backend).keys() == set(RING_KEYS)


def test_a_missing_olm_account_is_named_where_there_are_other_records(memory_url: str) -> None:
    with open_backend(memory_url) as backend:
        filled(backend)
        with backend.open_store(ALICE, pickle_key=KEY) as store:
            store.apply(Changes(deletes=[(OlmAccount, ())]))
        [(key, reason)] = problems(backend).items()
        assert (key, "is missing" in reason) == (encode_key(OlmAccount, ()), True)


def test_a_new_account_with_a_ring_alone_lacks_nothing(memory_url: str) -> None:
    with open_backend(memory_url) as backend:
        with backend.open_store(ALICE, pickle_key=KEY) as store:
            store.apply(Changes([BOB]))
            store.apply(Changes(deletes=[(TrackedUser, BOB.key)]))
        assert problems(backend) == {}


def test_an_account_without_rows_has_nothing_unreadable(memory_url: str) -> None:
    with open_backend(memory_url) as backend:
        backend.open_store(ALICE, pickle_key=KEY).close()
        assert problems(backend) == {}


def test_a_wrong_pickle_key_is_not_damage(memory_url: str) -> None:
    with open_backend(memory_url) as backend:
        filled(backend)
        with pytest.raises(WrongPickleKey):
            verifying.verify(backend, ALICE, "another passphrase")


def test_more_than_can_be_named_are_counted(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "_MOST_NAMED", 1)
    with open_backend(memory_url) as backend:
        filled(backend, *(Row(encode_key(TrackedUser, (f"@{name}:x",)), b"x") for name in "abc"))
        verified = verifying.verify(backend, ALICE, KEY)
    assert (verified.unreadable.total(), len(verified.named)) == (3, 1)
