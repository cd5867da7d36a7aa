"""The file of one account: what is in it, and how each damage is told."""

from __future__ import annotations

import hashlib
import io
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from cryptostore import ConfigurationError, Row, SchemaTooNew
from cryptostore.store import backup_file
from cryptostore.store.backup_file import BackupFile, BackupWriter
from cryptostore.store.interface import MAX_STORED_BYTES
from cryptostore.store.ring import DataKey, Ring
from example_records import ALICE
from leaks import shown

PASSPHRASE: Final = "a passphrase, ünguessable"
MADE_AT: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RING: Final = Ring(3, (DataKey(7, b"\x07" * 32),), (), b"\x0a" * 32, 1)
ROWS: Final = [Row(b"\x01", b"one"), Row(b"\x02two", b""), Row(b"\xfe", b"three")]
#: Enough for three chunks and a bit.
LARGE: Final = [Row(b"\x04" + number.to_bytes(2, "big"), bytes([number]) * 1_000) for number in range(200)]
CHUNK: Final = 64 * 1024 + 16

#: A file with ROWS as the first release wrote it. Files are kept for years, so it must open for ever.
GOLDEN: Final = b64decode(
    """
    bWF0cml4LWNyeXB0b3N0b3JlIGJhY2t1cAoBAHmGp3VzZXJfaWSyQGFsaWNlOmV4YW1wbGUub3JnqWRldmljZV9pZKtBTElDRURFVklDRadtYWRl
    X2F01v9pVzWlpGNvc3QQpHNhbHTEEFe9dkMbMKF5R8B6dx/Osa+pa2V5X2NoZWNrxBBGb4dYc3czT6wVmbO3mWD9yhn6gwMZYCbSGfkvvVrIABD2
    K7Gmvbg3YUfrmvmyAU6nJlDNeseMga4SxsFuc5PiE3WIVdKTUlvc8Io5uFfsQ6I6fnQLou8vITQzgZA6OuaO1SM+34TW2GJyAcHR7gitK6yNiQeT
    iSAtFH3oRyi/sfmKv4eFBjuyt1jsSpcQxYLxV06eQtNbIqESepxheJe6y+4g8ZQ76QyHAE2fPoq60h4i2LvEJ/jGvr6AhOZdM+M8EV4hwVCrRho5
    hZ/Uqapw1hCKEqg=
    """
)


@pytest.fixture(autouse=True)
def cheap_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_file, "COST", 10)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "alice.backup"


def written(*rows: Row, passphrase: str = PASSPHRASE) -> bytes:
    file = io.BytesIO()
    writer = BackupWriter(file, ALICE, passphrase, MADE_AT)
    writer.write_ring(RING)
    for row in rows:
        writer.write(row)
    writer.end()
    return file.getvalue()


def read(path: Path, text: bytes, passphrase: str = PASSPHRASE) -> list[Row]:
    path.write_bytes(text)
    return list(BackupFile(path, passphrase).rows())


def refusal(path: Path, text: bytes, passphrase: str = PASSPHRASE, error: type[Exception] = ConfigurationError) -> str:
    with pytest.raises(error) as caught:
        read(path, text, passphrase)
    assert type(caught.value) is error
    assert PASSPHRASE not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def start_of(text: bytes) -> int:
    """Where the chunks begin."""
    return 29 + int.from_bytes(text[27:29], "big") + 8


def chunks_of(text: bytes) -> tuple[bytes, list[bytes]]:
    start = start_of(text)
    return text[:start], [text[at : at + CHUNK] for at in range(start, len(text), CHUNK)]


def with_header(text: bytes, *, version: bytes = b"\x01", **changed: Any) -> bytes:
    """The file with another header, whose checksum is right."""
    start = start_of(text)
    header = msgspec.msgpack.encode(msgspec.msgpack.decode(text[29 : start - 8]) | changed)
    body = text[:26] + version + len(header).to_bytes(2, "big") + header
    return body + hashlib.sha256(body).digest()[:8] + text[start:]


def test_what_was_ever_written_can_be_read(path: Path) -> None:
    assert read(path, GOLDEN) == ROWS
    file = BackupFile(path, PASSPHRASE)
    assert (file.account, file.made_at, file.ring()) == (ALICE, MADE_AT, RING)


@pytest.mark.parametrize("rows", [[], ROWS, LARGE, [Row(b"\x04", bytes(MAX_STORED_BYTES))]])
def test_what_is_written_is_read(path: Path, rows: list[Row]) -> None:
    text = written(*rows)
    assert read(path, text) == rows
    assert BackupFile(path, PASSPHRASE).ring() == RING
    for row in rows:
        assert len(row.value) < 10 or row.value not in text


def test_a_last_chunk_that_is_full(path: Path) -> None:
    room = 64 * 1024 - len(written()) + start_of(written()) + 16 - 6 - 1
    for size in (room - 1, room, room + 1):
        rows = [Row(b"\x04", bytes(size))]
        text = written(*rows)
        assert read(path, text) == rows
        assert len(chunks_of(text)[1]) == 1 + (size > room)


def test_each_file_has_its_own_salt() -> None:
    assert len({written(*ROWS)[start_of(written()) :] for _ in range(10)}) == 10


def test_a_wrong_passphrase_is_told_from_damage(path: Path) -> None:
    said = refusal(path, written(*ROWS), "another")
    assert "the passphrase is not the one that" in said
    assert "Nothing is damaged" in said
    with pytest.raises(ConfigurationError, match="the passphrase is not the one"):
        BackupFile(path, PASSPHRASE.upper())


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda before, chunks: [before, *chunks[:-1]], "it was cut off"),
        (lambda before, chunks: [before, chunks[0]], "it was cut off"),
        (lambda before, _chunks: [before], "part 1 of it was changed, is not in its place, or was cut off"),
        (lambda before, chunks: [before, *chunks[:-1], chunks[-1][:-1]], "part 4 of it was changed"),
        (lambda before, chunks: [before, chunks[0][:16]], "part 1 of it was changed"),
        (lambda before, chunks: [before, *chunks, b"x"], "something was added to its end|part 4 of it"),
        (lambda before, chunks: [before, chunks[1], chunks[0], *chunks[2:]], "part 1 of it was changed"),
        (lambda before, chunks: [before, chunks[0], chunks[2], chunks[1], chunks[3]], "part 2 of it was changed"),
        (lambda before, chunks: [before, chunks[0], *chunks[2:]], "part 2 of it was changed"),
        (lambda before, chunks: [before, chunks[0], chunks[0], *chunks[1:]], "part 2 of it was changed"),
        (lambda before, chunks: [before, bytes([chunks[0][0] ^ 1]) + chunks[0][1:], *chunks[1:]], "part 1 of it"),
        (lambda before, chunks: [before[:40] + b"?" + before[41:], *chunks], "its beginning was changed"),
        (lambda before, _chunks: [before[:-1]], "its beginning was changed, or is not whole"),
        (lambda before, _chunks: [before[:28]], "its beginning was changed, or is not whole"),
        (lambda before, _chunks: [before[:26]], "its beginning was changed, or is not whole"),
    ],
)
def test_damage(path: Path, spoil: Callable[[bytes, list[bytes]], list[bytes]], words: str) -> None:
    before, chunks = chunks_of(written(*LARGE))
    assert len(chunks) == 4
    path.write_bytes(b"".join(spoil(before, chunks)))
    with pytest.raises(ConfigurationError, match=words) as caught:
        list(BackupFile(path, PASSPHRASE).rows())
    assert "is damaged: " in str(caught.value)


def test_something_behind_a_last_chunk_that_is_full(path: Path) -> None:
    room = 64 * 1024 - len(written()) + start_of(written()) + 16 - 6 - 1
    assert "something was added to its end" in refusal(path, written(Row(b"\x04", bytes(room))) + b"x")


def test_chunks_of_another_file_with_the_same_passphrase(path: Path) -> None:
    ours, (other, chunks) = written(*LARGE), chunks_of(written(*LARGE))
    assert "part 1 of it was changed" in refusal(path, ours[: len(other)] + b"".join(chunks))


@pytest.mark.parametrize("text", [b"", b"-----BEGIN MEGOLM SESSION DATA-----\n", b"SQLite format 3\0" + bytes(200)])
def test_another_file(path: Path, text: bytes) -> None:
    said = refusal(path, text)
    assert "is no backup of an account: `cryptostore backup` makes such files" in said


def test_a_newer_programs_file(path: Path) -> None:
    said = refusal(path, with_header(written(*ROWS), version=b"\x02"), error=SchemaTooNew)
    assert "newer version" in said


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"cost": 30}, "it asks for scrypt with N = 2^30"),
        ({"cost": 1}, "it asks for scrypt with N = 2^1"),
        ({"cost": "much"}, "its header says not what it should"),
        ({"salt": b"short"}, "its header says not what it should"),
        ({"made_at": "2026-01-02T03:04:05"}, "a time without a zone"),
        ({"user_id": ""}, "it names no account that can be"),
        ({"device_id": "x" * 300}, "it names no account that can be"),
        # What is whole, and of another account: the chunks tell.
        ({"device_id": "OTHER"}, "part 1 of it was changed"),
    ],
)
def test_headers_that_anybody_may_have_written(path: Path, changed: dict[str, Any], words: str) -> None:
    said = refusal(path, with_header(written(*ROWS), **changed))
    assert "is damaged: " in said
    assert words in said


@pytest.mark.parametrize(
    "rows",
    [ROWS[::-1], [ROWS[0], ROWS[0]], [Row(b"\x00", b"x")], [Row(b"\x00\x01", b"x")], [Row(b"\xff", b"x")]],
)
def test_rows_where_none_can_be(path: Path, rows: list[Row]) -> None:
    assert "its rows are out of order" in refusal(path, written(*rows))


@pytest.mark.parametrize("size", [Row(bytes(1_025), b""), Row(b"\x04", bytes(MAX_STORED_BYTES + 1))])
def test_a_row_that_is_too_large(path: Path, size: Row) -> None:
    assert "a row in it is larger than rows are" in refusal(path, written(size))


def test_a_row_that_is_not_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    writer = BackupWriter(file, ALICE, PASSPHRASE, MADE_AT)
    writer.write_ring(RING)
    writer._waiting += b"\0\1"
    writer.end()
    assert "its last row is not whole" in refusal(path, file.getvalue())


@pytest.mark.parametrize("encoded", [b"\xc0", b""])
def test_a_ring_that_is_none(path: Path, monkeypatch: pytest.MonkeyPatch, encoded: bytes) -> None:
    monkeypatch.setattr(backup_file, "encode_ring", lambda _ring: encoded)
    assert "the key ring in it is none" in refusal(path, written(*ROWS))


def test_a_ring_of_a_newer_program(path: Path) -> None:
    file = io.BytesIO()
    writer = BackupWriter(file, ALICE, PASSPHRASE, MADE_AT)
    writer.write_ring(Ring(1, RING.data_keys, (), RING.replay_key, 99))
    writer.end()
    path.write_bytes(file.getvalue())
    with pytest.raises(SchemaTooNew, match="newer version"):
        BackupFile(path, PASSPHRASE).ring()


def test_a_file_that_is_replaced_while_it_is_read(path: Path) -> None:
    path.write_bytes(written(*ROWS))
    file = BackupFile(path, PASSPHRASE)
    path.write_bytes(written(*ROWS))
    with pytest.raises(ConfigurationError, match="it was replaced while it was read"):
        list(file.rows())


def test_a_file_that_cannot_be_read(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        BackupFile(path, PASSPHRASE)
    path.mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        BackupFile(path, PASSPHRASE)


def test_no_key_is_shown(path: Path) -> None:
    path.write_bytes(written(*ROWS))
    file = BackupFile(path, PASSPHRASE)
    assert repr(RING.data_keys[0].key)[2:-1] not in repr(file) + repr(vars(file)) + repr(file.ring())


def test_a_passphrase_that_is_no_text_is_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="the passphrase is not UTF-8 text") as caught:
        BackupWriter(io.BytesIO(), ALICE, "a secret \udcff", datetime.now(UTC))
    assert "a secret" not in shown(caught.value)
