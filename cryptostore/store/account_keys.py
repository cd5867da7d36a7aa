"""The data keys of one account while its store is open; they seal and open its values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from cryptostore.errors import UnreadableRecord
from cryptostore.logs import logger
from cryptostore.records.record import Account

from .interface import Row
from .marks import MARK_KEY, decode_mark, elsewhere
from .ring import RING_KEYS, Ring, find_ring, wrap
from .seal import Reason, Seal, Unsealable

#: Where a ring is looked up, and the mark of an account that is not at home.
RING_AND_MARK: Final = sorted([*RING_KEYS, MARK_KEY])

_log: Final = logger(__name__)


class _InUse(NamedTuple):
    """A ring, and the seals that its data keys make."""

    ring: Ring
    seal: Seal
    #: Opens with retired data keys as well.
    every_key: Seal


class AccountKeys:
    """An account's ring, opened with its pickle key, and the seal that it makes.

    `read` looks raw keys up in the database. Raises WrongPickleKey or UnreadableRecord for a ring that does not open.
    """

    def __init__(self, account: Account, pickle_key: str, read: Callable[[Sequence[bytes]], Sequence[Row]]) -> None:
        self._account = account
        self._pickle_key = pickle_key
        self._read = read
        self._loaded: _InUse | None = None
        self._unknown: set[int | None] = set()
        #: None where they are not wrapped yet: that may take a passphrase, and who only reads does not need them.
        self._unwritten: tuple[Row, ...] | None = ()

    def load(self) -> bool:
        """Read the ring, and say whether there is one. Raises as `take` does."""
        return self.take(self._read(RING_AND_MARK))

    def take(self, rows: Sequence[Row]) -> bool:
        """Take the ring among what was read under `RING_AND_MARK`, and say whether there is one.

        Takes as long as a passphrase takes to stretch. Raises AccountElsewhere where a mark says so.
        """
        values = dict(rows)
        if MARK_KEY in values:
            raise elsewhere(self._account, decode_mark(self._account, values[MARK_KEY]))
        found = find_ring(self._account, values, self._pickle_key)
        if found is None:
            return False
        if self._loaded is not None and found.ring.generation < self._loaded.ring.generation:
            raise UnreadableRecord(
                f"the key ring of {self._account} is older than the one that this store uses: somebody put an old copy "
                "back. Nothing was changed: put the newest backup of the database back"
            )
        self._use(found.ring)
        for key, fault in found.faults.items():
            _log.warning(
                "the copy %s of the key ring of %s %s; the next batch of its owner writes it again",
                key.hex(),
                self._account,
                fault,
            )
            self._unwritten = None
        return True

    def create(self) -> None:
        """Make a ring for an account that has nothing yet. The first batch writes it."""
        ring = Ring.new()
        self._use(ring)
        self._unwritten = self._wrapped(ring)

    @property
    def unwritten(self) -> tuple[Row, ...]:
        """Rows of the ring that the next batch has to write."""
        if self._unwritten is None:
            self._unwritten = self._wrapped(self.ring)
        return self._unwritten

    def wrote(self, rows: Sequence[Row]) -> None:
        """A batch with these rows is durable, those of the ring perhaps among them."""
        if self._unwritten != () and {row.key for row in rows}.issuperset(RING_KEYS):
            self._unwritten = ()

    def replace(self, ring: Ring, pickle_key: str) -> tuple[Row, ...]:
        """Seal with another ring, under this pickle key, from now on. Returns the rows to write for it."""
        self._pickle_key = pickle_key
        self._use(ring)
        self._unwritten = self._wrapped(ring)
        return self._unwritten

    @property
    def ring(self) -> Ring:
        """The ring that is in use. Raises UnreadableRecord where there is none."""
        return self._in_use().ring

    def seal_all(self, plains: Sequence[tuple[bytes, bytes]]) -> list[Row]:
        """The rows to store, for keys and what they are to hold."""
        return self._in_use().seal.seal_all(plains)

    def open(self, row: Row) -> bytes:
        """The plain bytes of a stored value. Raises Unsealable with the reason why it cannot be opened."""
        if self._loaded is not None:
            try:
                return self._loaded.seal.open(row.key, row.value)
            except Unsealable as error:
                if error.reason is not Reason.UNKNOWN_DATA_KEY or error.data_key_id in self._unknown:
                    raise
        # The account's owner may have changed the data key, or written the first ring, since this store was opened.
        if not self.load():
            raise UnreadableRecord(missing_ring(self._account))
        try:
            return self._in_use().seal.open(row.key, row.value)
        except Unsealable as error:
            # Many rows may name it: the ring is read once for all of them.
            self._unknown.add(error.data_key_id)
            raise

    def reseal(self, row: Row) -> Row | None:
        """The row, sealed with the newest data key: the same row if it is already, None if no key opens it.

        Retired data keys open as well.
        """
        every_key = self._in_use().every_key
        try:
            plain = every_key.open(row.key, row.value)
        except Unsealable:
            return None
        return row if every_key.has_sealed(row.value) else Row(row.key, every_key.seal(row.key, plain))

    def _in_use(self) -> _InUse:
        if self._loaded is None:
            raise UnreadableRecord(missing_ring(self._account))
        return self._loaded

    def _use(self, ring: Ring) -> None:
        every_key = Seal(self._account, ring.data_keys + ring.retired)
        self._loaded = _InUse(ring, Seal(self._account, ring.data_keys), every_key)

    def _wrapped(self, ring: Ring) -> tuple[Row, ...]:
        return tuple(Row(*copy) for copy in wrap(self._account, ring, self._pickle_key).items())


def missing_ring(account: Account) -> str:
    """The message for an account that has records, or had batches, but no ring."""
    return (
        f"the key ring of {account} is missing, and without it nothing that the account stored can be read. Nothing "
        "was changed: restore the database from a backup, and check that this role may see every row"
    )
