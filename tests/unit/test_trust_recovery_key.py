"""Recovery keys: whole, damaged, and texts that are none."""

from __future__ import annotations

import functools
import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptostore.trust.recovery_key import DamagedRecoveryKey, NotARecoveryKey, decode, encode
from leaks import shown

#: Known to every Matrix client: the key of the example in RFC 7748, and its recovery key.
KEY = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
TEXT = "EsTc LW2K PGiF wKEA 3As5 g5c4 BXwk qeeJ ZJV8 Q9fu gUMN UE4d"
BARE = TEXT.replace(" ", "")


#: All bytes of the key in one.
KEY_PARITY = functools.reduce(operator.xor, KEY)


def base58(raw: bytes) -> str:
    """Base58, by its definition."""
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number, text = int.from_bytes(raw, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = alphabet[digit] + text
    return text


def test_a_recovery_key_is_what_every_client_makes_of_the_key() -> None:
    assert encode(KEY) == TEXT
    assert decode(TEXT) == KEY


@pytest.mark.parametrize("text", [BARE, f"\n {TEXT}\t\r\n", "EsTcLW2K\nPGiFwKEA 3As5\xa0g5c4BXwkqeeJ ZJV8Q9fugUMNUE4d"])
def test_white_space_does_not_matter(text: str) -> None:
    assert decode(text) == KEY


@given(st.binary(min_size=32, max_size=32))
def test_every_key_comes_back_from_a_text_of_one_length(key: bytes) -> None:
    text = encode(key)
    assert len(text) == 59
    assert text.startswith("Es")
    assert decode(text) == key


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_length_has_no_recovery_key(size: int) -> None:
    with pytest.raises(ValueError, match=f"stands for 32 bytes, not {size}"):
        encode(bytes(size))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BARE[:-1] + "e", "its parity is wrong"),
        (BARE[:10] + BARE[11] + BARE[10] + BARE[12:], "its parity is wrong"),
        ("F" + BARE[1:], "its parity is wrong"),
        # More than 35 bytes.
        ("z" * 48, "its parity is wrong"),
        # Fewer.
        ("1" + BARE[:-1], "its parity is wrong"),
        # Whole, but for another use than secret storage.
        (base58(b"\x8b\x02" + KEY + bytes([KEY_PARITY ^ 0x8B ^ 0x02])), "its parity is wrong"),
        # As many characters as there are, and a byte too many.
        (base58(b"\x01\x8b\x01" + KEY + bytes([KEY_PARITY ^ 0x8B ^ 0x01])), "its parity is wrong"),
        (BARE[:5] + "0" + BARE[6:], "character 6 .* is 0, O, I or l"),
        (TEXT[:-5], "it has 44 characters"),
        (TEXT + " UE4d", "it has 52 characters"),
        (TEXT + "2", "it has 49 characters"),
    ],
)
def test_a_damaged_recovery_key_is_called_so(text: str, reason: str) -> None:
    with pytest.raises(DamagedRecoveryKey, match=reason) as caught:
        decode(text)
    assert "Copy it again" in str(caught.value)
    for start in range(len(BARE) - 4):
        assert BARE[start : start + 5] not in shown(caught.value)


@given(st.integers(0, 47), st.sampled_from("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"))
def test_one_wrong_character_rarely_passes(position: int, character: str) -> None:
    # One byte of parity lets about one mistake of 256 through; the key description's MAC tells of those.
    text = BARE[:position] + character + BARE[position + 1 :]
    try:
        key = decode(text)
    except DamagedRecoveryKey:
        return
    assert (key == KEY) == (text == BARE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "correct horse battery staple",
        "csk1_" + "a" * 58,
        BARE[:40],
        "Es ist " + "ö" * 41,
        BARE + BARE,
        "é" * 48,
    ],
)
def test_a_text_that_is_no_recovery_key_is_called_so(text: str) -> None:
    with pytest.raises(NotARecoveryKey, match="no recovery key") as caught:
        decode(text)
    assert "horse" not in shown(caught.value)
