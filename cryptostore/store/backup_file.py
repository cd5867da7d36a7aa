"""The file of one whole account, encrypted with a passphrase, written and read in bounded memory.

    magic         26 bytes   "matrix-cryptostore backup" and a line feed
    version        1 byte    1
    header size    2 bytes   big-endian
    header                   in MessagePack, by name: user_id, device_id, made_at, cost, salt, key_check
    checksum       8 bytes   SHA-256 of all of the above
    chunks                   AES-256-GCM-SIV of 64 KiB each, the last one of 1 byte to 64 KiB, and its tag of 16 bytes

The passphrase in UTF-8, stretched by scrypt with N = 2^cost, r = 8, p = 3 and the salt, gives by HKDF-Expand-SHA256
with "cryptostore backup" the 32 bytes of the key and the 16 of the key check, which tells a wrong passphrase from
damage. A chunk's nonce is its number, from 0 on, in 11 bytes, big-endian, and a byte that is 1 for the last chunk and
else 0. Everything before the chunks is authenticated beside each. So no chunk, the last one included, can be changed,
left out, added or moved without being noticed: the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár, 2015).

The chunks hold items: the size of a key in 2 bytes, that of a value in 4, both big-endian, the key, and the value. The
first one, whose key is empty, is the key ring in MessagePack. The others are the account's rows in the order of their
keys, each sealed as it is stored.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from struct import Struct
from typing import IO, Annotated, Final, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from cryptostore.errors import ConfigurationError, InvalidRecord, SchemaTooNew
from cryptostore.records.record import Account

from .aead import KEY_BYTES, TAG_BYTES, cipher
from .interface import MAX_KEY_BYTES, MAX_STORED_BYTES, Row
from .marks import MARK_KEY
from .pickle_keys import COSTS, in_utf8, stretched
from .ring import RING_KEYS, Ring, decode_ring, encode_ring

#: The binary logarithm of scrypt's N for what is written from now on: 67 MB of memory, and twice the work of a pickle
#: key's, because a file is easier to steal than a database.
COST: Final = 16

_MAGIC: Final = b"matrix-cryptostore backup\n"
_VERSION: Final = b"\x01"
_CHECKSUM_BYTES: Final = 8
_SALT_BYTES: Final = 16
_KEY_CHECK_BYTES: Final = 16
_SIZE: Final = Struct(">H")
_ITEM: Final = Struct(">HI")
_CHUNK_BYTES: Final = 64 * 1024

_Salt = Annotated[bytes, msgspec.Meta(min_length=_SALT_BYTES, max_length=_SALT_BYTES)]
_KeyCheck = Annotated[bytes, msgspec.Meta(min_length=_KEY_CHECK_BYTES, max_length=_KEY_CHECK_BYTES)]


class _Header(msgspec.Struct, frozen=True):
    user_id: str
    device_id: str
    made_at: datetime
    cost: int
    salt: _Salt
    key_check: _KeyCheck


_encode_header: Final = msgspec.msgpack.Encoder(order="deterministic").encode
_decode_header: Final = msgspec.msgpack.Decoder(_Header).decode


def is_backed_up(row: Row) -> bool:
    """Whether such a file can hold the row. What it cannot hold is no record's: somebody put it into the database."""
    return MARK_KEY < row.key < RING_KEYS[1] and len(row.key) <= MAX_KEY_BYTES and len(row.value) <= MAX_STORED_BYTES


class _Lock(NamedTuple):
    cipher: AESGCMSIV
    key_check: bytes


def _lock(passphrase: str, salt: bytes, cost: int) -> _Lock:
    derived = stretched(in_utf8(passphrase, "the passphrase"), salt, cost)
    keys = HKDFExpand(SHA256(), KEY_BYTES + _KEY_CHECK_BYTES, info=b"cryptostore backup").derive(derived)
    return _Lock(cipher(keys[:KEY_BYTES]), keys[KEY_BYTES:])


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([is_last])


class BackupWriter:
    """Writes such a file to what was opened for it: the ring, then row by row in key order; `end` completes it.

    Making one takes as long as the passphrase takes to stretch. Raises ConfigurationError where OpenSSL has no
    AES-GCM-SIV or scrypt.
    """

    def __init__(self, file: IO[bytes], account: Account, passphrase: str, made_at: datetime) -> None:
        salt = os.urandom(_SALT_BYTES)
        lock = _lock(passphrase, salt, COST)
        header = _encode_header(_Header(account.user_id, account.device_id, made_at, COST, salt, lock.key_check))
        body = _MAGIC + _VERSION + _SIZE.pack(len(header)) + header
        self._file = file
        self._cipher = lock.cipher
        self._before = body + _checksum(body)
        self._waiting = bytearray()
        self._number = 0
        file.write(self._before)

    def write_ring(self, ring: Ring) -> None:
        """Encrypt and write the key ring, before all rows."""
        self.write(Row(b"", encode_ring(ring)))

    def write(self, row: Row) -> None:
        """Encrypt and write one row, sealed as it is; one that `is_backed_up`."""
        self._waiting += _ITEM.pack(len(row.key), len(row.value)) + row.key + row.value
        # What is left may be the last chunk, which is never empty.
        while len(self._waiting) > _CHUNK_BYTES:
            self._write_chunk(bytes(self._waiting[:_CHUNK_BYTES]), is_last=False)
            del self._waiting[:_CHUNK_BYTES]

    def end(self) -> None:
        """Write what is left, as the last chunk."""
        self._write_chunk(bytes(self._waiting), is_last=True)

    def _write_chunk(self, plain: bytes, *, is_last: bool) -> None:
        self._file.write(self._cipher.encrypt(_nonce(self._number, is_last=is_last), plain, self._before))
        self._number += 1


class BackupFile:
    """Such a file, whose passphrase is right.

    Raises ConfigurationError for a file that cannot be read or is no such file, for one that is damaged, and for a
    passphrase that is not the file's; SchemaTooNew for a newer program's. The texts tell these apart.
    """

    def __init__(self, path: Path, passphrase: str) -> None:
        self.path: Final = path
        with self._opened() as file:
            header = self._header(file)
        self.made_at: Final = header.made_at
        self.account: Final = self._account_of(header)
        lock = _lock(passphrase, header.salt, header.cost)
        if not secrets.compare_digest(lock.key_check, header.key_check):
            raise ConfigurationError(
                f"the passphrase is not the one that {path} was made with. Nothing is damaged: give the one that was "
                "used"
            )
        self._cipher = lock.cipher

    def ring(self) -> Ring:
        """The account's key ring. Raises as `rows` does."""
        return self._ring(next(self._items()))

    def rows(self) -> Iterator[Row]:
        """The account's rows, in key order. Raises ConfigurationError as soon as damage is found, SchemaTooNew."""
        items = self._items()
        self._ring(next(items))
        last = MARK_KEY
        for row in items:
            if not (last < row.key and is_backed_up(row)):
                raise self._damaged("its rows are out of order")
            last = row.key
            yield row

    def _header(self, file: IO[bytes]) -> _Header:
        start = file.read(len(_MAGIC) + len(_VERSION) + _SIZE.size)
        if not start.startswith(_MAGIC):
            raise ConfigurationError(
                f"{self.path} is no backup of an account: `cryptostore backup` makes such files. Room keys that a "
                "client exported are for `cryptostore import-keys`"
            )
        version, sizes = start[len(_MAGIC) :][:1], start[len(_MAGIC) + 1 :]
        size = _SIZE.unpack(sizes)[0] if len(sizes) == _SIZE.size else 0
        header, checksum = file.read(size), file.read(_CHECKSUM_BYTES)
        self._before = start + header + checksum
        if _checksum(start + header) != checksum:
            raise self._damaged("its beginning was changed, or is not whole")
        if version != _VERSION:
            raise SchemaTooNew(f"{self.path} was made by a newer version of matrix-cryptostore; upgrade it")
        return self._checked(header)

    def _checked(self, encoded: bytes) -> _Header:
        with suppress(msgspec.DecodeError):
            header = _decode_header(encoded)
            if header.cost in COSTS and header.made_at.tzinfo is not None:
                return header
            # Anybody may have written it, and more would take gigabytes.
            raise self._damaged(f"it asks for scrypt with N = 2^{header.cost}, or has a time without a zone")
        raise self._damaged("its header says not what it should")

    def _account_of(self, header: _Header) -> Account:
        with suppress(InvalidRecord):
            return Account(header.user_id, header.device_id)
        raise self._damaged("it names no account that can be")

    def _ring(self, item: Row) -> Ring:
        ring = None if item.key else decode_ring(self.account, item.value)
        if ring is None:
            raise self._damaged("the key ring in it is none")
        return ring

    def _items(self) -> Iterator[Row]:
        waiting = bytearray()
        for chunk in self._chunks():
            waiting += chunk
            taken = 0
            while (item := self._item_at(waiting, taken)) is not None:
                yield item
                taken += _ITEM.size + len(item.key) + len(item.value)
            del waiting[:taken]
        if waiting:
            raise self._damaged("its last row is not whole")

    def _item_at(self, waiting: bytearray, start: int) -> Row | None:
        """The item that begins there, or None where not all of it has come."""
        keys = start + _ITEM.size
        if len(waiting) < keys:
            return None
        key_size, value_size = _ITEM.unpack_from(waiting, start)
        if key_size > MAX_KEY_BYTES or value_size > MAX_STORED_BYTES:
            raise self._damaged("a row in it is larger than rows are")
        values, end = keys + key_size, keys + key_size + value_size
        return None if len(waiting) < end else Row(bytes(waiting[keys:values]), bytes(waiting[values:end]))

    def _chunks(self) -> Iterator[bytes]:
        with self._opened() as file:
            if file.read(len(self._before)) != self._before:
                raise self._damaged("it was replaced while it was read")
            chunk, number = file.read(_CHUNK_BYTES + TAG_BYTES), 0
            while True:
                following = file.read(_CHUNK_BYTES + TAG_BYTES)
                yield self._decrypted(chunk, number, is_last=not following)
                if not following:
                    return
                chunk, number = following, number + 1

    def _decrypted(self, chunk: bytes, number: int, *, is_last: bool) -> bytes:
        plain = self._tried(chunk, number, is_last=is_last)
        if plain is not None:
            return plain
        if self._tried(chunk, number, is_last=not is_last) is not None:
            raise self._damaged("it was cut off" if is_last else "something was added to its end")
        raise self._damaged(f"part {number + 1} of it was changed, is not in its place, or was cut off")

    def _tried(self, chunk: bytes, number: int, *, is_last: bool) -> bytes | None:
        # A tag alone is no chunk, and less is refused by some versions of `cryptography` in another way.
        if len(chunk) <= TAG_BYTES:
            return None
        with suppress(InvalidTag):
            return self._cipher.decrypt(_nonce(number, is_last=is_last), chunk, self._before)
        return None

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        try:
            with self.path.open("rb") as opened:
                yield opened
        except OSError as error:
            raise ConfigurationError(f"{self.path} cannot be read: {error.strerror}") from error

    def _damaged(self, how: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self.path} is damaged: {how}; copy it again from where it was kept, or use another backup"
        )


def _checksum(body: bytes) -> bytes:
    """Finds damage before a key is derived. Anyone can compute it, so the chunks find tampering."""
    return hashlib.sha256(body).digest()[:_CHECKSUM_BYTES]
