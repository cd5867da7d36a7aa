"""A file of exported room keys, read little by little: no step of it holds the interpreter up for long.

nio decodes, decrypts and parses such a file in three steps, each of which keeps every other thread from running.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import vodozemac
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from nio.crypto import InboundGroupSession
from nio.crypto.key_export import FOOTER, HEADER
from nio.exceptions import EncryptionError

from cryptostore.logs import logger
from cryptostore.trust.passphrases import spellings

_STEP: Final = 256 * 1024
_LINE_BREAKS: Final = b"\r\n"
#: Version, salt, counter and rounds come first, an HMAC last.
_VERSION: Final = 1
_HEAD_BYTES: Final = 37
_HMAC_BYTES: Final = 32
_BETWEEN: Final = re.compile(r"[ \t\r\n]*,?[ \t\r\n]*")
_TEXTS: Final = ("algorithm", "session_key", "sender_key", "room_id")
_MEGOLM: Final = "m.megolm.v1.aes-sha2"

_log: Final = logger(__name__)


class ExportedKeys:
    """The room keys in a file. Raises EncryptionError if it cannot be read to its end, and errors of the file."""

    def __init__(self, file: str, passphrase: str) -> None:
        self._text = _decrypted(_payload(Path(file)), passphrase).decode(errors="replace")
        left_out = 0
        for item in _items(self._text):
            left_out += not _is_whole(item)
        if left_out:
            _log.warning("left out %d room keys that do not say who sent them", left_out)

    def pieces(self, size: int) -> Iterator[list[InboundGroupSession]]:
        """The sessions, so many at a time. What is no Megolm session is reported and left out."""
        piece: list[InboundGroupSession] = []
        for item in _items(self._text):
            session = _session_of(item) if _is_whole(item) else None
            if session is not None:
                piece.append(session)
            if len(piece) == size:
                yield piece
                piece = []
        if piece:
            yield piece


def _payload(file: Path) -> bytearray:
    text = file.read_bytes().strip()
    head, foot = HEADER.encode(), FOOTER.encode()
    if not text.startswith(head) or not text.endswith(foot):
        raise EncryptionError("Wrong file format.")
    payload, rest = bytearray(), b""
    for start in range(len(head), len(text) - len(foot), _STEP):
        letters = text[start : min(start + _STEP, len(text) - len(foot))].translate(None, _LINE_BREAKS + b"=")
        rest += letters
        whole = len(rest) // 4 * 4
        payload += _decoded(rest[:whole])
        rest = rest[whole:]
    return payload + _decoded(rest + b"=" * (-len(rest) % 4))


def _decoded(base64: bytes) -> bytes:
    try:
        return binascii.a2b_base64(base64)
    except binascii.Error as error:
        raise EncryptionError(f"Wrong file format: {error}") from None


def _decrypted(payload: bytearray, passphrase: str) -> bytearray:
    if len(payload) < _HEAD_BYTES + _HMAC_BYTES or payload[0] != _VERSION:
        raise EncryptionError("Unsupported export format version.")
    salt, counter, rounds = payload[1:17], payload[17:33], int.from_bytes(payload[33:37], "big")
    if not rounds:
        raise EncryptionError("Wrong file format.")
    for spelt in spellings(passphrase):
        derived = hashlib.pbkdf2_hmac("sha512", spelt, salt, rounds, 64)
        authentic = hmac.digest(derived[32:], memoryview(payload)[:-_HMAC_BYTES], "sha256")
        if hmac.compare_digest(authentic, payload[-_HMAC_BYTES:]):
            break
    else:
        raise EncryptionError("HMAC check failed for encrypted payload.")
    decryptor = Cipher(algorithms.AES(derived[:32]), modes.CTR(bytes(counter))).decryptor()
    plain = bytearray()
    for start in range(_HEAD_BYTES, len(payload) - _HMAC_BYTES, _STEP):
        plain += decryptor.update(payload[start : min(start + _STEP, len(payload) - _HMAC_BYTES)])
    return plain


def _items(text: str) -> Iterator[Any]:
    """The items of a JSON list, parsed one by one. Raises EncryptionError at the first that is none."""
    decoder = json.JSONDecoder()
    position = _after(text, 0)
    if text[position : position + 1] != "[":
        raise EncryptionError("Error parsing key file: it is no list")
    position = _after(text, position + 1)
    while text[position : position + 1] != "]":
        try:
            item, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise EncryptionError(f"Error parsing key file: {type(error).__name__}") from None
        yield item
        position = _after(text, position)


def _after(text: str, position: int) -> int:
    """Where the next item begins."""
    between = _BETWEEN.match(text, position)
    return between.end() if between else position


def _is_whole(item: Any) -> bool:
    """Whether a key says who sent it. Raises EncryptionError for what is no key at all."""
    if not isinstance(item, dict) or not all(isinstance(item.get(name), str) for name in _TEXTS):
        raise _no_key()
    if "sender_claimed_keys" not in item:
        return False
    claimed, chain = item["sender_claimed_keys"], item.get("forwarding_curve25519_key_chain")
    if not isinstance(claimed, dict) or not isinstance(claimed.get("ed25519"), str) or not isinstance(chain, list):
        raise _no_key()
    if not all(isinstance(key, str) for key in chain):
        raise _no_key()
    return True


def _no_key() -> EncryptionError:
    return EncryptionError("Error parsing key file: an item is no exported room key")


def _session_of(item: dict[str, Any]) -> InboundGroupSession | None:
    if item["algorithm"] != _MEGOLM:
        _log.warning("left out a room key of another algorithm")
        return None
    try:
        return InboundGroupSession.import_session(
            item["session_key"],
            item["sender_claimed_keys"]["ed25519"],
            item["sender_key"],
            item["room_id"],
            item["forwarding_curve25519_key_chain"],
        )
    except vodozemac.SessionKeyDecodeException as error:
        _log.warning("left out a room key that is none: %s", error)
        return None
