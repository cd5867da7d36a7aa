"""One account in one database: records in, records out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby
from types import TracebackType
from typing import Final, Self, TypeVar, final

from cryptostore.errors import (
    ConfigurationError,
    CryptoStoreError,
    FencedOut,
    ReadOnlyStore,
    SchemaTooNew,
    UnreadableRecord,
    WrongPickleKey,
)
from cryptostore.logs import logger
from cryptostore.records.changes import Changes
from cryptostore.records.kinds import InboundGroupSession, ReplayPage
from cryptostore.records.record import KINDS_BY_NUMBER, Account, Key, Record, Unreadable

from .account_keys import AccountKeys
from .answers import Found, Selected, SelectedTogether
from .attempts import Attempts
from .clock import microseconds_now
from .interface import AccountRow, Batch, Database, Range, Row
from .keys import decode_key, encode_key, prefix_range, range_of, successor
from .lifecycle import OpenFlag
from .ordering import checked_rows, merged, only_wanted
from .ownership import Mode, Ownership, confirm, confirm_owner
from .reporting import Notify, Reports
from .seal import Unsealable
from .sealing import problem_of, seal_changes
from .secrets import SecretSeal
from .sequence import BatchSequence, SealedRows
from .values import NewerFormat, decode_value

R = TypeVar("R", bound=Record)
T = TypeVar("T")

#: Rows of a scan that are in memory at a time.
_PAGE: Final = 500

_log: Final = logger(__name__)


@final
class CryptoStore:
    """One account in one database.

    Concurrency: every method may be called from any thread, also at once. [STORE-1]
    A closed store, or one of a closed backend, raises StoreClosed from every method but `close`. [STORE-2]
    No method waits longer than the deadline before it raises BackendUnavailable. [STORE-3]
    """

    def __init__(
        self,
        database: Database,
        account: Account,
        row: AccountRow,
        mode: Mode,
        keys: AccountKeys | None,
        deadline: float,
        is_open: OpenFlag,
        notify: Notify,
    ) -> None:
        self.account: Final = account
        self.mode: Final = mode
        #: As it was when this store was opened. Only the sequence changes while this store owns the account.
        self.ownership: Final = Ownership.of(row)
        self._database: Final = database
        self._id: Final = row.id
        self._keys: Final = keys
        self._deadline: Final = deadline
        self._is_open: Final = is_open
        #: What the observers are told of this store.
        self.reports: Final = Reports(account, row.owner, notify)
        self._sequence: Final[BatchSequence[Changes | SealedRows]] = BatchSequence(
            row.sequence, deadline, self._sealed, self._commit
        )

    def get(self, kind: type[R], keys: Iterable[Key]) -> Found[R]:
        """Look up many records by their whole keys.

        Returns the records that exist, by key; a key without a record is not in the answer. [GET-1]
        Keys compare byte by byte: no case folding, trimming or normalisation. [GET-2] Any number of keys is one round
        trip, or none for no keys. [GET-3]
        Raises InvalidRecord for a key that is not whole or not valid. [GET-4] A row that cannot be read is reported,
        kept, and named by the answer's `unreadable`; a kind of which that would invite a new identity or a lost place
        raises UnreadableRecord. A row of a newer format raises SchemaTooNew. [GET-5]
        Atomicity: the answer is one snapshot: no batch is seen by half. [GET-6]
        """
        self._check_keys()
        wanted = {encode_key(kind, key): key for key in keys}
        found: Found[R] = Found()
        if wanted:
            rows = self._read(partial(self._database.get, self._id, sorted(wanted)))
            for row in only_wanted(wanted, rows):
                key = wanted[row.key]
                record = self._record(kind, key, row, found.unreadable)
                if record is not None:
                    found[key] = record
        return found

    def select(self, kind: type[R], prefixes: Iterable[Key]) -> Selected[R]:
        """Look up records by the beginnings of their keys; `()` selects all of the kind.

        Returns a list for each prefix, empty where nothing matches, in key order: that of the encoded keys, as
        `cryptostore.store.keys` describes it. [SELECT-1] A prefix is made of whole key fields: `("!a",)` does not match
        the room `"!ab"`, and no character has a meaning of its own. [SELECT-2] Any number of prefixes is one round
        trip, or none for no prefixes. [SELECT-3]
        Raises InvalidRecord for a prefix that the kind's keys cannot have. [SELECT-4] Unreadable rows as in
        `get`. [SELECT-5]
        Atomicity: the answer is one snapshot. [SELECT-6]
        """
        return self.select_together((kind, prefix) for prefix in prefixes).of(kind)

    def select_together(self, prefixes: Iterable[tuple[type[Record], Key]]) -> SelectedTogether:
        """Look records of several kinds up by the beginnings of their keys, in one round trip and one snapshot.

        A whole key is a prefix, too. Answers and raises for each kind as `select` does.
        """
        self._check_keys()
        together = SelectedTogether()
        ranges = []
        for kind, prefix in prefixes:
            ranges.append(prefix_range(kind, prefix))
            together.of(kind)[prefix] = []
        if ranges:
            disjoint = merged(ranges)
            rows = self._read(partial(self._database.ranges, self._id, disjoint))
            for number, of_kind in groupby(checked_rows(rows, disjoint), key=_kind_number):
                kind = KINDS_BY_NUMBER[number]
                self._fill(together.of(kind), self._records(kind, of_kind, together.of(kind).unreadable))
        return together

    def scan(
        self,
        kind: type[R],
        prefix: Key = (),
        after: Key | None = None,
        unreadable: dict[Key | None, str] | None = None,
    ) -> Iterator[R]:
        """Go through all records under a prefix in key order, in bounded memory; only those after the key `after`.

        Returns an iterator that fetches page by page; each record that exists throughout comes exactly once. [SCAN-1]
        A scan holds no connection, lock or snapshot between pages, and may be abandoned at any point. [SCAN-2]
        Raises as `select` does, at the call for a bad prefix and from the iterator for the rest. `unreadable` gets the
        keys of rows that cannot be read, as they are passed, with the reasons. [SCAN-3]
        Atomicity: each page is a snapshot of its own. [SCAN-4]
        Concurrency: an iterator serves one thread; the store may be written while it is open. [SCAN-5]
        """
        self._check_keys()
        within = prefix_range(kind, prefix)
        if after is not None:
            within = Range(max(within.start, successor(encode_key(kind, after))), within.end)
        return self._records(kind, self._pages(within), {} if unreadable is None else unreadable)

    def keys(self, kind: type[Record], prefix: Key = ()) -> Iterator[Key]:
        """Go through the keys under a prefix as `scan` does, but open no record: those of unreadable ones come, too."""
        self._is_open.check()
        rows = self._pages(prefix_range(kind, prefix))
        return (key for key, _ in self._with_keys(kind, rows, {}))

    def stored_rows(self) -> Iterator[Row]:
        """Every stored row of the account, sealed as it is, in key order, page by page. Needs no pickle key."""
        self._is_open.check()
        return self._pages(range_of(b""))

    def problem_of(self, row: Row) -> str:
        """Why a stored row cannot be read, or an empty text. Of a kind that is not known here, the seal alone counts.

        Raises ConfigurationError without a pickle key. The key ring's rows are not records: this is not for them.
        """
        return problem_of(row, self._check_keys())

    def apply(self, changes: Changes) -> None:
        """Make a batch durable, exactly once. An empty batch only settles what is pending, and costs no round trip
        where nothing is. [APPLY-1]

        Raises ReadOnlyStore in READ mode, StoreClosed after `close`, [APPLY-2]
        FencedOut when another owner has the account; it names who took over and when, [APPLY-3]
        StorageFull when there is no room; nothing of the batch is stored, and it may be applied again later, [APPLY-4]
        BackendUnavailable after the deadline. The caller still has the batch; applying it again settles it. Where its
        `outcome_unknown` is true, the batch is pending: the next `apply` sends it again, unchanged, before
        its own. [APPLY-5]
        Atomicity: all or nothing, in one transaction. [APPLY-6]
        Concurrency: batches of one store commit one after the other, in the order of their calls. [APPLY-7]
        Cancellation: an interrupt in the middle leaves the batch pending. [APPLY-8]
        Raises DatabaseWentBack when the database is older than what it acknowledged, as after a backup was put
        back, [APPLY-9] AccountNotFound when the account was deleted, [APPLY-10] InvalidRecord for a record of over
        4 MiB. [APPLY-11]
        """
        self._settle(changes)

    def put_rows(self, rows: Iterable[Row]) -> None:
        """Make sealed rows durable, as `apply` does. For commands: keys of records are not checked."""
        self._settle(SealedRows(tuple(rows)))

    def owned_keys(self) -> AccountKeys:
        """The account's ring and data keys, for commands. Raises ReadOnlyStore and StoreClosed as `apply` does."""
        self._check_writing()
        return self._check_keys()

    def _settle(self, changes: Changes | SealedRows) -> None:
        self._check_writing()
        attempts = self._attempts()
        try:
            put = self._sequence.apply(changes, attempts)
        except CryptoStoreError as error:
            self.reports.failed(error, attempts)
            raise
        self.reports.applied(put, attempts)

    def check_ownership(self) -> None:
        """Ask the database whether this store, opened with Mode.OWN, still owns the account: one round trip.

        Raises FencedOut, DatabaseWentBack and AccountNotFound as `apply` does, and BackendUnavailable.
        """
        self._check_writing()
        acknowledged = self._sequence.last_committed
        row = self._read(partial(self._database.find, self.account.user_id, self.account.device_id))
        # An account that was deleted and made again has another id.
        found = row if row is not None and row.id == self._id else None
        try:
            confirm_owner(self.account, self.ownership, acknowledged, found)
        except FencedOut as error:
            self.reports.fenced(error)
            raise

    @property
    def replay_key(self) -> bytes:
        """The account's secret key for recognising replayed events. It never changes."""
        return self._check_keys().ring.replay_key

    @property
    def secrets(self) -> SecretSeal:
        """What seals and opens the account's `Secret` records, beside the seal that every record has."""
        return SecretSeal(self.account, self.replay_key)

    def session_deletion(self, session: InboundGroupSession) -> Changes:
        """The batch that deletes a Megolm session together with its replay pages, for the owner to apply."""
        prefix = (session.session_id, session.sender_key)
        found = self.select(ReplayPage, [prefix])
        pages = [page.key for page in found[prefix]] + [key for key in found.unreadable if key is not None]
        return Changes(deletes=[(type(session), session.key), *((ReplayPage, key) for key in pages)])

    def close(self) -> None:
        """Closing twice is no error. A pending batch is not sent again. [CLOSE-2]"""
        self._is_open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check_keys(self) -> AccountKeys:
        self._is_open.check()
        if self._keys is None:
            raise ConfigurationError(
                f"{self.account} was opened without a pickle key, and its records are sealed: give open_store the "
                "pickle key that the account was saved with"
            )
        return self._keys

    def _check_writing(self) -> None:
        if self.mode is not Mode.OWN:
            raise ReadOnlyStore(f"{self.account} was opened with Mode.READ; open it with Mode.OWN to write")
        self._is_open.check()

    def _read(self, attempt: Callable[[float], T]) -> T:
        return self._attempts().run(attempt)

    def _attempts(self) -> Attempts:
        return Attempts(self._deadline, self.reports.retried)

    def _pages(self, within: Range) -> Iterator[Row]:
        while True:
            self._is_open.check()
            rows = self._read(partial(self._database.page, self._id, within, _PAGE))
            yield from checked_rows(rows, [within])
            if len(rows) < _PAGE:
                return
            within = Range(successor(rows[-1].key), within.end)

    @staticmethod
    def _fill(selected: Selected[R], records: Iterable[R]) -> None:
        lengths = {len(prefix) for prefix in selected}
        for record in records:
            key = record.key
            for length in lengths:
                matching = selected.get(key[:length])
                if matching is not None:
                    matching.append(record)

    def _records(self, kind: type[R], rows: Iterable[Row], unreadable: dict[Key | None, str]) -> Iterator[R]:
        for key, row in self._with_keys(kind, rows, unreadable):
            record = self._record(kind, key, row, unreadable)
            if record is not None:
                yield record

    def _with_keys(
        self, kind: type[Record], rows: Iterable[Row], unreadable: dict[Key | None, str]
    ) -> Iterator[tuple[Key, Row]]:
        for row in rows:
            try:
                key = decode_key(kind, row[0])
            except ValueError:
                self._report(kind, None, "its key is not a valid key of its kind", unreadable)
            else:
                yield key, row

    def _record(self, kind: type[R], key: Key, row: Row, unreadable: dict[Key | None, str]) -> R | None:
        try:
            return decode_value(kind, key, self._check_keys().open(row))
        except NewerFormat as error:
            raise SchemaTooNew(
                f"a {kind.kind_name} of {self.account} {error}: upgrade matrix-cryptostore. Nothing was changed"
            ) from None
        except WrongPickleKey:
            # Whoever gave the account another pickle key took it over.
            if self.mode is Mode.OWN:
                self.check_ownership()
            raise
        except (Unsealable, ValueError) as error:
            self._report(kind, key, str(error), unreadable)
            return None

    def _report(self, kind: type[Record], key: Key | None, reason: str, unreadable: dict[Key | None, str]) -> None:
        self.reports.unreadable(kind.kind_name, key, reason)
        if kind.when_unreadable is Unreadable.ERROR:
            raise UnreadableRecord(
                f"the {kind.kind_name} of {self.account} cannot be read ({reason}) and was left as it is; restore it "
                "from a backup before this account is used"
            )
        _log.warning("an unreadable %s of %s was left as it is (%s)", kind.kind_name, self.account, reason)
        unreadable[key] = reason

    def _sealed(self, number: int, changes: Changes | SealedRows) -> Batch:
        if isinstance(changes, SealedRows):
            return changes.batch(self.ownership.epoch, self.ownership.incarnation, number)
        puts, deletes = seal_changes(changes, self._check_keys())
        return Batch(self.ownership.epoch, self.ownership.incarnation, number, puts, deletes, microseconds_now())

    def _commit(self, batch: Batch, timeout: float) -> None:
        keys = self._check_keys()
        confirm(self.account, batch, self._database.commit(self._id, batch, timeout))
        keys.wrote(batch.puts)


def _kind_number(row: Row) -> int:
    return row[0][0]
