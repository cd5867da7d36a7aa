"""Copying an account from one database to another, of any two backends, as it is stored.

The order makes a copy whole or no account at all, wherever it is interrupted:

1. The destination gets a mark, which keeps it from being opened, and then all rows but the key ring's.
2. Both sides are read once more, and compared.
3. The source is taken over. If nothing was written to it in the meantime, it gets a mark that says where it went.
4. The destination gets the key ring, and loses its mark, in one batch.

The same call goes on where an earlier one was interrupted, as long as nothing was written to the source since.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple

from cryptostore.errors import AccountNotFound, ConfigurationError, UnreadableRecord
from cryptostore.records.record import Account

from .account_keys import AccountKeys, missing_ring
from .backend import Backend
from .comparing import NOT_COPIED_AS_ROWS, Difference, Different, compared, copied_rows, note, note_changed
from .interface import AccountRow, Row
from .marks import MARK_KEY, Mark, Whereabouts, elsewhere, encode_mark
from .ring import RING_KEYS
from .sealing import problem_of


class Beginning(StrEnum):
    """What a copy finds at its destination, and so how it begins."""

    #: There is no such account, or an empty one.
    NEW = "new"
    #: An earlier copy was interrupted, and the source is as it was.
    RESUMED = "resumed"
    #: An earlier copy was interrupted, and the source was written to since: what came is deleted.
    ANEW = "anew"
    #: The account was moved from there to the source, and comes back: what was left there is deleted.
    BACK = "back"
    #: The source is marked as moved; the destination lacks the last batch.
    FINISHED = "finished"
    #: An earlier copy moved the account, and is complete.
    DONE = "done"
    #: The source has nothing of the account: it was opened, and never written to.
    EMPTY = "empty"

    @property
    def is_end(self) -> bool:
        """Whether there is nothing to copy."""
        return self in (Beginning.DONE, Beginning.EMPTY)


class Place(NamedTuple):
    """A database, and its URL as it may be shown."""

    backend: Backend
    url: str


@dataclass
class Copied:
    """What became of a copy: how many rows of each kind number were compared, and what was found.

    `size` is in bytes of keys and values. Of `different` and `unreadable` rows the first 10,000 are named. The copy is
    complete only where there is no difference. `is_source_marked` says that nobody opens the source any more, also
    where there is one, and `is_what_a_move_left` that it was so before: what was written since the move is missing.
    """

    beginning: Beginning
    rows: Counter[int] = field(default_factory=Counter)
    size: int = 0
    different: list[Different] = field(default_factory=list)
    unreadable: list[Different] = field(default_factory=list)
    is_source_marked: bool = False
    is_what_a_move_left: bool = False


class Watching(NamedTuple):
    """What is called as a copy gets on, with numbers of rows."""

    copied: Callable[[int], None]
    compared: Callable[[int], None]


UNWATCHED: Final = Watching(lambda _number: None, lambda _number: None)


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How to copy.

    With a pickle key, every row that was read back is opened, too. `take_over` takes the source over before the first
    row is read; else that is done at the end, or never where the source is left (`leave_source`). With `even_if_moved`
    what was left of an account that was moved is copied like any other.
    """

    pickle_key: str | None = field(default=None, repr=False)
    take_over: bool = False
    leave_source: bool = False
    even_if_moved: bool = False


def beginning_of(source: Place, destination: Place, account: Account, how: How) -> Beginning:
    """How a copy of the account would begin. Changes nothing.

    Raises AccountNotFound; ConfigurationError where the destination has the account; AccountElsewhere where the source
    is an incomplete copy, or was moved somewhere else; WrongPickleKey, and UnreadableRecord for a source without a key
    ring, or with one that is damaged.
    """
    return _Copy(source, destination, account, how).beginning


def copy(source: Place, destination: Place, account: Account, how: How, watching: Watching = UNWATCHED) -> Copied:
    """Copy one account, and mark the source as moved unless it is to be left.

    Atomicity: as the module says. Raises as `beginning_of` does, and ConfigurationError where the source was written to
    meanwhile; what the backends raise. After each of them, the same call goes on or begins again.
    """
    copied = _Copy(source, destination, account, how).run(watching)
    if not copied.beginning.is_end and not copied.different:
        facts = {"account": account, "destination": destination.url, "owner": source.backend.owner}
        source.backend.notify("cryptostore_keys_exported", **facts, records=copied.rows.total(), way="copy")
        if not how.leave_source:
            source.backend.notify("cryptostore_account_moved", **facts, source=source.url)
    return copied


class _Copy:
    """One account on its way, and what both sides were found to be."""

    def __init__(self, source: Place, destination: Place, account: Account, how: How) -> None:
        self._account = account
        self._how = how
        self._source_url, self._destination_url = source.url, destination.url
        self._source = source.backend.sealed(account)
        self._destination = destination.backend.sealed(account)
        #: The id and the incarnation of the copy, once it is ours.
        self._copy = (0, 0)
        self._look()
        self._keys: AccountKeys | None = None
        if how.pickle_key is not None and self.beginning is not Beginning.EMPTY:
            self._keys = self._unlocked(how.pickle_key)

    def _look(self) -> None:
        found = self._source.find()
        if found is None:
            raise AccountNotFound.missing(self._account)
        self._seen: AccountRow = found
        self._source_mark = self._source.mark()
        self.beginning = self._beginning(self._destination.find())

    def run(self, watching: Watching) -> Copied:
        if self._how.take_over and self._source_mark is None and not self.beginning.is_end:
            self._source.take_over()
            # Its owner may have written to it until now.
            self._look()
        done = Copied(self.beginning, is_source_marked=self._source_mark is not None)
        done.is_what_a_move_left = done.is_source_marked and self._how.even_if_moved
        if self.beginning.is_end:
            return done
        is_to_be_marked = self._source_mark is None and not self._how.leave_source
        self._bring_rows(watching.copied)
        self._check_unchanged(self._source.find())
        self._compare(done, watching.compared)
        ring = self._ring()
        self._check_unchanged(self._source.take_over() if is_to_be_marked else self._source.find())
        if not done.different:
            if is_to_be_marked:
                self._source.write([self._row_of(self._moved())])
                done.is_source_marked = True
            self._complete(ring, done)
        return done

    def _beginning(self, there: AccountRow | None) -> Beginning:
        mark = None if there is None else self._destination.mark()
        left = self._source_mark
        if left is not None and not (self._how.even_if_moved and left.whereabouts is Whereabouts.MOVED):
            return self._beginning_of_moved(left, there, mark)
        if not self._seen.sequence:
            return Beginning.EMPTY
        self._ring()
        if there is None or not (there.sequence or next(self._destination.pages(), [])):
            return Beginning.NEW
        if mark is None:
            self._check_other_than(there)
            raise ConfigurationError(
                f"{self._account} is in {self._destination_url} already, and nothing of it is replaced: if it is not "
                "needed there, delete it with `cryptostore delete`"
            )
        return self._beginning_over(mark)

    def _check_other_than(self, there: AccountRow) -> None:
        """Raise ConfigurationError where it is the source that was found: it must not be said to be superfluous."""
        here = self._seen
        if (there.id, there.epoch, there.incarnation) == (here.id, here.epoch, here.incarnation):
            raise ConfigurationError(
                f"{self._source_url} and {self._destination_url} are one database, or one is a copy of the other's "
                "files: name another destination, and delete nothing"
            )

    def _beginning_over(self, mark: Mark) -> Beginning:
        if mark.other_id != self._seen.id:
            raise ConfigurationError(
                f"{self._destination_url} cannot take another copy: {elsewhere(self._account, mark)}"
            )
        if mark.whereabouts is Whereabouts.MOVED:
            return Beginning.BACK
        return Beginning.RESUMED if mark.sequence == self._seen.sequence else Beginning.ANEW

    def _beginning_of_moved(self, moved: Mark, there: AccountRow | None, mark: Mark | None) -> Beginning:
        """Of a source that has a mark: the rest of it goes nowhere else."""
        if there is None or (moved.whereabouts, moved.other_id) != (Whereabouts.MOVED, there.id):
            raise elsewhere(self._account, moved)
        if mark is None:
            return Beginning.DONE
        if (mark.whereabouts, mark.other_id, mark.sequence) != (Whereabouts.COMING, self._seen.id, moved.sequence):
            raise elsewhere(self._account, mark)
        return Beginning.FINISHED

    def _bring_rows(self, copied: Callable[[int], None]) -> None:
        mark = self._begun()
        for page in self._source.pages(mark.reached):
            rows = [row for row in page if row.key not in NOT_COPIED_AS_ROWS]
            mark = replace(mark, reached=page[-1].key)
            self._destination.write([*rows, self._row_of(mark)])
            copied(len(rows))

    def _begun(self) -> Mark:
        """The destination's mark, which is stored."""
        if self.beginning in (Beginning.ANEW, Beginning.BACK):
            self._destination.delete()
        owned = self._destination.take_over()
        self._copy = (owned.id, owned.incarnation)
        if self.beginning in (Beginning.RESUMED, Beginning.FINISHED):
            mark = self._destination.mark()
            if mark is None or (mark.whereabouts, mark.other_id) != (Whereabouts.COMING, self._seen.id):
                raise self._interfered()
            return mark
        if owned.sequence:
            raise self._interfered()
        mark = Mark(Whereabouts.COMING, self._seen.id, self._seen.sequence, self._source_url, datetime.now(UTC))
        self._destination.write([self._row_of(mark)])
        return mark

    def _compare(self, done: Copied, passed: Callable[[int], None]) -> None:
        ours, theirs = copied_rows(self._source.pages(), passed), copied_rows(self._destination.pages())
        for row, difference in compared(ours, theirs):
            if difference in (Difference.MISSING, Difference.ADDED):
                note(done.different, row.key, difference)
                continue
            done.rows[row.key[0]] += 1
            done.size += len(row.key) + len(row.value)
            if difference:
                note(done.different, row.key, difference)
            elif self._keys is not None and (problem := problem_of(row, self._keys)):
                note(done.unreadable, row.key, problem)

    def _complete(self, ring: dict[bytes, bytes], done: Copied) -> None:
        self._destination.write([Row(*copy) for copy in ring.items()], deletes=[MARK_KEY])
        there = self._destination.get(sorted([*RING_KEYS, MARK_KEY]))
        note_changed(done.different, ring, there)
        for key, value in there.items():
            done.rows[key[0]] += 1
            done.size += len(key) + len(value)

    def _unlocked(self, pickle_key: str) -> AccountKeys:
        # Of the ring's rows alone: the mark of an account that was moved keeps nobody from looking at what it left.
        keys = AccountKeys(self._account, pickle_key, lambda _wanted: [Row(*copy) for copy in self._ring().items()])
        keys.load()
        return keys

    def _ring(self) -> dict[bytes, bytes]:
        ring = self._source.get(RING_KEYS)
        if not ring:
            raise UnreadableRecord(missing_ring(self._account))
        return ring

    def _moved(self) -> Mark:
        there = self._destination.find()
        # What is left could not be opened any more, so the copy must be there and be ours.
        if there is None or (there.id, there.incarnation) != self._copy:
            raise self._interfered()
        return Mark(Whereabouts.MOVED, there.id, self._seen.sequence, self._destination_url, datetime.now(UTC))

    def _row_of(self, mark: Mark) -> Row:
        return Row(MARK_KEY, encode_mark(self._account, mark))

    def _check_unchanged(self, now: AccountRow | None) -> None:
        if now is None or (now.id, now.sequence) != (self._seen.id, self._seen.sequence):
            raise ConfigurationError(
                f"{self._account} was written to while it was copied, so the copy in {self._destination_url} is not "
                "complete, and cannot be opened. Stop the client and copy again, or give --take-over"
            )

    def _interfered(self) -> ConfigurationError:
        return ConfigurationError(
            f"another program opened, copied or deleted {self._account} in {self._destination_url} at the same time; "
            "stop it, and copy again"
        )
