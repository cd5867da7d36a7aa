"""Stores as matrix-nio itself writes them, with real ratchets in them, to import from."""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nio.crypto import InboundGroupSession, Olm, OlmDevice, OutboundGroupSession, OutgoingKeyRequest, Session
from nio.store import MatrixStore, SqliteStore
from unpaddedbase64 import decode_base64, encode_base64

from cryptostore import Account, CryptoStore, Mode, Record, open_backend
from cryptostore.nio.importing import Findings, open_source, read_accounts, transfer

R = TypeVar("R", bound=Record)

ALICE: Final = Account("@alice:example.org", "ALICEPHONE")
BOB: Final = Account("@bob:example.org", "BOBPHONE")
ROOM: Final = "!room:example.org"
KEY: Final = "correct horse battery"


class Client:
    """A nio client's encryption on one of nio's own stores."""

    def __init__(
        self, folder: Path, account: Account = ALICE, key: str = KEY, kind: type[MatrixStore] = SqliteStore
    ) -> None:
        self.path = folder / "nio.db"
        self.store: Any = kind(account.user_id, account.device_id, str(folder), key, "nio.db")
        self.olm = Olm(account.user_id, account.device_id, self.store)

    @property
    def curve25519(self) -> str:
        """The account's Curve25519 key."""
        return str(self.olm.account.identity_keys["curve25519"])

    def know(self, user_id: str, device_id: str, name: str = "a phone", *, deleted: bool = False) -> OlmDevice:
        """Save a device with keys of its own."""
        keys = {"ed25519": f"ed-of-{user_id}-{device_id}", "curve25519": f"curve-of-{user_id}-{device_id}"}
        device = OlmDevice(user_id, device_id, keys, display_name=name, deleted=deleted)
        self.olm.device_store.add(device)
        self.store.save_device_keys({user_id: {device_id: device}})
        return device

    def ask_for_key(self, request_id: str) -> None:
        """Save a key request."""
        self.store.add_outgoing_key_request(OutgoingKeyRequest(request_id, request_id, ROOM, "m.megolm.v1.aes-sha2"))

    def own_session(self, room_id: str = ROOM) -> OutboundGroupSession:
        """Begin a Megolm session and keep its inbound side, as nio does before it sends."""
        self.olm.create_outbound_group_session(room_id)
        session = self.olm.outbound_group_sessions[room_id]
        session.mark_as_shared()
        return session

    def received_session(self, *chain: str, room_id: str = ROOM) -> tuple[OutboundGroupSession, InboundGroupSession]:
        """A session that somebody else began, forwarded along `chain`, with its sender's side."""
        outbound = OutboundGroupSession()
        outbound.mark_as_shared()
        inbound = InboundGroupSession(outbound.session_key, "ed of sender", "curve of sender", room_id, list(chain))
        self.store.save_inbound_group_session(inbound)
        return outbound, inbound

    def session_with(self, other: Client) -> Session:
        """Begin an Olm session with another client."""
        other.olm.account.generate_one_time_keys(1)
        one_time_key = next(iter(other.olm.account.one_time_keys["curve25519"].values()))
        other.olm.account.mark_keys_as_published()
        other.olm.save_account()
        return self.olm.create_session(one_time_key, other.curve25519)

    def close(self) -> None:
        """Close the file, as nio itself never does."""
        self.store.database.close()


@contextmanager
def edited(path: Path) -> Iterator[sqlite3.Connection]:
    """The file under the hands of somebody who damages it; foreign keys are not enforced."""
    with closing(sqlite3.connect(path)) as connection, connection:
        yield connection


def import_all(
    path: Path, url: str, key: str = KEY, wanted: Callable[[Account], bool] = lambda _: True, **options: Any
) -> Findings:
    """Import what `wanted` wants, and say what was found missing."""
    findings = Findings()
    with open_source(path) as source:
        transfer(read_accounts(source, key, findings, wanted), url, findings, **options)
    return findings


@contextmanager
def imported(url: str, account: Account = ALICE, key: str = KEY) -> Iterator[CryptoStore]:
    """An account as the database has it, through a handle of its own."""
    with open_backend(url) as backend, backend.open_store(account, Mode.READ, pickle_key=key) as store:
        yield store


def all_of(url: str, kind: type[R], account: Account = ALICE, key: str = KEY) -> list[R]:
    """Every record of one kind."""
    with imported(url, account, key) as store:
        return store.select(kind, [()])[()]


def with_version(pickle: str, key: str, version: int) -> str:
    """A pickle of libolm's, sealed again with another version."""
    raw = decode_base64(pickle)
    derived = HKDF(SHA256(), 80, None, b"Pickle").derive(key.encode())
    cipher, mac_key = Cipher(AES(derived[:32]), CBC(derived[64:])), derived[32:64]
    decryptor, encryptor = cipher.decryptor(), cipher.encryptor()
    plain = decryptor.update(raw[:-8]) + decryptor.finalize()
    sealed = encryptor.update(version.to_bytes(4, "big") + plain[4:]) + encryptor.finalize()
    return str(encode_base64(sealed + hmac.digest(mac_key, sealed, "sha256")[:8]))


def reasons(findings: Findings, kind: str, account: Account | None = ALICE) -> dict[str, tuple[str, ...]]:
    """The findings of one kind about an account: ids by reason."""
    return {each.reason: each.ids for each in findings if each.kind == kind and each.account == account}


def fingerprints(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file in a folder, by the hash of its bytes and the time of its last change."""
    return {
        str(file.relative_to(folder)): (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
