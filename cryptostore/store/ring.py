"""The key ring: an account's data keys, wrapped with a key that is derived from the pickle key.

It is stored twice, as the first and the last record of its account. A stored copy:

    version       1 byte    129; never the version of a sealed value
    cost          1 byte    scrypt's N as its binary logarithm; 0 for a generated pickle key
    salt         16 bytes
    key check    16 bytes   tells a wrong pickle key from damage
    nonce        12 bytes
    sealed                  AES-256-GCM-SIV of the ring in MessagePack
    checksum      8 bytes   SHA-256 of "cryptostore ring checksum" NUL user id NUL device id NUL, the record's key, and
                            all of the above; so it stays in every later version

Authenticated beside the text: "cryptostore ring" NUL user id NUL device id NUL, all fields before the sealed one, the
record's key.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from struct import Struct
from typing import Annotated, Final, NamedTuple, Self

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from cryptostore.errors import CryptoStoreError, SchemaTooNew, UnreadableRecord, WrongPickleKey
from cryptostore.records.record import Account

from . import pickle_keys
from .aead import KEY_BYTES, NONCE_BYTES, TAG_BYTES, cipher, context

#: The format of stores that this program writes; it opens no store whose ring asks for a higher one.
STORE_FORMAT: Final = 1
#: Where a ring is stored: the first and the last key that an account can have.
RING_KEYS: Final = (b"\x00", b"\xff")

_VERSION: Final = 0x81
_SALT_BYTES: Final = 16
_KEY_CHECK_BYTES: Final = 16
_CHECKSUM_BYTES: Final = 8
_HEADER: Final = Struct(f">BB{_SALT_BYTES}s{_KEY_CHECK_BYTES}s{NONCE_BYTES}s")
# Of a generated pickle key, which needs no scrypt.
_NO_COST: Final = 0

Key = Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]


@dataclass(frozen=True, slots=True)
class DataKey:
    """A key that seals values, and the number that these name it by."""

    id: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
    key: Key = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ring:
    """An account's keys.

    The first of `data_keys` seals, all of them open; `retired` ones open for commands only. `replay_key` outlives the
    data keys. A program whose `STORE_FORMAT` is below `format_floor` must not open the account. Of two rings the one
    with the higher `generation` counts. Raises ValueError without a data key, and for two keys with one id.
    """

    generation: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    data_keys: tuple[DataKey, ...]
    retired: tuple[DataKey, ...]
    replay_key: Key = field(repr=False)
    format_floor: Annotated[int, msgspec.Meta(ge=1)]

    def __post_init__(self) -> None:
        ids = {key.id for key in self.data_keys + self.retired}
        if not self.data_keys or len(ids) < len(self.data_keys) + len(self.retired):
            raise ValueError("a key ring needs a data key, and each key an id of its own")

    @classmethod
    def new(cls) -> Self:
        """The first ring of an account, with random keys."""
        return cls(1, (_random_data_key(()),), (), secrets.token_bytes(KEY_BYTES), STORE_FORMAT)

    def rewrapped(self) -> Self:
        """The same keys, for another pickle key or cost. The number alone changes."""
        return replace(self, generation=self.generation + 1)

    def with_new_data_key(self) -> Self:
        """A ring that seals with a new random key; the others still open."""
        new = _random_data_key(self.data_keys + self.retired)
        return replace(self.rewrapped(), data_keys=(new, *self.data_keys))

    def without_old_data_keys(self, *, keep_retired: bool) -> Self:
        """A ring that opens with the key that seals, and with no other.

        `keep_retired` keeps the others for commands, because of values that could not be sealed again. Else they are
        gone, those of earlier calls too.
        """
        newest, *old = self.data_keys
        return replace(self.rewrapped(), data_keys=(newest,), retired=(*old, *self.retired) if keep_retired else ())


class Fault(StrEnum):
    """What is wrong with one stored copy of a ring whose other copy opens."""

    MISSING = "is missing"
    DAMAGED = "is damaged, or was moved here from another place"
    OTHER_PICKLE_KEY = "needs another pickle key"
    OLDER = "is older than the other"


class FoundRing(NamedTuple):
    """The ring that is in force, and the faults of its copies, by the key that these are stored under.

    With a fault both copies are to be written again: `wrap` makes them.
    """

    ring: Ring
    faults: Mapping[bytes, Fault]

    @property
    def complete(self) -> bool:
        """Whether both copies are stored as they should be."""
        return not self.faults


def wrap(account: Account, ring: Ring, pickle_key: str) -> dict[bytes, bytes]:
    """Both copies of a ring, by the key to store them under; in one batch, or a crash leaves two different ones.

    They share a salt: opening both derives once. Raises ConfigurationError as `pickle_keys.derive` does, and where
    OpenSSL has no AES-GCM-SIV.
    """
    cost = _NO_COST if pickle_keys.is_generated(pickle_key) else pickle_keys.COST
    salt = os.urandom(_SALT_BYTES)
    lock = _lock(pickle_key, salt, cost)
    plain = encode_ring(ring)
    return {raw_key: _wrapped(account, raw_key, plain, lock, (cost, salt)) for raw_key in RING_KEYS}


def unwrap(account: Account, raw_key: bytes, value: bytes, pickle_key: str) -> Ring:
    """The ring in one stored copy.

    Raises WrongPickleKey for a copy that is intact but needs another pickle key, UnreadableRecord for one that was
    damaged or moved here, SchemaTooNew for one that a newer program wrote, ConfigurationError as `wrap` does.
    """
    _check_layout(account, raw_key, value)
    header = value[: _HEADER.size]
    _, cost, salt, key_check, nonce = _HEADER.unpack(header)
    _check_cost(account, raw_key, cost, pickle_key)
    lock = _lock(pickle_key, salt, cost)
    if not secrets.compare_digest(lock.key_check, key_check):
        raise _wrong_pickle_key(account)
    try:
        plain = lock.cipher.decrypt(nonce, value[_HEADER.size : -_CHECKSUM_BYTES], _bound_to(account, raw_key, header))
    except InvalidTag:
        raise _unreadable(account, raw_key) from None
    ring = decode_ring(account, plain)
    if ring is None:
        raise _unreadable(account, raw_key)
    return ring


def find_ring(account: Account, values: Mapping[bytes, bytes], pickle_key: str) -> FoundRing | None:
    """The ring in force among what is stored under `RING_KEYS`; None where nothing is.

    Where one copy opens, what is wrong with the other is a fault and no error; where both do, the higher generation
    counts. Raises as `unwrap` where none opens; SchemaTooNew if either copy is too new; UnreadableRecord for two
    different rings of one generation: values may have been sealed with either.
    """
    rings: list[Ring] = []
    faults = dict.fromkeys(RING_KEYS, Fault.MISSING)
    errors: list[CryptoStoreError] = []
    for raw_key in [raw_key for raw_key in RING_KEYS if raw_key in values]:
        try:
            rings.append(unwrap(account, raw_key, values[raw_key], pickle_key))
            del faults[raw_key]
        except WrongPickleKey as error:
            # Before any damage: with the right key, that may heal.
            errors.insert(0, error)
            faults[raw_key] = Fault.OTHER_PICKLE_KEY
        except UnreadableRecord as error:
            errors.append(error)
            faults[raw_key] = Fault.DAMAGED
    if rings:
        return _in_force(account, rings, faults)
    if errors:
        raise errors[0]
    return None


def _in_force(account: Account, rings: Sequence[Ring], faults: dict[bytes, Fault]) -> FoundRing:
    newest = max(rings, key=lambda ring: ring.generation)
    if all(ring == newest for ring in rings):
        return FoundRing(newest, faults)
    generations = [ring.generation for ring in rings]
    if len(set(generations)) == 1:
        raise UnreadableRecord(
            f"the two copies of the key ring of {account} differ and are equally new; restore the account from a backup"
        )
    return FoundRing(newest, {RING_KEYS[generations.index(min(generations))]: Fault.OLDER})


class _Lock(NamedTuple):
    """What wraps and unwraps rings with one pickle key and salt."""

    cipher: AESGCMSIV
    key_check: bytes


def _lock(pickle_key: str, salt: bytes, cost: int) -> _Lock:
    derived = pickle_keys.derive(pickle_key, salt, cost)
    keys = HKDFExpand(SHA256(), KEY_BYTES + _KEY_CHECK_BYTES, info=b"cryptostore ring").derive(derived)
    return _Lock(cipher(keys[:KEY_BYTES]), keys[KEY_BYTES:])


def _wrapped(account: Account, raw_key: bytes, plain: bytes, lock: _Lock, derivation: tuple[int, bytes]) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    header = _HEADER.pack(_VERSION, *derivation, lock.key_check, nonce)
    body = header + lock.cipher.encrypt(nonce, plain, _bound_to(account, raw_key, header))
    return body + _checksum(account, raw_key, body)


def _bound_to(account: Account, raw_key: bytes, header: bytes) -> bytes:
    return context("cryptostore ring", account) + header + raw_key


def _checksum(account: Account, raw_key: bytes, body: bytes) -> bytes:
    """Finds damage before a key is derived. Anyone can compute it, so the seal finds tampering."""
    digest = hashlib.sha256(context("cryptostore ring checksum", account) + raw_key + body)
    return digest.digest()[:_CHECKSUM_BYTES]


def _check_layout(account: Account, raw_key: bytes, value: bytes) -> None:
    body, checksum = value[:-_CHECKSUM_BYTES], value[-_CHECKSUM_BYTES:]
    if _checksum(account, raw_key, body) != checksum:
        raise _unreadable(account, raw_key)
    if body[:1] != bytes([_VERSION]):
        raise _too_new(account)
    if len(body) <= _HEADER.size + TAG_BYTES:
        raise _unreadable(account, raw_key)


def _check_cost(account: Account, raw_key: bytes, cost: int, pickle_key: str) -> None:
    """Refuse what is not worth a derivation; a stored cost may have been written by anybody."""
    if cost != _NO_COST and cost not in pickle_keys.COSTS:
        raise UnreadableRecord(
            f"the copy {raw_key.hex()} of the key ring of {account} asks for scrypt with N = 2^{cost}; 2^"
            f"{pickle_keys.COSTS[0]} to 2^{pickle_keys.COSTS[-1]} are allowed. Restore the account from a backup"
        )
    generated = pickle_keys.is_generated(pickle_key)
    if generated and cost != _NO_COST:
        raise _wrong_pickle_key(account, ": it was saved with a passphrase, and a generated key was given")
    if not generated and cost == _NO_COST:
        raise _wrong_pickle_key(
            account, f": it was saved with a generated key ({pickle_keys.PREFIX}…), and a passphrase was given"
        )


class _Floor(msgspec.Struct):
    """The one field that rings of every version have."""

    format_floor: int


#: A ring in MessagePack, not encrypted.
encode_ring: Final = msgspec.msgpack.Encoder(order="deterministic").encode
_decode_floor: Final = msgspec.msgpack.Decoder(_Floor).decode
_decode_ring: Final = msgspec.msgpack.Decoder(Ring).decode


def decode_ring(account: Account, plain: bytes) -> Ring | None:
    """The ring in what `encode_ring` made, or None where it is none. Raises SchemaTooNew."""
    # Its text may quote what it failed on, so it must not become the context of ours.
    with suppress(msgspec.DecodeError):
        if _decode_floor(plain).format_floor <= STORE_FORMAT:
            return _decode_ring(plain)
        raise _too_new(account)
    return None


def _random_data_key(others: Sequence[DataKey]) -> DataKey:
    taken = {key.id for key in others}
    key_id = next(drawn for drawn in iter(lambda: secrets.randbits(32), None) if drawn not in taken)
    return DataKey(key_id, secrets.token_bytes(KEY_BYTES))


def _wrong_pickle_key(account: Account, why: str = "") -> WrongPickleKey:
    return WrongPickleKey(
        f"the pickle key is not the one that {account} was saved with{why}. Nothing is damaged: give the pickle key "
        "that was used"
    )


def _unreadable(account: Account, raw_key: bytes) -> UnreadableRecord:
    return UnreadableRecord(
        f"the copy {raw_key.hex()} of the key ring of {account} is damaged, or was moved here from another place; "
        "restore the account from a backup"
    )


def _too_new(account: Account) -> SchemaTooNew:
    return SchemaTooNew(
        f"{account} was saved by a newer version of matrix-cryptostore, in a format that this one cannot read; upgrade "
        "matrix-cryptostore"
    )
