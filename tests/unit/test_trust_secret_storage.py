"""Secret storage: key descriptions, passphrases and secrets, by the vectors that other clients are tested with."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptostore.trust import secret_storage, unpadded_base64
from cryptostore.trust.recovery_key import decode
from cryptostore.trust.secret_storage import (
    ALGORITHM,
    KeyDescription,
    Passphrase,
    WrongSecretStorageKey,
    decrypt,
    default_key_id,
    encrypt,
    new_key,
    open_secret,
    seal,
)
from leaks import shown

KEY = bytes(range(32))
OTHER_KEY = bytes(32)
NAME = "m.cross_signing.master"
SECRET = b"0123456789abcdef0123456789abcdef"
CHEAP = Passphrase("salt", iterations=10)

#: A recovery key and its description as matrix-rust-sdk is tested with it; padded.
DESCRIBED_KEY = decode("EsTj 3yST y93F SLpB jJsz eAXc 2XzA ygD3 w69H fGaN TKBj jXEd")
DESCRIPTION = {
    "algorithm": ALGORITHM,
    "iv": "xv5b6/p3ExEw++wTyfSHEg==",
    "mac": "ujBBbXahnTAMkmPUX2/0+VTfUh63pGyVRuBcDMgmJC8=",
}
#: The same with a passphrase; unpadded, and without `bits`.
PASSPHRASE = "It's a secret to everybody"
PASSPHRASE_DESCRIPTION = {
    "algorithm": ALGORITHM,
    "iv": "gH2iNpiETFhApvW6/FFEJQ",
    "mac": "9Lw12m5SKDipNghdQXKjgpfdj1/K7HFI2brO+UWAGoM",
    "passphrase": {"algorithm": "m.pbkdf2", "salt": "IuLnH7S85YtZmkkBJKwNUKxWF42g9O1H", "iterations": 10},
}


def described(content: Any) -> KeyDescription:
    """The description in this content, which has one."""
    description = KeyDescription.parse("key id", content)
    assert description is not None
    return description


def test_a_key_is_checked_as_other_clients_check_it() -> None:
    description = described(DESCRIPTION)
    assert description.can_check
    description.check(DESCRIBED_KEY)
    with pytest.raises(WrongSecretStorageKey, match="'key id': it is without a typing error, but of another"):
        description.check(KEY)


def test_a_passphrase_is_derived_as_other_clients_derive_it() -> None:
    description = described(PASSPHRASE_DESCRIPTION)
    assert len(description.from_passphrase(PASSPHRASE)) == 32
    with pytest.raises(WrongSecretStorageKey) as caught:
        description.from_passphrase("It's a secret to nobody")
    assert "nobody" not in shown(caught.value)


def test_a_description_made_here_is_read_again() -> None:
    key = new_key()
    description = KeyDescription.make(key)
    assert described(description.content()) == KeyDescription("key id", description.iv, description.mac)
    assert description.event_type == f"m.secret_storage.key.{description.key_id}"
    assert description.content().keys() == {"algorithm", "iv", "mac"}
    description.check(key)
    with pytest.raises(WrongSecretStorageKey):
        description.check(KEY)


def test_a_description_made_with_a_passphrase_is_opened_by_it() -> None:
    key = CHEAP.derive(PASSPHRASE)
    description = described(KeyDescription.make(key, CHEAP).content())
    assert description.from_passphrase(PASSPHRASE) == key
    assert description.content()["passphrase"] == {
        "algorithm": "m.pbkdf2",
        "salt": "salt",
        "iterations": 10,
        "bits": 256,
    }


def test_new_passphrases_have_salts_of_their_own_and_many_iterations() -> None:
    first, second = Passphrase.new(), Passphrase.new()
    assert first.salt != second.salt
    assert first.iterations == 500_000
    assert first.bits == 256


def test_salt_iterations_and_bits_are_honoured() -> None:
    assert Passphrase("sält", 3, 512).derive("pässword") == hashlib.pbkdf2_hmac(
        "sha512", "pässword".encode(), "sält".encode(), 3, 64
    )
    content = KeyDescription.make(Passphrase("s", 2, 128).derive("p"), Passphrase("s", 2, 128)).content()
    assert len(described(content).from_passphrase("p")) == 16


@pytest.mark.parametrize("iterations", [-1, 0, 5_000_001, 10**18])
def test_an_absurd_number_of_iterations_is_refused(iterations: int) -> None:
    content = {**PASSPHRASE_DESCRIPTION, "passphrase": {"algorithm": "m.pbkdf2", "salt": "s", "iterations": iterations}}
    with pytest.raises(ValueError, match=f"asks for {iterations} iterations of PBKDF2.*use the recovery key"):
        described(content).from_passphrase(PASSPHRASE)


@pytest.mark.parametrize(("iterations", "bits"), [(1, 128), (5_000_000, 1024)])
def test_the_ends_of_what_is_derived_with(iterations: int, bits: int) -> None:
    assert Passphrase("salt", iterations, bits).content() == {
        "algorithm": "m.pbkdf2",
        "salt": "salt",
        "iterations": iterations,
        "bits": bits,
    }


@pytest.mark.parametrize("bits", [0, 64, 127, 255, 1025, 1032, 2048])
def test_an_absurd_number_of_bits_is_refused(bits: int) -> None:
    with pytest.raises(ValueError, match=f"a key of {bits} bits.*use the recovery key"):
        Passphrase("salt", 10, bits)


@pytest.mark.parametrize(
    ("passphrase", "reason"),
    [
        (None, "has no passphrase; use the recovery key"),
        ("text", "in another way than m.pbkdf2; use the recovery key"),
        ({}, "in another way"),
        ({"algorithm": "m.argon2"}, "in another way"),
        ({"algorithm": "m.pbkdf2", "salt": 5, "iterations": 10}, "of the right types"),
        ({"algorithm": "m.pbkdf2", "salt": "s"}, "of the right types"),
        ({"algorithm": "m.pbkdf2", "salt": "s", "iterations": True}, "of the right types"),
        ({"algorithm": "m.pbkdf2", "salt": "s", "iterations": 1.5}, "of the right types"),
        ({"algorithm": "m.pbkdf2", "salt": "s", "iterations": 1, "bits": "256"}, "of the right types"),
    ],
)
def test_a_passphrase_that_cannot_be_derived_leaves_the_recovery_key(passphrase: Any, reason: str) -> None:
    description = described({**DESCRIPTION, "passphrase": passphrase})
    description.check(DESCRIBED_KEY)
    with pytest.raises(ValueError, match=reason):
        description.from_passphrase(PASSPHRASE)


@pytest.mark.parametrize(("passphrase", "salt"), [("secret \ud800", "salt"), ("secret", "\udfff")])
def test_a_passphrase_without_utf8_is_refused_and_not_shown(passphrase: str, salt: str) -> None:
    with pytest.raises(ValueError, match="whole Unicode characters") as caught:
        Passphrase(salt, 1).derive(passphrase)
    assert "secret" not in shown(caught.value)


@pytest.mark.parametrize("left_out", [("iv", "mac"), ("iv",), ("mac",)])
def test_without_iv_or_mac_a_description_refuses_no_key(left_out: tuple[str, ...]) -> None:
    description = described({name: value for name, value in DESCRIPTION.items() if name not in left_out})
    assert not description.can_check
    description.check(OTHER_KEY)


@pytest.mark.parametrize("content", [{}, None, [], "text", 5])
def test_what_was_deleted_is_absent(content: Any) -> None:
    assert KeyDescription.parse("key id", content) is None
    assert default_key_id(content) is None
    assert open_secret(NAME, "key id", KEY, content) is None


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"algorithm": "m.secret_storage.custom"}, "for another algorithm"),
        ({"algorithm": None}, "for another algorithm"),
        ({"iv": "AAAA"}, "the iv of .* damaged: the base64 of 3 bytes instead of 16"),
        ({"mac": "!"}, "the mac of .* damaged: not a base64 text"),
        ({"mac": 5}, "the mac of .* damaged"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        KeyDescription.parse("key id", {**DESCRIPTION, **changed})


@pytest.mark.parametrize(("name", "kept"), [("m.default", "m.default"), (5, None)])
def test_a_name_is_kept_if_it_is_one(name: Any, kept: str | None) -> None:
    assert described({**DESCRIPTION, "name": name}).name == kept
    assert described({**DESCRIPTION, "name": name}).content().get("name") == kept


@pytest.mark.parametrize(("content", "key_id"), [({"key": "abc"}, "abc"), ({"key": ""}, None), ({"key": 5}, None)])
def test_the_default_key_is_the_one_that_is_named(content: Any, key_id: str | None) -> None:
    assert default_key_id(content) == key_id


@given(st.binary(max_size=100), st.text(st.characters(codec="utf-8")), st.binary(min_size=16, max_size=64))
def test_a_secret_comes_back_padded_or_not(secret: bytes, name: str, key: bytes) -> None:
    content = encrypt(name, key, secret)
    assert all("=" not in each for each in content.values())
    padded = {part: text + "=" * (-len(text) % 4) for part, text in content.items()}
    assert decrypt(name, key, content) == decrypt(name, key, padded) == secret


def test_counters_do_not_overflow_their_lower_half() -> None:
    for _ in range(64):
        iv = unpadded_base64.decode(encrypt(NAME, KEY, SECRET)["iv"], size=16)
        assert iv[8] < 0x80


def test_no_secret_is_encrypted_alike_twice() -> None:
    assert encrypt(NAME, KEY, SECRET) != encrypt(NAME, KEY, SECRET)


@pytest.mark.parametrize(("name", "key"), [(NAME, OTHER_KEY), ("m.cross_signing.self_signing", KEY)])
def test_another_key_or_name_does_not_open_a_secret(name: str, key: bytes) -> None:
    content = seal(NAME, "key id", KEY, SECRET)
    with pytest.raises(WrongSecretStorageKey, match=f"{name} in secret storage was encrypted with another key"):
        open_secret(name, "key id", key, content)


@given(st.sampled_from(["iv", "ciphertext", "mac"]), st.integers(0, 10))
def test_a_changed_secret_is_refused_or_not_the_secret(part: str, position: int) -> None:
    content = encrypt(NAME, KEY, SECRET)
    raw = bytearray(unpadded_base64.decode(content[part]))
    raw[position] ^= 1
    content[part] = unpadded_base64.encode(bytes(raw))
    # The MAC is over the ciphertext alone, so another iv opens to another text.
    if part == "iv":
        assert decrypt(NAME, KEY, content) != SECRET
        return
    with pytest.raises(WrongSecretStorageKey):
        decrypt(NAME, KEY, content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no encrypted secret"),
        ({}, "no encrypted secret: not a base64 text"),
        ({"iv": "AAAA", "mac": "AAAA", "ciphertext": "AAAA"}, "3 bytes instead of 16"),
        ({"iv": "A" * 22, "mac": "AAAA", "ciphertext": "AAAA"}, "3 bytes instead of 32"),
        ({"iv": "A" * 22, "mac": "A" * 43, "ciphertext": None}, "not a base64 text"),
    ],
)
def test_account_data_that_is_no_secret_is_refused(content: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decrypt(NAME, KEY, content)


def test_a_seed_is_stored_as_the_text_of_its_base64() -> None:
    content = seal(NAME, "key id", KEY, SECRET)
    assert content.keys() == {"encrypted"}
    assert decrypt(NAME, KEY, content["encrypted"]["key id"]) == unpadded_base64.encode(SECRET).encode()
    assert open_secret(NAME, "key id", KEY, content) == SECRET
    padded = {"encrypted": {"key id": encrypt(NAME, KEY, unpadded_base64.encode(SECRET).encode() + b"=")}}
    assert open_secret(NAME, "key id", KEY, padded) == SECRET


@pytest.mark.parametrize("content", [{"encrypted": {}}, {"encrypted": "text"}, {"encrypted": {"other id": {}}}])
def test_a_secret_for_another_key_is_absent(content: Any) -> None:
    assert open_secret(NAME, "key id", KEY, content) is None


@pytest.mark.parametrize("text", [b"secret", b"secret \xff\xfe", b"c2VjcmV0", b""])
def test_a_secret_of_another_form_is_refused_and_not_shown(text: bytes) -> None:
    with pytest.raises(ValueError, match=f"{NAME} in secret storage is no secret of 32 bytes") as caught:
        open_secret(NAME, "key id", KEY, {"encrypted": {"key id": encrypt(NAME, KEY, text)}})
    assert text == b"" or repr(text)[2:-1] not in shown(caught.value).replace("secret storage is no secret", "")


def test_new_keys_differ() -> None:
    assert new_key() != new_key()
    assert len(new_key()) == secret_storage.KEY_BYTES
