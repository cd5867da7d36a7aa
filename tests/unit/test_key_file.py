"""The file of exported room keys: what others wrote is read, and what is wrong with a file is told apart."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from nio.crypto.key_export import decrypt_and_read, encrypt_and_save

from cryptostore import ConfigurationError, InboundGroupSession
from cryptostore.trust import key_file
from cryptostore.trust.key_backup import UNKNOWN_KEY
from cryptostore.trust.key_file import FOOTER, HEADER, KeyFile, KeyFileWriter
from example_records import example
from leaks import shown

PASSPHRASE: Final = "a passphrase, ünguessable"

#: Vectors of matrix-js-sdk's and matrix-react-sdk's tests: passphrase, text, base64.
VECTORS: Final = [
    (
        "password",
        b"plain",
        b"AXNhbHRzYWx0c2FsdHNhbHSIiIiIiIiIiIiIiIiIiIiIAAAACmIRUW2OjZ3L2l6j9h0lHlV3M2dx\ncissyYBxjsfsAndErh065A8=",
    ),
    (
        "betterpassword",
        b"Hello, World",
        b"AW1vcmVzYWx0bW9yZXNhbHT//////////wAAAAAAAAAAAAAD6KyBpe1Niv5M5NPm4ZATsJo5nghk\nKYu63a0YQ5DRhUWEKk7CcMkrKnAUiZny",
    ),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.txt"


def write(file: Path, *items: object, rounds: int = 1_000) -> bytes:
    """Write a list, an item at a time, and return the file."""
    with file.open("wb") as opened:
        writer = KeyFileWriter(opened, PASSPHRASE, rounds)
        writer.write(b"[")
        for number, item in enumerate(items):
            writer.write((b"," if number else b"") + json.dumps(item).encode())
        writer.write(b"]")
        writer.end()
    return file.read_bytes()


def read(file: Path, passphrase: str = PASSPHRASE) -> list[Any]:
    return list(KeyFile(file, passphrase).items())


@pytest.mark.parametrize(("passphrase", "text", "payload"), VECTORS)
def test_the_vectors_of_others(file: Path, passphrase: str, text: bytes, payload: bytes) -> None:
    file.write_bytes(b"\n".join([HEADER, payload, FOOTER]))
    opened = KeyFile(file, passphrase)
    with file.open("rb") as again:
        assert b"".join(opened._decrypted(again)) == text
    with pytest.raises(ConfigurationError, match="what it holds is no list of room keys"):
        list(opened.items())


@pytest.mark.parametrize("number", [0, 1, 2, 50])
def test_nio_reads_what_is_written_and_what_nio_writes_is_read(file: Path, number: int) -> None:
    items = [{"number": each, "text": "x" * 100, "id": "ü"} for each in range(number)]
    # nio takes a passphrase for Latin-1, and everybody else for UTF-8.
    write(file, *items)
    assert json.loads(decrypt_and_read(str(file), PASSPHRASE.encode().decode("latin-1"))) == items
    assert read(file) == items
    other = file.with_name("nio.txt")
    encrypt_and_save(json.dumps(items).encode(), str(other), PASSPHRASE, count=1_000)
    assert read(other) == items


@pytest.mark.parametrize("number", [0, 1, 3])
def test_sessions_are_written_as_clients_export_them(file: Path, number: int) -> None:
    sessions = [example(InboundGroupSession, session_id=str(each), session_key=b"\x01\x02") for each in range(number)]
    with file.open("wb") as opened:
        assert KeyFileWriter(opened, PASSPHRASE, 10).write_all(sessions) == number
    items = read(file)
    assert [each["session_id"] for each in items] == [each.session_id for each in sessions]
    for item, session in zip(items, sessions, strict=True):
        assert item == {
            "algorithm": "m.megolm.v1.aes-sha2",
            "forwarding_curve25519_key_chain": list(session.forwarding_chain),
            "room_id": session.room_id,
            "sender_claimed_keys": {"ed25519": session.signing_key},
            "sender_key": session.sender_key,
            "session_id": session.session_id,
            "session_key": "AQI",
        }


def test_a_session_without_a_signing_key_claims_none(file: Path) -> None:
    with file.open("wb") as opened:
        KeyFileWriter(opened, PASSPHRASE, 10).write_all([example(InboundGroupSession, signing_key=UNKNOWN_KEY)])
    assert [each["sender_claimed_keys"] for each in read(file)] == [{}]


def test_a_file_is_larger_than_a_step(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_file, "_STEP", 100)
    items = [{"number": number} for number in range(200)]
    write(file, *items)
    assert read(file) == items


def test_each_file_has_its_own_salt_and_counter_with_bit_63_unset(file: Path) -> None:
    heads = [base64.b64decode(write(file).split(b"\n")[1])[:37] for _ in range(40)]
    assert len({head[1:17] for head in heads}) == len({head[17:33] for head in heads}) == 40
    assert not any(head[25] & 0x80 for head in heads)
    assert {head[33:37] for head in heads} == {(1_000).to_bytes(4, "big")}
    assert key_file.ROUNDS == 500_000


@pytest.mark.parametrize(
    "spelt",
    [
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: b"\xef\xbb\xbf\n " + text + b"\n\n",
        lambda text: HEADER + b"".join(text.split(b"\n")[1:-2]) + FOOTER,
        lambda text: text.replace(b"=", b""),
    ],
    ids=["windows", "mark before it", "one line", "unpadded"],
)
def test_other_spellings(file: Path, spelt: Callable[[bytes], bytes]) -> None:
    file.write_bytes(spelt(write(file, {"a": 1}, {"b": 2})))
    assert read(file) == [{"a": 1}, {"b": 2}]


def test_a_wrong_passphrase_is_told_from_damage(file: Path) -> None:
    text = write(file, *[{"number": number} for number in range(20)])
    with pytest.raises(ConfigurationError, match=r"the passphrase is not the one that .* was exported with"):
        read(file, "another")
    for place in (-60, -120, -300):
        changed = b"B" if text[place : place + 1] != b"B" else b"C"
        file.write_bytes(text[:place] + changed + text[place + 1 :])
        with pytest.raises(ConfigurationError, match="is damaged: the passphrase is right"):
            read(file)


def reencoded(text: bytes, first: bytes) -> bytes:
    """The file, with another first byte."""
    payload = base64.b64decode(b"".join(text.split(b"\n")[1:-2]))
    return b"\n".join([HEADER, base64.b64encode(first + payload[1:]), FOOTER])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda _text: b"", "is no file of exported room keys: such a file begins with -----BEGIN MEGOLM"),
        (lambda _text: b"SQLite format 3\0" + bytes(200), "is no file of exported room keys"),
        (lambda text: text[:-40], "was cut off"),
        (lambda text: text[:-10], "was cut off"),
        (lambda text: text[:100], "was cut off"),
        (lambda text: text + text, "goes on after the end of its room keys"),
        (lambda text: text + b"\n" * 600_000 + b"-", "goes on after the end of its room keys"),
        (lambda text: text.replace(b"\n", b"\n?", 2), "no base64"),
        (lambda _text: HEADER + b"\n" + FOOTER, "too short"),
        (lambda _text: HEADER + b"\nAQID\n" + FOOTER, "too short"),
        (lambda text: reencoded(text, b"\x02"), "has version 2 of the format"),
    ],
)
def test_damaged_files(file: Path, spoil: Callable[[bytes], bytes], words: str) -> None:
    text = write(file, {"a": 1}, {"b": 2})
    file.write_bytes(spoil(text))
    with pytest.raises(ConfigurationError, match=words):
        read(file)


@pytest.mark.parametrize("rounds", [0, 2**32 - 1])
def test_a_number_of_rounds_that_would_hold_up_the_reader(file: Path, rounds: int) -> None:
    first = write(file).split(b"\n")[1]
    head = bytearray(base64.b64decode(first))
    head[33:37] = rounds.to_bytes(4, "big")
    file.write_bytes(file.read_bytes().replace(first, base64.b64encode(head)))
    with pytest.raises(ConfigurationError, match="a number of rounds that no client writes"):
        read(file)


# One that is nested without end takes the memory of the machine.
@pytest.mark.parametrize("plain", [b'[{"a": 1}, {"b"', b"[{]", b"[" * 100 + b"]" * 100])
def test_a_list_that_breaks_off(file: Path, plain: bytes) -> None:
    with file.open("wb") as opened:
        writer = KeyFileWriter(opened, PASSPHRASE, 10)
        writer.write(plain)
        writer.end()
    with pytest.raises(ConfigurationError, match="the list of room keys in it breaks off"):
        read(file)


def test_a_file_that_is_not_there(file: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read(file)


def test_a_passphrase_that_is_no_text_is_not_shown(file: Path) -> None:
    write(file)
    for call in (lambda: read(file, "a secret \udcff"), lambda: KeyFileWriter(io.BytesIO(), "a secret \udcff")):
        with pytest.raises(ConfigurationError, match=r"the passphrase is not UTF-8 text$") as caught:
            call()
        assert "a secret" not in shown(caught.value)


@pytest.mark.parametrize("rounds", [-1, 0, 10_000_001, 2**32])
def test_nothing_is_written_that_would_not_be_read(rounds: int) -> None:
    with pytest.raises(ConfigurationError, match="the number of rounds is one from 1 to 10,000,000"):
        KeyFileWriter(io.BytesIO(), PASSPHRASE, rounds)
