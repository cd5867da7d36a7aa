"""The file of exported room keys that Element and other clients write and read, in bounded memory.

    -----BEGIN MEGOLM SESSION DATA-----
    base64 of:  version     1 byte    1
                salt       16 bytes
                counter    16 bytes   where AES-CTR begins; bit 63 is 0
                rounds      4 bytes   of PBKDF2-HMAC-SHA-512, big-endian
                encrypted             AES-256-CTR of a JSON list of sessions
                HMAC       32 bytes   HMAC-SHA-256 of all of the above
    -----END MEGOLM SESSION DATA-----

Matrix specification, "Key exports".
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Protocol

import ijson
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from cryptostore.errors import ConfigurationError

from . import unpadded_base64
from .key_backup import MEGOLM, UNKNOWN_KEY
from .passphrases import in_utf8, spellings

HEADER: Final = b"-----BEGIN MEGOLM SESSION DATA-----"
FOOTER: Final = b"-----END MEGOLM SESSION DATA-----"
#: As many as Element takes.
ROUNDS: Final = 500_000
#: More would take minutes, and anybody may have written the file.
_MOST_ROUNDS: Final = 10_000_000

#: The list, a room key, and the keys that its sender claims are three.
_MOST_DEPTH: Final = 16
_DEPTH_CHANGES: Final = {"start_map": 1, "start_array": 1, "end_map": -1, "end_array": -1}
_VERSION: Final = 1
_HEAD_BYTES: Final = 37
_HMAC_BYTES: Final = 32
#: What one line holds, and a step of reading.
_LINE_BYTES: Final = 72
_STEP: Final = 256 * 1024


class _Keys(NamedTuple):
    """What a passphrase and a file's head give."""

    cipher: Cipher[modes.CTR]
    hmac_key: bytes


def _derived(passphrase: bytes, head: bytes) -> _Keys:
    salt, counter, rounds = head[1:17], head[17:33], int.from_bytes(head[33:37], "big")
    derived = hashlib.pbkdf2_hmac("sha512", passphrase, salt, rounds, 64)
    return _Keys(Cipher(algorithms.AES(derived[:32]), modes.CTR(counter)), derived[32:])


class RoomKey(Protocol):
    """A Megolm session as far as it is exported; `session_key` is in the format of exports, as bytes."""

    @property
    def room_id(self) -> str: ...
    @property
    def session_id(self) -> str: ...
    @property
    def sender_key(self) -> str: ...
    @property
    def signing_key(self) -> str: ...
    @property
    def forwarding_chain(self) -> Sequence[str]: ...
    @property
    def session_key(self) -> bytes: ...


class KeyFileWriter:
    """Writes such a file piece by piece; `end` completes it.

    Raises ConfigurationError for a passphrase that is no text, and for so many rounds that nobody would read the file.
    """

    def __init__(self, file: IO[bytes], passphrase: str, rounds: int = ROUNDS) -> None:
        if not 0 < rounds <= _MOST_ROUNDS:
            raise ConfigurationError(f"the number of rounds is one from 1 to {_MOST_ROUNDS:,}; give that, or none")
        counter = bytearray(os.urandom(16))
        # Some implementations of AES-CTR count in 64 bits alone.
        counter[8] &= 0x7F
        head = bytes([_VERSION]) + os.urandom(16) + bytes(counter) + rounds.to_bytes(4, "big")
        keys = _derived(in_utf8(passphrase), head)
        self._file = file
        self._encryptor = keys.cipher.encryptor()
        self._hmac = hmac.new(keys.hmac_key, head, "sha256")
        self._waiting = head
        file.write(HEADER + b"\n")

    def write_all(self, sessions: Iterable[RoomKey]) -> int:
        """Write the list of these sessions, complete the file, and return how many there are."""
        number = 0
        for session in sessions:
            self.write((b"," if number else b"[") + _encoded(session))
            number += 1
        self.write(b"]" if number else b"[]")
        self.end()
        return number

    def write(self, plain: bytes) -> None:
        """Encrypt and write a part of the JSON."""
        encrypted = self._encryptor.update(plain)
        self._hmac.update(encrypted)
        self._waiting += encrypted
        whole = len(self._waiting) // _LINE_BYTES * _LINE_BYTES
        self._write_lines(self._waiting[:whole])
        self._waiting = self._waiting[whole:]

    def end(self) -> None:
        """Write what is left, the HMAC and the last line."""
        self._write_lines(self._waiting + self._hmac.digest())
        self._file.write(FOOTER + b"\n")

    def _write_lines(self, payload: bytes) -> None:
        for start in range(0, len(payload), _LINE_BYTES):
            self._file.write(binascii.b2a_base64(payload[start : start + _LINE_BYTES]))


def _encoded(session: RoomKey) -> bytes:
    document = {
        "algorithm": MEGOLM,
        "forwarding_curve25519_key_chain": session.forwarding_chain,
        "room_id": session.room_id,
        "sender_claimed_keys": {} if session.signing_key == UNKNOWN_KEY else {"ed25519": session.signing_key},
        "sender_key": session.sender_key,
        "session_id": session.session_id,
        "session_key": unpadded_base64.encode(session.session_key),
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _shallow(events: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """The same events; ijson's memory grows with the square of the depth. Raises ValueError for what is too deep."""
    depth = 0
    for event in events:
        depth += _DEPTH_CHANGES.get(event[0], 0)
        if depth > _MOST_DEPTH:
            raise ValueError("nested too deep")
        yield event


class KeyFile:
    """Such a file, opened with its passphrase and checked to its end.

    Raises ConfigurationError for a file that cannot be read or is no such file, for one that is damaged, and for a
    passphrase that is not the file's or no text; the texts tell these apart.
    """

    def __init__(self, path: Path, passphrase: str) -> None:
        self._path = path
        for spelt in spellings(passphrase):
            with self._opened() as file:
                if self._is_opened_by(file, spelt):
                    return
        raise ConfigurationError(
            f"the passphrase is not the one that {path} was exported with, or the beginning of the file is damaged"
        )

    def items(self) -> Iterator[Any]:
        """The items of the list in the file, as they come. Raises ConfigurationError where it is no list."""
        with self._opened() as file:
            plain = _Plain(self._decrypted(file))
            if plain.first != b"[":
                raise self._damaged("what it holds is no list of room keys")
            try:
                yield from ijson.items(ijson.parse(_shallow(ijson.basic_parse(plain))), "item")
            except (ijson.JSONError, ValueError):
                # Its text may quote a key.
                raise self._damaged("the list of room keys in it breaks off") from None

    def _opened(self) -> IO[bytes]:
        try:
            return self._path.open("rb")
        except OSError as error:
            raise ConfigurationError(f"{self._path} cannot be read: {error.strerror}") from error

    def _is_opened_by(self, file: IO[bytes], passphrase: bytes) -> bool:
        parts = self._parts(file)
        head = next(parts)
        self._check_head(head)
        self._keys = _derived(passphrase, head)
        authentic, last, beginning = hmac.new(self._keys.hmac_key, head, "sha256"), b"", b""
        for part in parts:
            authentic.update(last)
            beginning, last = beginning or part[:2], part
        authentic.update(last[:-_HMAC_BYTES])
        if hmac.compare_digest(authentic.digest(), last[-_HMAC_BYTES:]):
            return True
        # With the right passphrase the JSON shows, wherever the damage is.
        if self._keys.cipher.decryptor().update(beginning) in (b"[{", b"[]"):
            raise self._damaged("the passphrase is right, and what it encrypts was changed or is not whole")
        return False

    def _check_head(self, head: bytes) -> None:
        if head[0] != _VERSION:
            raise ConfigurationError(
                f"{self._path} has version {head[0]} of the format of room keys, and this program knows {_VERSION}; "
                "export the keys again with a client that writes that, such as Element"
            )
        if not 0 < int.from_bytes(head[33:37], "big") <= _MOST_ROUNDS:
            raise self._damaged("it asks for a number of rounds that no client writes")

    def _decrypted(self, file: IO[bytes]) -> Iterator[bytes]:
        parts, decryptor, last = self._parts(file), self._keys.cipher.decryptor(), b""
        next(parts)
        for part in parts:
            yield decryptor.update(last)
            last = part
        yield decryptor.update(last[:-_HMAC_BYTES])

    def _parts(self, file: IO[bytes]) -> Iterator[bytes]:
        """The head, and then the rest in parts, of which the last one has the whole HMAC."""
        held, has_head = b"", False
        for decoded in self._payload(file):
            held += decoded
            if not has_head and len(held) >= _HEAD_BYTES:
                yield held[:_HEAD_BYTES]
                held, has_head = held[_HEAD_BYTES:], True
            if has_head and len(held) > _STEP:
                yield held[:-_HMAC_BYTES]
                held = held[-_HMAC_BYTES:]
        if not has_head or len(held) < _HMAC_BYTES:
            raise self._damaged("it is too short")
        yield held

    def _payload(self, file: IO[bytes]) -> Iterator[bytes]:
        start = file.read(_STEP).lstrip(b"\xef\xbb\xbf \t\r\n")
        if not start.startswith(HEADER):
            raise ConfigurationError(
                f"{self._path} is no file of exported room keys: such a file begins with {HEADER.decode()}"
            )
        text, letters = start[len(HEADER) :], b""
        while text:
            body, dash, rest = text.partition(b"-")
            letters += body.translate(None, b" \t\r\n=")
            whole = len(letters) if dash else len(letters) // 4 * 4
            yield self._decoded(letters[:whole])
            letters = letters[whole:]
            if dash:
                closing = dash + rest + file.read(len(FOOTER))
                if not closing.startswith(FOOTER):
                    break
                self._check_nothing_follows(closing[len(FOOTER) :], file)
                return
            text = file.read(_STEP)
        raise self._damaged("its last line is missing, so it was cut off")

    def _check_nothing_follows(self, text: bytes, file: IO[bytes]) -> None:
        while text:
            if text.strip():
                raise ConfigurationError(
                    f"{self._path} goes on after the end of its room keys: if these are several exports in one file, "
                    "make a file of each, and import one after the other"
                )
            text = file.read(_STEP)

    def _decoded(self, letters: bytes) -> bytes:
        try:
            return binascii.a2b_base64(letters + b"=" * (-len(letters) % 4), strict_mode=True)
        except binascii.Error:
            raise self._damaged("it holds what is no base64") from None

    def _damaged(self, how: str) -> ConfigurationError:
        return ConfigurationError(f"{self._path} is damaged: {how}; copy it again, or export the keys once more")


class _Plain:
    """Decrypted parts as a file, for a parser that asks for some bytes at a time."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._left = b""
        while not self._left and (part := next(parts, None)) is not None:
            self._left = part.lstrip()
        self.first = self._left[:1]

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; empty at the end."""
        if size == 0:
            return b""
        while not self._left and (part := next(self._parts, None)) is not None:
            self._left = part
        taken, self._left = (self._left, b"") if size < 0 else (self._left[:size], self._left[size:])
        return taken
