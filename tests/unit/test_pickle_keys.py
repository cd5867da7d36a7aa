"""Generated pickle keys and passphrases, and what is derived from them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import re
import string
import threading
import time
from collections.abc import Iterator

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from hypothesis import given
from hypothesis import strategies as st

from cryptostore import ConfigurationError
from cryptostore.store import pickle_keys
from cryptostore.store.pickle_keys import derive, is_generated, is_weak, new_pickle_key, warn_if_weak
from example_records import ALICE, SECRET
from leaks import shown

#: The generated key of the bytes 0 to 31. It must open what it ever sealed.
GENERATED = "csk1_aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypqsmlwwk"
PASSPHRASE = "correct horse battery staple"
SALT = bytes(16)
COST = 10
ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
BODY = GENERATED.removeprefix("csk1_")


def refusal(pickle_key: str) -> str:
    """What is said of a key with a typing error. None of the key is in it."""
    with pytest.raises(ConfigurationError) as caught:
        derive(pickle_key, SALT, COST)
    for start in range(len(BODY) - 5):
        assert BODY[start : start + 5] not in shown(caught.value).lower()
    return str(caught.value)


def test_a_new_key_is_a_generated_key_of_its_own() -> None:
    keys = {new_pickle_key() for _ in range(20)}
    assert len(keys) == 20
    for key in keys:
        assert re.fullmatch("csk1_[a-z2-7]{58}", key)
        assert is_generated(key)


def test_a_generated_key_goes_through_hkdf() -> None:
    raw = base64.b32decode(BODY[:52].upper() + "====")
    assert raw == bytes(range(32))
    extracted = hmac.digest(SALT, raw, "sha256")
    assert derive(GENERATED, SALT, COST) == hmac.digest(extracted, b"cryptostore pickle key\x01", "sha256")


def test_a_passphrase_goes_through_scrypt() -> None:
    expected = hashlib.scrypt(PASSPHRASE.encode(), salt=SALT, n=2**COST, r=8, p=3, dklen=32)
    assert derive(PASSPHRASE, SALT, COST) == expected


def test_derivations_never_change() -> None:
    generated, passphrase = derive(GENERATED, SALT, 0), derive(PASSPHRASE, SALT, 15)
    assert generated.hex() == "514824887d8e0674fe45ae8ef04f61c65e886950f1608290601dce73730c7858"
    assert passphrase.hex() == "45834b8928882f2a9e63716e0ff4158b731f2e3fca04e8a2a985f7b626da958e"


def test_the_salt_and_the_cost_count() -> None:
    assert derive(GENERATED, b"a" * 16, COST) != derive(GENERATED, b"b" * 16, COST)
    assert derive(PASSPHRASE, b"a" * 16, COST) != derive(PASSPHRASE, b"b" * 16, COST)
    assert derive(PASSPHRASE, SALT, COST) != derive(PASSPHRASE, SALT, COST + 1)


def test_only_a_passphrase_has_a_cost() -> None:
    assert derive(GENERATED, SALT, 0) == derive(GENERATED, SALT, 18)


@given(st.lists(st.tuples(st.booleans(), st.text(" \t\r\n\u00a0\u2003", max_size=3)), min_size=63, max_size=63))
def test_white_space_and_case_do_not_matter_in_a_generated_key(typed: list[tuple[bool, str]]) -> None:
    key = "".join(
        space + (character.upper() if capital else character)
        for character, (capital, space) in zip(GENERATED, typed, strict=True)
    )
    assert derive(key + "\n", SALT, COST) == derive(GENERATED, SALT, COST)


@pytest.mark.parametrize("other", [PASSPHRASE.upper(), PASSPHRASE + " ", PASSPHRASE.replace(" ", ""), " " + PASSPHRASE])
def test_white_space_and_case_matter_in_a_passphrase(other: str) -> None:
    assert derive(other, SALT, COST) != derive(PASSPHRASE, SALT, COST)


def test_any_one_changed_character_is_found() -> None:
    for position, right in enumerate(BODY):
        for wrong in set(ALPHABET) - {right}:
            said = refusal("csk1_" + BODY[:position] + wrong + BODY[position + 1 :])
            assert "typing error" in said
            assert "checksum" in said


def test_swapped_neighbours_are_found() -> None:
    for position in range(len(BODY) - 1):
        first, second = BODY[position], BODY[position + 1]
        if first != second:
            assert "checksum" in refusal("csk1_" + BODY[:position] + second + first + BODY[position + 2 :])


def test_a_missing_or_doubled_character_is_found() -> None:
    for position in range(len(BODY)):
        assert "62 characters (white space not counted) instead of 63" in refusal(
            "csk1_" + BODY[:position] + BODY[position + 1 :]
        )
        assert "64 characters" in refusal("csk1_" + BODY[:position] + BODY[position] + BODY[position:])


@pytest.mark.parametrize("wrong", ["0", "1", "8", "9", "-", "_", "é", "\0"])
def test_a_character_that_no_key_has_is_found(wrong: str) -> None:
    assert "character 16 " in refusal(f"csk1_{BODY[:10]}{wrong}{BODY[11:]}")


@pytest.mark.parametrize("beginning", ["csk1_", "CSK1_", " csk1_", "c s\nk\t1 _", "csk1_my own words"])
def test_what_begins_as_a_generated_key_is_never_a_passphrase(beginning: str) -> None:
    for judge in (is_generated, is_weak, lambda key: derive(key, SALT, COST)):
        with pytest.raises(ConfigurationError, match="typing error"):
            judge(beginning)


@pytest.mark.parametrize("passphrase", ["", "csk1", "csk2_" + BODY, "my csk1_", BODY])
def test_everything_else_is_a_passphrase(passphrase: str) -> None:
    assert not is_generated(passphrase)
    assert len(derive(passphrase, SALT, COST)) == 32


def test_a_passphrase_that_is_not_text_is_refused_unseen() -> None:
    with pytest.raises(ConfigurationError, match="UTF-8") as caught:
        derive(f"{SECRET}\udc80", SALT, COST)
    assert SECRET not in shown(caught.value)


def test_short_passphrases_are_weak() -> None:
    assert is_weak("")
    assert is_weak("x" * 15)
    assert not is_weak("x" * 16)
    assert not is_weak(GENERATED)


def test_a_weak_passphrase_draws_a_warning_that_does_not_quote_it(caplog: pytest.LogCaptureFixture) -> None:
    warn_if_weak(ALICE, SECRET)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert str(ALICE) in caplog.text
    assert "cryptostore rekey" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("pickle_key", ["", "DEFAULT_KEY"])
def test_a_public_pickle_key_draws_one_warning_of_its_own(pickle_key: str, caplog: pytest.LogCaptureFixture) -> None:
    warn_if_weak(ALICE, pickle_key)
    (message,) = caplog.messages
    assert message.startswith(f"the pickle key of {ALICE} is one that everybody knows")
    assert "cryptostore rekey" in message


def test_a_good_pickle_key_draws_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    warn_if_weak(ALICE, GENERATED)
    warn_if_weak(ALICE, PASSPHRASE)
    assert not caplog.records


class Watched:
    """scrypt, and how many threads were in it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self.calls = 0
        self.most_at_once = 0

    def __call__(self, **parameters: int) -> Watched:
        self._scrypt = Scrypt(salt=SALT, length=32, n=2, r=8, p=3)
        return self

    def derive(self, passphrase: bytes) -> bytes:
        with self._lock:
            self.calls += 1
            self._inside += 1
            self.most_at_once = max(self.most_at_once, self._inside)
        # Long enough for every other thread to come in, if it may.
        time.sleep(0.02)
        with self._lock:
            self._inside -= 1
        return b""


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    watched = Watched()
    pickle_keys.stretched.cache_clear()
    monkeypatch.setattr(pickle_keys, "Scrypt", watched)
    yield watched
    pickle_keys.stretched.cache_clear()


def test_fewer_derivations_run_at_once_than_there_are_cores(watched: Watched) -> None:
    cores = os.cpu_count() or 1
    threads = [
        threading.Thread(target=derive, args=(PASSPHRASE, bytes([number]) * 16, COST)) for number in range(cores + 3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert watched.calls == len(threads)
    assert watched.most_at_once == max(1, cores - 1)


def test_opening_again_derives_nothing(watched: Watched) -> None:
    derive(PASSPHRASE, SALT, COST)
    derive(PASSPHRASE, SALT, COST)
    assert watched.calls == 1
    derive(PASSPHRASE + string.punctuation, SALT, COST)
    assert watched.calls == 2


def test_an_openssl_without_scrypt_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(**parameters: int) -> Scrypt:
        raise UnsupportedAlgorithm("scrypt")

    monkeypatch.setattr(pickle_keys, "Scrypt", missing)
    with pytest.raises(ConfigurationError, match="does not offer scrypt; install"):
        derive(PASSPHRASE, os.urandom(16), COST)
