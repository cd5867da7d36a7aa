"""Which of an account's two stored key rings is in force, and what is wrong with the other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cryptostore import Account, SchemaTooNew, UnreadableRecord, WrongPickleKey
from cryptostore.store import pickle_keys
from cryptostore.store.pickle_keys import new_pickle_key
from cryptostore.store.ring import RING_KEYS, STORE_FORMAT, Fault, FoundRing, Ring, find_ring, wrap
from example_records import ALICE

GENERATED = new_pickle_key()
PASSPHRASE = "correct horse battery staple"
FIRST, LAST = RING_KEYS
BOB = Account("@bob:example.org", "BOBDEVICE")
RING = Ring.new()
NEWER = RING.with_new_data_key()


@pytest.fixture(autouse=True)
def cheap_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_keys, "COST", 10)


def copies(first: Ring = RING, last: Ring = RING) -> dict[bytes, bytes]:
    return {FIRST: wrap(ALICE, first, GENERATED)[FIRST], LAST: wrap(ALICE, last, GENERATED)[LAST]}


def test_no_copies_are_no_ring() -> None:
    assert find_ring(ALICE, {}, GENERATED) is None
    assert find_ring(ALICE, {b"\x01": b"a record"}, GENERATED) is None


@pytest.mark.parametrize(("present", "absent"), [(FIRST, LAST), (LAST, FIRST)])
def test_one_copy_is_enough_and_the_other_is_missed(present: bytes, absent: bytes) -> None:
    found = find_ring(ALICE, {present: copies()[present]}, GENERATED)
    assert found == FoundRing(RING, {absent: Fault.MISSING})
    assert not found.complete


@pytest.mark.parametrize(("intact", "damaged"), [(FIRST, LAST), (LAST, FIRST)])
def test_one_intact_copy_is_enough(intact: bytes, damaged: bytes) -> None:
    both = copies()
    for damage in (b"", both[damaged][:-1], both[intact], wrap(BOB, NEWER, GENERATED)[damaged]):
        assert find_ring(ALICE, both | {damaged: damage}, GENERATED) == FoundRing(RING, {damaged: Fault.DAMAGED})


def test_the_higher_generation_is_in_force() -> None:
    assert find_ring(ALICE, copies(RING, NEWER), GENERATED) == FoundRing(NEWER, {FIRST: Fault.OLDER})
    assert find_ring(ALICE, copies(NEWER, RING), GENERATED) == FoundRing(NEWER, {LAST: Fault.OLDER})


def test_an_old_copy_under_an_old_pickle_key_is_passed_over() -> None:
    old = wrap(ALICE, RING, PASSPHRASE)
    assert find_ring(ALICE, copies(NEWER, NEWER) | {LAST: old[LAST]}, GENERATED) == FoundRing(
        NEWER, {LAST: Fault.OTHER_PICKLE_KEY}
    )


def test_two_different_rings_of_one_generation_are_an_error() -> None:
    other = RING.with_new_data_key()
    with pytest.raises(UnreadableRecord, match=rf"{ALICE} differ and are equally new; restore"):
        find_ring(ALICE, copies(NEWER, other), GENERATED)


def test_a_wrong_pickle_key_is_told_even_where_a_copy_is_damaged() -> None:
    for damaged in RING_KEYS:
        with pytest.raises(WrongPickleKey):
            find_ring(ALICE, copies() | {damaged: b"damaged"}, PASSPHRASE)
    with pytest.raises(WrongPickleKey):
        find_ring(ALICE, copies(), new_pickle_key())


def test_two_damaged_copies_are_unreadable() -> None:
    with pytest.raises(UnreadableRecord, match="restore"):
        find_ring(ALICE, dict.fromkeys(RING_KEYS, b"damaged"), GENERATED)
    with pytest.raises(UnreadableRecord, match="restore"):
        find_ring(ALICE, {LAST: b"damaged"}, GENERATED)


def test_another_accounts_ring_is_unreadable() -> None:
    with pytest.raises(UnreadableRecord, match="moved here"):
        find_ring(ALICE, wrap(BOB, RING, GENERATED), GENERATED)


def test_one_copy_that_is_too_new_is_enough() -> None:
    too_new = replace(NEWER, format_floor=STORE_FORMAT + 1)
    for both in (copies(RING, too_new), copies(too_new, RING)):
        with pytest.raises(SchemaTooNew):
            find_ring(ALICE, both, GENERATED)


def test_both_copies_take_one_derivation() -> None:
    both = wrap(ALICE, RING, PASSPHRASE)
    pickle_keys.stretched.cache_clear()
    find_ring(ALICE, both, PASSPHRASE)
    assert pickle_keys.stretched.cache_info().misses == 1
