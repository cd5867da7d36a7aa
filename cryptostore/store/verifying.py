"""Whether everything that an account has stored can be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from cryptostore.errors import CryptoStoreError, UnreadableRecord
from cryptostore.records import Account, OlmAccount

from .backend import Backend
from .interface import Row
from .keys import encode_key
from .ownership import Mode
from .ring import RING_KEYS, unwrap

#: Of how many unreadable rows the keys are kept: where all are, they would not fit into memory.
_MOST_NAMED: Final = 10_000

_LOST: Final = "is missing, although there are other rows: restore the account from a backup, or repeat its import"


class UnreadableRow(NamedTuple):
    """A stored row, or one that is missing, and what is wrong with it."""

    key: bytes
    reason: str


@dataclass
class Verified:
    """How many rows of each kind number can be read and how many cannot, and the first 10,000 of these."""

    readable: Counter[int] = field(default_factory=Counter)
    unreadable: Counter[int] = field(default_factory=Counter)
    named: list[UnreadableRow] = field(default_factory=list)

    def add(self, key: bytes, problem: str) -> None:
        """Count a row, which is readable where there is no problem."""
        (self.unreadable if problem else self.readable)[key[0]] += 1
        if problem and len(self.named) < _MOST_NAMED:
            self.named.append(UnreadableRow(key, problem))


def verify(backend: Backend, account: Account, pickle_key: str, advance: Callable[[], None] = lambda: None) -> Verified:
    """Open and decode every row of an account, in bounded memory. Takes nothing over. `advance` is called for each.

    Both copies of the key ring are opened, too. One that is missing counts as unreadable, and so does a missing Olm
    account where there are other records. Where no copy of the ring opens, nothing does, and the two alone are counted.
    Rows that are written meanwhile may be left out. Raises AccountNotFound and WrongPickleKey.
    """
    verified = Verified()
    missing = set(RING_KEYS)
    try:
        store = backend.open_store(account, Mode.READ, pickle_key=pickle_key)
    except UnreadableRecord as error:
        for key in RING_KEYS:
            verified.add(key, str(error))
        return verified
    with store:
        for row in store.stored_rows():
            missing.discard(row.key)
            problem = _problem_of_ring(account, row, pickle_key) if row.key in RING_KEYS else store.problem_of(row)
            verified.add(row.key, problem)
            advance()
    if missing != set(RING_KEYS):
        for key in sorted(missing):
            verified.add(key, "is missing; the next batch writes it again")
    kinds = verified.readable.keys() | verified.unreadable.keys()
    if OlmAccount.kind_number not in kinds and kinds - {key[0] for key in RING_KEYS}:
        verified.add(encode_key(OlmAccount, ()), _LOST)
    return verified


def _problem_of_ring(account: Account, row: Row, pickle_key: str) -> str:
    try:
        unwrap(account, row.key, row.value, pickle_key)
    except CryptoStoreError as error:
        return str(error)
    return ""
