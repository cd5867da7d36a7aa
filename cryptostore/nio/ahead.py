"""What was read from the database before anybody asked for it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TypeVar

from cryptostore.records import Key, Record
from cryptostore.records.changes import Changes
from cryptostore.store.answers import Selected, SelectedTogether

R = TypeVar("R", bound=Record)


class ReadAhead:
    """Answers to look-ups that are about to come. Each is given once: what comes later asks the database."""

    def __init__(self, answers: SelectedTogether | None = None) -> None:
        self._answers = answers or SelectedTogether()
        self._lock = threading.Lock()

    def take(self, kind: type[R], prefixes: Sequence[Key]) -> Selected[R] | None:
        """The answer for these prefixes of a kind, or None where one of them was not read."""
        with self._lock:
            ahead = self._answers.of(kind)
            if not ahead or not prefixes or not ahead.keys() >= set(prefixes):
                return None
            taken: Selected[R] = Selected()
            taken.update({prefix: ahead.pop(prefix) for prefix in dict.fromkeys(prefixes)})
        for key, reason in ahead.unreadable.items():
            if key is None or any(key[: len(prefix)] == prefix for prefix in taken):
                taken.unreadable[key] = reason
        return taken

    def forget(self, changes: Changes) -> None:
        """This is written: what was read of its kinds is out of date."""
        if not changes:
            return
        with self._lock:
            for kind in changes.kinds():
                self._answers.of(kind).clear()
