"""Whose device lists are followed, and which of them are out of date."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial

from cryptostore import records
from cryptostore.changes import Changes
from cryptostore.nio.pickles import if_valid

from .buffer import BufferedStorage


class TrackedUsers:
    """The two sets that nio keeps, and what was last written of them.

    A user's generation grows with each change that the server reports: an answer to a question that was asked in an
    older one may be out of date already.
    """

    def __init__(self, storage: BufferedStorage, is_current: bool) -> None:
        self._storage = storage
        rows = storage.select(records.TrackedUser, [()])[()]
        #: Users whose devices were asked for.
        self.tracked = {row.user_id for row in rows}
        #: Users to ask about: all of them, unless the token is the one up to which their changes were noted.
        self.outdated = {row.user_id for row in rows if row.outdated or not is_current}
        self._generations = Counter({row.user_id: row.generation for row in rows})
        self._saved = set(self.tracked)
        self._saved_outdated = {row.user_id for row in rows if row.outdated}
        self._new_generations: set[str] = set()

    def changed(self, users: Iterable[str]) -> None:
        """The server says that these users' devices changed. Others than those that are followed do not matter."""
        relevant = set(users) & (self.tracked | self.outdated)
        self._generations.update(relevant)
        self._new_generations |= relevant
        self.outdated |= relevant
        self._storage.touch()

    def left(self, users: Iterable[str]) -> None:
        """The server says nothing more about these users."""
        self.tracked.difference_update(users)
        self.outdated.difference_update(users)

    def generations(self, users: Iterable[str]) -> dict[str, int]:
        """The generations in which a question about these users is asked."""
        return {user: self._generations[user] for user in users}

    def answered(self, asked: dict[str, int]) -> None:
        """An answer was taken in: users who have changed since the question are out of date again."""
        self.outdated |= {user for user, generation in asked.items() if self._generations[user] != generation}
        self._storage.touch()

    @property
    def is_dirty(self) -> bool:
        """Whether a flush has something to write."""
        return bool(self._changed_users() or self._saved - self.tracked)

    def collect(self) -> Changes:
        """The records to write."""
        rows = [if_valid(partial(self._record, user)) for user in self._changed_users()]
        gone = [row for user in self._saved - self.tracked if (row := if_valid(partial(self._record, user)))]
        self._saved = set(self.tracked)
        self._saved_outdated = self.outdated & self.tracked
        self._new_generations = set()
        return Changes([row for row in rows if row is not None], [(records.TrackedUser, row.key) for row in gone])

    def _changed_users(self) -> set[str]:
        changed = (self.outdated & self.tracked) ^ self._saved_outdated
        return (changed | self._new_generations | (self.tracked - self._saved)) & self.tracked

    def _record(self, user_id: str) -> records.TrackedUser:
        return records.TrackedUser(user_id, user_id in self.outdated, self._generations[user_id])
