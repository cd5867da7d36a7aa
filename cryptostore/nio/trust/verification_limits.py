"""How many verifications strangers can begin."""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

from cryptostore.logs import logger

#: At once, in all and with one user.
MOST_OPEN: Final = 50
MOST_OPEN_OF_USER: Final = 3
#: Begun in `WINDOW` seconds, in all and by one user. What is declined counts, too.
MOST_BEGUN: Final = 200
MOST_BEGUN_OF_USER: Final = 10
WINDOW: Final = 600.0

_log: Final = logger(__name__)


class Limits:
    """Counts what was begun lately. What is refused is not answered, and said once in the log for each user."""

    def __init__(self) -> None:
        self._begun: deque[tuple[float, str]] = deque()
        self._of_user: Counter[str] = Counter()
        self._told: set[str] = set()
        #: How many were refused.
        self.refused = 0

    def allow(self, user_id: str, now: float, open_now: Counter[str]) -> bool:
        """Whether the user may begin another one; `open_now` are those that go on, by user."""
        self._forget(now - WINDOW)
        is_allowed = (
            open_now.total() < MOST_OPEN
            and open_now[user_id] < MOST_OPEN_OF_USER
            and len(self._begun) < MOST_BEGUN
            and self._of_user[user_id] < MOST_BEGUN_OF_USER
        )
        if is_allowed:
            self._begun.append((now, user_id))
            self._of_user[user_id] += 1
        else:
            self._refuse(user_id)
        return is_allowed

    def _refuse(self, user_id: str) -> None:
        self.refused += 1
        # Of users who have begun nothing, there are as many as a stranger likes.
        name = user_id if user_id in self._of_user else ""
        if name not in self._told:
            self._told.add(name)
            _log.warning("too many verifications were begun, so some are left unanswered; the last by %s", user_id)

    def _forget(self, until: float) -> None:
        while self._begun and self._begun[0][0] <= until:
            _, user_id = self._begun.popleft()
            self._of_user[user_id] -= 1
            if not self._of_user[user_id]:
                del self._of_user[user_id]
                self._told.discard(user_id)
            self._told.discard("")
