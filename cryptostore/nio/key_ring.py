"""What an account's pickles are encrypted with: random keys, which the pickle key locks away.

nio encrypts pickles with an unsalted hash of the pickle key: two accounts of one pickle key would share it, a word that
somebody remembers would be guessed in no time, and another pickle key would mean to write every pickle anew at once.
"""

from __future__ import annotations

import json
import secrets
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cryptostore.errors import UnreadableRecord, WrongPickleKey
from cryptostore.records import Account, OlmAccount

from .sealing import Seal

_NAME: Final = "keys of the pickles"
_KEY_BYTES: Final = 32
_CHECKSUM_BYTES: Final = 4
#: Before there were rings, the account's row held a salt and a hash: 48 bytes, shorter than any sealed ring.
_SHORTEST: Final = 49


@dataclass(frozen=True, repr=False)
class KeyRing:
    """One account's keys, the newest first, and the same sealed with the pickle key, as the account's row keeps them.

    The newest encrypts; all decrypt: a rekey that was killed half way, or met a row that it could not read, leaves
    pickles under older ones.
    """

    #: Early releases encrypted with the pickle key itself, which is the last.
    keys: tuple[str, ...]
    sealed: bytes
    #: Whether the account's row holds this ring already.
    is_stored: bool

    @classmethod
    def of(cls, account: Account, pickle_key: str, record: OlmAccount | None) -> KeyRing:
        """The ring in an account's row, or a new one. Raises WrongPickleKey, and UnreadableRecord for a damaged one."""
        if record is not None and is_locked(record):
            keys = _unsealed(account, pickle_key, record.key_check)
            return cls((*keys, pickle_key), record.key_check, is_stored=True)
        return cls._new(account, pickle_key, [_new_key()])

    def under(self, account: Account, pickle_key: str) -> KeyRing:
        """A ring with a new key before all of these, sealed with another pickle key."""
        return self._new(account, pickle_key, [_new_key(), *self.keys])

    def newest_alone(self, account: Account, pickle_key: str) -> KeyRing:
        """A ring with the newest key of these. With the others, whoever knew them could forge a pickle."""
        return self._new(account, pickle_key, self.keys[:1])

    @classmethod
    def _new(cls, account: Account, pickle_key: str, keys: Iterable[str]) -> KeyRing:
        each_once = list(dict.fromkeys(keys))
        sealed = Seal(account, pickle_key).seal(_NAME, json.dumps(each_once))
        return cls((*each_once, pickle_key), sealed + _checksum(sealed), is_stored=False)


def is_locked(record: OlmAccount) -> bool:
    """Whether an account's row holds a ring; those of early releases hold none."""
    return len(record.key_check) >= _SHORTEST


def _unsealed(account: Account, pickle_key: str, stored: bytes) -> tuple[str, ...]:
    sealed = stored[:-_CHECKSUM_BYTES]
    if _checksum(sealed) != stored[-_CHECKSUM_BYTES:]:
        raise UnreadableRecord(
            f"what the pickles of {account} are encrypted with is damaged, so that no pickle key opens them. "
            "It was left as it is; restore the account's row from a backup"
        )
    try:
        return tuple(json.loads(Seal(account, pickle_key).open(_NAME, sealed)))
    except UnreadableRecord:
        raise WrongPickleKey(
            f"the keys of {account} were saved with another pickle key; nothing is damaged: "
            "give that one, as AsyncClientConfig(pickle_key=...) in matrix-nio, or to a command as --pickle-key-file"
        ) from None


def _new_key() -> str:
    return secrets.token_hex(_KEY_BYTES)


def _checksum(sealed: bytes) -> bytes:
    """Tells damage from a wrong pickle key, which are the same to a cipher. It protects nothing."""
    return zlib.crc32(sealed).to_bytes(_CHECKSUM_BYTES)
