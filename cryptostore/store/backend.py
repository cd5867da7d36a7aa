"""An open database as its users see it: accounts, and the stores of their records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Final, NamedTuple, Self, final

from cryptostore.errors import (
    AccountNotFound,
    BackendUnavailable,
    ConfigurationError,
    CryptoStoreError,
    InvalidRecord,
    UnreadableRecord,
)
from cryptostore.logs import logger
from cryptostore.records.record import Account

from .account_keys import RING_AND_MARK, AccountKeys, missing_ring
from .attempts import Attempts
from .crypto_store import CryptoStore
from .interface import AccountRow, Database, Health, Row, Schema, TakeOver
from .keys import range_of
from .lifecycle import OpenFlag
from .owners import default_owner
from .ownership import Mode, Ownership, claim_of
from .pickle_keys import warn_if_weak
from .reporting import Notify, described, no_observers
from .sealed_account import SealedAccount

#: Seconds after which a call that cannot reach the database gives up, unless the caller says otherwise.
DEFAULT_DEADLINE: Final = 15.0

#: Called before an account is taken over, with a store in READ mode that ends with the call, or None for a new
#: account. An exception ends the opening, and nothing is taken over.
Look = Callable[[CryptoStore | None], None]

_log: Final = logger(__name__)


def look_at_nothing(_account: CryptoStore | None) -> None:
    """Take the account over whatever is in it."""


class Listing(NamedTuple):
    """The accounts in a database at one moment, and how many were left out, because their rows cannot be read.

    `unowned` are those among the latter whose names can be read, and whose ownership is missing.
    """

    accounts: dict[Account, Ownership]
    left_out: int
    unowned: list[Account]


@final
class Backend:
    """One open database with any number of accounts.

    Every method may be called from any thread. [BACKEND-1] After `close`, every method but `close` raises
    StoreClosed. [BACKEND-2] No method waits longer than the deadline for the database; a passphrase
    that is stretched, and a `look`, come on top. [BACKEND-3]
    """

    def __init__(
        self,
        database: Database,
        *,
        name: str,
        deadline: float = DEFAULT_DEADLINE,
        owner: str = "",
        notify: Notify = no_observers,
        url: str = "",
    ) -> None:
        #: The plugin's own object: raw rows, for tools that copy or count sealed values.
        self.database: Final = database
        self._deadline = deadline
        #: The name of this process, which a fenced owner is shown.
        self.owner: Final = owner or default_owner()
        #: The database's URL, as it may be shown.
        self.url: Final = url
        #: Tells the observers, and which backend it is.
        self.notify: Final[Notify] = partial(notify, backend=name)
        self._is_open = OpenFlag(f"the {name} backend")
        #: The ids of rows that were reported: commands that watch an account list them many times.
        self._reported: set[int] = set()
        self.notify("cryptostore_database_opened", database=url, connections=database.connections)

    def open_store(
        self,
        account: Account,
        mode: Mode = Mode.OWN,
        *,
        pickle_key: str | None = None,
        look: Look = look_at_nothing,
    ) -> CryptoStore:
        """Open one account.

        OWN creates the account if need be, raises its epoch, draws an incarnation, and commits that before a record is
        read, so that every older owner is fenced from then on. [OPEN-1] There is no lease to wait for: the newest
        opener wins at once. [OPEN-2] READ changes nothing at all. [OPEN-3]
        Raises AccountNotFound in READ mode for an account that is not there, [OPEN-4] BackendUnavailable after the
        deadline; opening again is always safe. [OPEN-5]
        Raises WrongPickleKey, or UnreadableRecord for a damaged or missing key ring, or SchemaTooNew for an account of
        a newer program, or AccountElsewhere for one that was moved away, or is only partly here: each before anything
        is taken over. [OPEN-6]
        Without a pickle key a store in READ mode counts and copies sealed rows, and reads no record; OWN raises
        ConfigurationError. [OPEN-7]
        `look` sees the account before OWN takes it over, and may refuse.
        """
        self._is_open.check()
        if pickle_key is not None:
            warn_if_weak(account, pickle_key)
        attempts = self._attempts(account)
        facts = {"account": account, "mode": mode.value, "owner": self.owner}
        try:
            if mode is Mode.OWN:
                row, keys, previous_owner = self._own(account, pickle_key, look, attempts)
            else:
                row, keys = self._look_at(account, pickle_key, attempts)
                previous_owner = row.owner
        except CryptoStoreError as error:
            self.notify("cryptostore_open_failed", **facts, **described(error))
            raise
        store = self._store(account, row, mode, keys)
        seen = {"epoch": row.epoch, "previous_owner": previous_owner, "has_pickle_key": keys is not None}
        self.notify("cryptostore_store_opened", **facts, **seen)
        return store

    def sealed(self, account: Account) -> SealedAccount:
        """One account's rows as they are stored, for commands that move them. Looks at nothing yet."""
        return SealedAccount(self.database, account, self._deadline, self.owner, self._is_open)

    def accounts(self) -> dict[Account, Ownership]:
        """Every account in the database, in the order of user id and device id, with who owns it. [ACCOUNTS-2]

        A row that cannot be read, or half of which is missing, is reported in the log once, and left out.
        """
        return self.listing().accounts

    def listing(self) -> Listing:
        """As `accounts`, with what was left out."""
        self._is_open.check()
        rows = Attempts(self._deadline).run(self.database.accounts)
        named = sorted(self._readable(rows), key=lambda entry: _name_in_bytes(entry[0]))
        found = {account: ownership for account, ownership in named if ownership.epoch}
        return Listing(found, len(rows) - len(found), [account for account, ownership in named if not ownership.epoch])

    def delete_account(self, account: Account) -> None:
        """Delete an account with all that belongs to it, and nothing else. [DELETE-3]

        Raises AccountNotFound. [DELETE-4] Atomicity: all or nothing. Later batches of a running owner raise
        AccountNotFound, even after the account was made again. [DELETE-5]
        """
        self._is_open.check()
        attempts = self._attempts(account)
        row = self._find(account, attempts)
        # By its id, which is never another account's: a second attempt deletes nothing that was made since.
        attempts.run(partial(self.database.delete, row.id))
        self.notify("cryptostore_account_deleted", account=account, owner=self.owner)

    def health(self) -> Health:
        """Ask the database whether it is there and writable. Raises BackendUnavailable."""
        self._is_open.check()
        return Attempts(self._deadline).run(self.database.health)

    def schema(self) -> Schema:
        """The schema that the open database has."""
        self._is_open.check()
        return Attempts(self._deadline).run(self.database.schema)

    def close(self) -> None:
        """Close every store and connection. Closing twice is no error. [CLOSE-3]"""
        if self._is_open.close():
            # First: nobody may count what is closed.
            self.notify("cryptostore_database_closed", database=self.url, connections=self.database.connections)
            self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _readable(self, rows: Sequence[AccountRow]) -> Iterator[tuple[Account, Ownership]]:
        for row in rows:
            try:
                account, ownership = Account(row.user_id, row.device_id), Ownership.of(row)
            except (InvalidRecord, ValueError) as error:
                self._report(row, f"skipped an unreadable account ({type(error).__name__})")
                continue
            if not row.epoch:
                self._report(row, f"skipped an unreadable account (the ownership of {account} is missing)")
            yield account, ownership

    def _report(self, row: AccountRow, message: str) -> None:
        if row.id not in self._reported:
            self._reported.add(row.id)
            _log.warning("%s", message)

    def _look_at(
        self, account: Account, pickle_key: str | None, attempts: Attempts
    ) -> tuple[AccountRow, AccountKeys | None]:
        row = self._find(account, attempts)
        if pickle_key is None:
            return row, None
        keys = self._keys(account, row, pickle_key)
        self._load(account, row, keys, attempts)
        return row, keys

    def _store(self, account: Account, row: AccountRow, mode: Mode, keys: AccountKeys | None) -> CryptoStore:
        is_open = OpenFlag(f"the store of {account}", within=self._is_open)
        return CryptoStore(self.database, account, row, mode, keys, self._deadline, is_open, self.notify)

    def _own(
        self, account: Account, pickle_key: str | None, look: Look, attempts: Attempts
    ) -> tuple[AccountRow, AccountKeys | None, str]:
        if pickle_key is None:
            raise ConfigurationError(f"to own {account}, give open_store its pickle key, or open it with Mode.READ")
        found = attempts.run(partial(self.database.find, account.user_id, account.device_id))
        # Before the account is taken over: a wrong key must not fence a running client out.
        keys = None if found is None else self._unlocked(account, found, pickle_key, attempts)
        with attempts.giving_back():
            self._let_look(look, account, found, keys)
        claim = claim_of(self.owner)
        row = attempts.run(partial(self._take_over, account, claim))
        if found is None or keys is None or not _nothing_between(found, row):
            keys = self._unlocked(account, row, pickle_key, attempts)
        return row, keys, "" if found is None else found.owner

    def _let_look(self, look: Look, account: Account, found: AccountRow | None, keys: AccountKeys | None) -> None:
        if found is None:
            look(None)
            return
        with self._store(account, found, Mode.READ, keys) as store:
            look(store)

    def _take_over(self, account: Account, claim: TakeOver, timeout: float) -> AccountRow:
        return self.database.take_over(account.user_id, account.device_id, claim, timeout)

    def _unlocked(self, account: Account, row: AccountRow, pickle_key: str, attempts: Attempts) -> AccountKeys:
        keys = self._keys(account, row, pickle_key)
        if not self._load(account, row, keys, attempts):
            with attempts.giving_back():
                keys.create()
        return keys

    def _keys(self, account: Account, row: AccountRow, pickle_key: str) -> AccountKeys:
        def read(wanted: Sequence[bytes]) -> Sequence[Row]:
            return self._attempts(account).run(partial(self.database.get, row.id, wanted))

        return AccountKeys(account, pickle_key, read)

    def _load(self, account: Account, row: AccountRow, keys: AccountKeys, attempts: Attempts) -> bool:
        """Whether the account has a ring; without one it must be empty."""

        def is_there() -> bool:
            rows = attempts.run(partial(self.database.get, row.id, RING_AND_MARK))
            with attempts.giving_back():
                return keys.take(rows)

        if is_there():
            return True
        if not row.sequence and not attempts.run(partial(self.database.page, row.id, range_of(b""), 1)):
            return False
        # Its owner may have written the first batch, and the ring with it, since the first look.
        if not is_there():
            raise UnreadableRecord(missing_ring(account))
        return True

    def _attempts(self, account: Account) -> Attempts:
        def retrying(error: BackendUnavailable) -> None:
            self.notify("cryptostore_retried", account=account, reason=str(error))

        return Attempts(self._deadline, retrying)

    def _find(self, account: Account, attempts: Attempts) -> AccountRow:
        row = attempts.run(partial(self.database.find, account.user_id, account.device_id))
        if row is None:
            raise AccountNotFound.missing(account)
        return row


def _nothing_between(found: AccountRow, taken: AccountRow) -> bool:
    """Whether the account had no other owner between the look at it and the take-over."""
    return (found.id, found.epoch + 1, found.sequence) == (taken.id, taken.epoch, taken.sequence)


def _name_in_bytes(account: Account) -> tuple[bytes, bytes]:
    return account.user_id.encode(), account.device_id.encode()
