"""Sealed values: what comes back, and what is refused wherever it was changed or moved."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from hypothesis import given
from hypothesis import strategies as st

from cryptostore import Account, ConfigurationError
from cryptostore.store import aead
from cryptostore.store.ring import DataKey
from cryptostore.store.seal import Reason, Seal, Unsealable
from example_records import ALICE, SECRET
from leaks import shown

NEW, OLD, GONE = DataKey(7, b"\x07" * 32), DataKey(2**32 - 1, b"\x08" * 32), DataKey(0, b"\x09" * 32)
SEAL = Seal(ALICE, [NEW, OLD])
KEY = b"\x01key"
PLAIN = SECRET.encode()
VALUE = SEAL.seal(KEY, PLAIN)

keys = st.binary(max_size=1_024)
plains = st.binary(min_size=1)


def refusal(value: bytes, key: bytes = KEY, seal: Seal = SEAL) -> Unsealable:
    """Why a value cannot be opened; nothing that it holds is in it."""
    with pytest.raises(Unsealable) as caught:
        seal.open(key, value)
    assert SECRET not in shown(caught.value)
    return caught.value


@given(keys, plains)
def test_what_was_sealed_comes_back(key: bytes, plain: bytes) -> None:
    assert SEAL.open(key, SEAL.seal(key, plain)) == plain


@given(st.lists(st.tuples(keys, plains)))
def test_a_batch_comes_back_in_its_order(pairs: list[tuple[bytes, bytes]]) -> None:
    sealed = SEAL.seal_all(pairs)
    assert [(key, SEAL.open(key, value)) for key, value in sealed] == pairs


def test_values_are_laid_out_as_the_docs_say() -> None:
    bound_to = b"cryptostore record\0@alice:example.org\0ALICEDEVICE\0" + VALUE[:5] + KEY
    assert VALUE[:5] == b"\x01\x00\x00\x00\x07"
    assert AESGCMSIV(NEW.key).decrypt(VALUE[5:17], VALUE[17:], bound_to) == PLAIN


def test_a_value_of_the_first_release_opens() -> None:
    golden = "010000000797f5133951ec6577388148ed3a3838512a6d1ec488ebaf790f359459cb0c169b39"
    assert SEAL.open(KEY, bytes.fromhex(golden)) == b"plain"


def test_no_nonce_comes_twice() -> None:
    values = [SEAL.seal(KEY, PLAIN) for _ in range(100)]
    values += [value for _, value in SEAL.seal_all([(KEY, PLAIN)] * 100)]
    assert len({value[5:17] for value in values}) == 200


def test_nothing_of_the_text_is_visible() -> None:
    assert PLAIN not in VALUE


def test_the_first_data_key_seals_and_all_open() -> None:
    value = Seal(ALICE, [OLD]).seal(KEY, PLAIN)
    assert SEAL.open(KEY, value) == PLAIN
    assert SEAL.seal(KEY, PLAIN)[1:5] == NEW.id.to_bytes(4, "big")


def test_a_value_tells_whether_the_present_data_key_sealed_it() -> None:
    assert SEAL.has_sealed(VALUE)
    assert not SEAL.has_sealed(Seal(ALICE, [OLD]).seal(KEY, PLAIN))


def test_every_flipped_bit_is_refused() -> None:
    for position in range(len(VALUE)):
        for bit in range(8):
            flipped = bytearray(VALUE)
            flipped[position] ^= 1 << bit
            expected = {0: Reason.UNKNOWN_VERSION}.get(
                position, Reason.UNKNOWN_DATA_KEY if position < 5 else Reason.TAMPERED
            )
            assert refusal(bytes(flipped)).reason is expected


def test_every_truncated_or_longer_value_is_refused() -> None:
    for size in range(len(VALUE)):
        expected = Reason.TRUNCATED if size < 34 else Reason.TAMPERED
        assert refusal(VALUE[:size]).reason is expected
    assert refusal(VALUE + b"\0").reason is Reason.TAMPERED


@given(keys.filter(lambda key: key != KEY))
def test_a_value_under_another_key_is_refused(key: bytes) -> None:
    assert refusal(VALUE, key).reason is Reason.TAMPERED


@pytest.mark.parametrize(
    "other",
    [
        Account("@bob:example.org", ALICE.device_id),
        Account(ALICE.user_id, "OTHER"),
        # The same letters, divided elsewhere.
        Account(ALICE.user_id + ALICE.device_id[0], ALICE.device_id[1:]),
    ],
)
def test_a_value_of_another_account_is_refused(other: Account) -> None:
    assert refusal(VALUE, seal=Seal(other, [NEW])).reason is Reason.TAMPERED


def test_a_value_relabelled_with_another_data_key_is_refused() -> None:
    relabelled = VALUE[:1] + OLD.id.to_bytes(4, "big") + VALUE[5:]
    # Even where both ids stand for the same key, as no ring has it.
    same = Seal(ALICE, [NEW, replace(NEW, id=OLD.id)])
    assert refusal(relabelled).reason is Reason.TAMPERED
    assert refusal(relabelled, seal=same).reason is Reason.TAMPERED


def test_halves_of_two_values_are_refused() -> None:
    other = SEAL.seal(KEY, PLAIN)
    assert refusal(VALUE[:17] + other[17:]).reason is Reason.TAMPERED


def test_an_unknown_data_key_is_named_by_its_id() -> None:
    error = refusal(Seal(ALICE, [GONE]).seal(KEY, PLAIN))
    assert error.reason is Reason.UNKNOWN_DATA_KEY
    assert error.data_key_id == GONE.id
    assert str(error) == "was sealed with a data key that is not in the key ring"


def test_one_seal_serves_many_threads() -> None:
    wrong: list[int] = []

    def use(number: int) -> None:
        for size in range(1, 300):
            plain = bytes([number]) * size
            if SEAL.open(plain, SEAL.seal(plain, plain)) != plain:
                wrong.append(number)
        done.append(number)

    done: list[int] = []
    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [0, 1, 2, 3]
    assert not wrong


def test_an_openssl_without_the_cipher_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(key: bytes) -> Callable[..., bytes]:
        raise UnsupportedAlgorithm("AES-GCM-SIV is not supported by this version of OpenSSL")

    monkeypatch.setattr(aead, "AESGCMSIV", missing)
    with pytest.raises(ConfigurationError, match=r"does not offer AES-GCM-SIV; install"):
        Seal(ALICE, [NEW])


def test_a_seal_shows_no_key() -> None:
    assert repr(NEW) == "DataKey(id=7)"
    assert repr(NEW.key)[2:-1] not in repr(vars(SEAL))
