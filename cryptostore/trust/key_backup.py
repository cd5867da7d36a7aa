"""Server-side key backup: Megolm sessions on the homeserver, which cannot read them.

Matrix specification, "Server-side key backups", algorithm `m.megolm_backup.v1.curve25519-aes-sha2`. Its MAC says
nothing about the ciphertext, and its encryption needs the public key alone: whoever has that, the homeserver among
them, can write entries. So everything in an entry is checked, and nothing in it is known to be true.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Self

from vodozemac import (
    Curve25519PublicKey,
    Curve25519SecretKey,
    ExportedSessionKey,
    InboundGroupSession,
    Message,
    PkDecryption,
    PkEncryption,
)

from . import signatures, unpadded_base64

ALGORITHM: Final = "m.megolm_backup.v1.curve25519-aes-sha2"
#: The name of the private key, in secret storage and everywhere else.
KEY_BACKUP: Final = "m.megolm_backup.v1"
MEGOLM: Final = "m.megolm.v1.aes-sha2"

#: Stands for the signing key that an entry of a backup or of a file did not have: a record has one.
UNKNOWN_KEY: Final = "unknown"
KEY_BYTES: Final = 32
#: A session's entry has about 900 bytes; each forwarder adds 46.
MOST_CHARACTERS: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class BackedUpSession:
    """A Megolm session as a backup holds it. `session_key` is its export at `first_known_index`, as unpadded base64.

    `sender_key`, `signing_key` and `forwarding_chain` are claims of who wrote the entry. The signing key is empty where
    the entry has none.
    """

    room_id: str
    session_id: str
    sender_key: str
    signing_key: str
    forwarding_chain: tuple[str, ...]
    first_known_index: int
    session_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BackupVersion:
    """A backup on the homeserver. `count` is how many sessions it says that it has."""

    version: str
    public_key: str
    auth_data: dict[str, Any]
    count: int

    @classmethod
    def parse(cls, content: Any) -> Self:
        """What the homeserver answered of a version. Raises ValueError for what is none, and for another algorithm."""
        if not isinstance(content, dict) or content.get("algorithm") != ALGORITHM:
            raise ValueError(f"the key backup on the homeserver has another algorithm than {ALGORITHM}")
        version, auth_data, count = content.get("version"), content.get("auth_data"), content.get("count")
        if not isinstance(version, str) or not version or not isinstance(auth_data, dict):
            raise ValueError("the key backup on the homeserver has no version or no auth_data")
        key = _checked_public_key(auth_data.get("public_key"))
        return cls(version, key, auth_data, count if type(count) is int and count > 0 else 0)

    def is_signed_by(self, user_id: str, master_key: str) -> bool:
        """Whether the user's identity with this master key vouches for the public key."""
        return signatures.is_signed(self.auth_data, user_id, master_key)


def public_key(private_key: bytes) -> str:
    """The public key of a backup's private key, as unpadded base64. Raises ValueError for a key of another size."""
    return PkDecryption.from_key(_secret_key(private_key)).public_key.to_base64()


class BackupEncryption:
    """Encrypts sessions for the backup with this public key. Raises ValueError for what is no key."""

    def __init__(self, public_key: str) -> None:
        self._encryption = PkEncryption.from_key(Curve25519PublicKey.from_base64(_checked_public_key(public_key)))

    def entry(self, session: BackedUpSession) -> dict[str, Any]:
        """The session's entry: what `PUT /room_keys/keys` takes. Each call makes another.

        `is_verified` is false, as in what other clients write: it would let ours replace theirs, and it means nothing
        to who reads it.
        """
        plain = {
            "algorithm": MEGOLM,
            "forwarding_curve25519_key_chain": list(session.forwarding_chain),
            "sender_claimed_keys": {"ed25519": session.signing_key} if session.signing_key else {},
            "sender_key": session.sender_key,
            "session_key": session.session_key,
        }
        message = self._encryption.encrypt(json.dumps(plain, separators=(",", ":")).encode())
        return {
            "first_message_index": session.first_known_index,
            "forwarded_count": len(session.forwarding_chain),
            "is_verified": False,
            "session_data": {
                "ciphertext": unpadded_base64.encode(message.ciphertext),
                "ephemeral": unpadded_base64.encode(message.ephemeral_key),
                "mac": unpadded_base64.encode(message.mac),
            },
        }


class BackupDecryption:
    """Decrypts the entries of the backup with this private key. Raises ValueError for a key of another size."""

    def __init__(self, private_key: bytes) -> None:
        self._decryption = PkDecryption.from_key(_secret_key(private_key))
        self.public_key: Final = self._decryption.public_key.to_base64()

    def session(self, room_id: str, session_id: str, entry: Any) -> BackedUpSession:
        """The session in the entry that the homeserver shows under this room and session id.

        Raises ValueError, which shows nothing of the entry, for one of another key, another session inside, or
        nonsense. Keys of the plain text that are not known, such as `m.shared_history`, are ignored.
        """
        plain = self._plain(entry)
        if plain.get("algorithm") != MEGOLM:
            raise ValueError("it is for another algorithm than Megolm")
        if plain.get("room_id", room_id) != room_id:
            raise ValueError("it holds a session of another room")
        session_key = plain.get("session_key")
        found = _imported(session_key)
        if found.session_id != session_id:
            raise ValueError("it holds another session")
        return BackedUpSession(
            room_id,
            session_id,
            _checked_public_key(plain.get("sender_key")),
            _signing_key(plain.get("sender_claimed_keys")),
            _chain(plain.get("forwarding_curve25519_key_chain")),
            found.first_known_index,
            str(session_key),
        )

    def _plain(self, entry: Any) -> dict[str, Any]:
        data = entry.get("session_data") if isinstance(entry, dict) else None
        if not isinstance(data, dict):
            raise ValueError("it has no session_data")
        parts = [_part(data, name) for name in ("ciphertext", "mac", "ephemeral")]
        plain = None
        # The parser's error carries what was decrypted, so it must not become the context of ours.
        with suppress(ValueError, RecursionError):
            plain = json.loads(self._decryption.decrypt(Message(*parts)))
        if plain is None:
            raise ValueError("it does not decrypt with the backup's key")
        if not isinstance(plain, dict):
            raise ValueError("it holds no JSON object")
        return plain


def _part(data: dict[str, Any], name: str) -> bytes:
    text = data.get(name)
    if isinstance(text, str) and len(text) > MOST_CHARACTERS:
        raise ValueError(f"its {name} has more than {MOST_CHARACTERS} characters")
    try:
        return unpadded_base64.decode(text)
    except ValueError:
        raise ValueError(f"its {name} is no base64") from None


def _imported(session_key: Any) -> InboundGroupSession:
    if not isinstance(session_key, str):
        raise ValueError("it has no session_key")
    try:
        return InboundGroupSession.import_session(ExportedSessionKey(session_key))
    except ValueError:
        raise ValueError("its session_key is no exported Megolm session") from None


def _signing_key(claimed: Any) -> str:
    """What the entry says of the sender's Ed25519 key. Other clients take entries without one."""
    key = claimed.get("ed25519") if isinstance(claimed, dict) else None
    return "" if key is None else _checked_public_key(key)


def _chain(chain: Any) -> tuple[str, ...]:
    if chain is None:
        return ()
    if not isinstance(chain, list):
        raise ValueError("its forwarding chain is no list")
    return tuple(_checked_public_key(key) for key in chain)


def _checked_public_key(key: Any) -> str:
    """A key of 32 bytes in the one form in which keys are compared: canonical unpadded base64."""
    try:
        return unpadded_base64.encode(unpadded_base64.decode(key, size=KEY_BYTES))
    except ValueError:
        raise ValueError("it names a public key that is none") from None


def _secret_key(private_key: bytes) -> Curve25519SecretKey:
    if len(private_key) != KEY_BYTES:
        raise ValueError(f"the private key of a key backup has {KEY_BYTES} bytes, not {len(private_key)}")
    return Curve25519SecretKey.from_bytes(private_key)
