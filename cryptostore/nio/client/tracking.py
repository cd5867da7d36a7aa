"""Whose device lists are followed, and which of them are out of date."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial

from cryptostore import records
from cryptostore.nio.pickles import if_valid
from cryptostore.records.changes import Changes, RecordKey

from .buffer import BufferedStorage
from .noting import NotingSet


class TrackedUsers:
    """The two sets that nio keeps, and what was last written of them.

    A user's generation grows with each change that the server reports: an answer to a question that was asked in an
    older one may be out of date already.
    """

    def __init__(self, storage: BufferedStorage, is_current: bool) -> None:
        self._storage = storage
        rows = storage.select(records.TrackedUser, [()])[()]
        #: Users who may not be as they were saved.
        self._touched = set() if is_current else {row.user_id for row in rows}
        #: Users whose devices were asked for.
        self.tracked = NotingSet((row.user_id for row in rows), self._touched.update)
        #: Users to ask about: all of them, unless the token is the one up to which their changes were noted.
        self.outdated = NotingSet((row.user_id for row in rows if row.outdated or not is_current), self._touched.update)
        self._generations = Counter({row.user_id: row.generation for row in rows})
        #: Whether they were out of date, and their generation, as last written.
        self._saved = {row.user_id: (row.outdated, row.generation) for row in rows}

    def changed(self, users: Iterable[str]) -> None:
        """The server says that these users' devices changed. Others than those that are followed do not matter."""
        relevant = {user for user in users if user in self.tracked or user in self.outdated}
        self._generations.update(relevant)
        self._touched |= relevant
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
        return any(self._is_changed(user) for user in self._touched)

    def collect(self) -> Changes:
        """The records to write."""
        puts: list[records.Record] = []
        deletes: list[RecordKey] = []
        for user in self._touched:
            row = if_valid(partial(self._record, user)) if self._is_changed(user) else None
            state = self._state(user)
            if state is None:
                self._saved.pop(user, None)
                deletes += [RecordKey(records.TrackedUser, row.key)] if row else []
            else:
                self._saved[user] = state
                puts += [row] if row else []
        self._touched.clear()
        return Changes(puts, deletes)

    def _is_changed(self, user_id: str) -> bool:
        return self._saved.get(user_id) != self._state(user_id)

    def _state(self, user_id: str) -> tuple[bool, int] | None:
        return (user_id in self.outdated, self._generations[user_id]) if user_id in self.tracked else None

    def _record(self, user_id: str) -> records.TrackedUser:
        return records.TrackedUser(user_id, user_id in self.outdated, self._generations[user_id])
