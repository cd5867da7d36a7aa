"""At most one live object for each key, looked up when it is needed.

Two live objects of one Olm session would use its ratchet twice, and what they encrypt could never be read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeVar
from weakref import WeakValueDictionary

from cachetools import LRUCache

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

#: How many of the last used objects are kept in memory even if nothing else refers to them.
CAPACITY: Final = 10_000

_CHUNK: Final = 500


class Recent(LRUCache[K, V]):
    """The objects that were used last. What is pushed out moves to `pushed_out`."""

    def __init__(self, capacity: int, pushed_out: MutableMapping[K, V]) -> None:
        super().__init__(capacity)
        self._pushed_out = pushed_out

    def popitem(self) -> tuple[K, V]:
        """Push out what was not used for the longest time."""
        key, value = super().popitem()
        self._pushed_out[key] = value
        return key, value


class LiveCache(Generic[K, V]):
    """The live objects of one kind: a strong LRU, weak references behind it, and pinned what is not durable yet.

    `read` looks keys up in the database, in one round trip; `build` makes the live object of what was found for
    a key, or None. What is not there is remembered, too: only the owner of an account could add it.

    Concurrency: every method may be called from any thread. No lock is held while `read` waits for the database.
    """

    def __init__(
        self,
        read: Callable[[list[K]], Mapping[K, Any]],
        build: Callable[[K, Any], V | None],
        capacity: int = CAPACITY,
    ) -> None:
        self._read = read
        self._build = build
        self._lock = threading.RLock()
        self._alive: WeakValueDictionary[K, V] = WeakValueDictionary()
        self._recent = Recent(capacity, self._alive)
        self._absent: LRUCache[K, bool] = LRUCache(capacity)
        self._pinned: dict[K, V] = {}
        self._saves = 0

    def get(self, key: K) -> V | None:
        """The live object, read from the database if need be; None if there is none."""
        return self.fetch([key]).get(key)

    def fetch(self, keys: Iterable[K]) -> dict[K, V]:
        """Many live objects, at most one round trip for all that are not in memory."""
        wanted = dict.fromkeys(keys)
        while True:
            with self._lock:
                saves = self._saves
                found = {key: value for key in wanted if (value := self.peek(key)) is not None}
                self._make_room(len(wanted))
                missing = [key for key in wanted if key not in found and not self._absent.get(key)]
            if not missing:
                return found
            rows = self._read(missing)
            with self._lock:
                # What was read before another thread's save would bring an old ratchet back to life.
                if saves == self._saves:
                    return found | self._admit(missing, rows)

    def peek(self, key: K) -> V | None:
        """The live object if it is in memory."""
        with self._lock:
            value = self._pinned.get(key)
            if value is None:
                value = self._recent.get(key)
            if value is None and (value := self._alive.get(key)) is not None:
                self._recent[key] = value
            return value

    def is_absent(self, key: K) -> bool:
        """Whether the database is known to hold nothing for the key."""
        with self._lock:
            return key in self._absent

    def put(self, key: K, value: V) -> None:
        """Make `value` the live object of `key`, and pin it until it is durable."""
        with self._lock:
            self._pinned[key] = value

    def unpin(self, key: K) -> None:
        """The object's state is durable, so it may be forgotten and read again."""
        with self._lock:
            self._saves += 1
            value = self._pinned.pop(key, None)
            if value is not None:
                self._remember(key, value)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside the block nobody else comes by an object; what somebody has begun to read is read again after it."""
        with self._lock:
            try:
                yield
            finally:
                self._saves += 1

    def let_go(self, key: K) -> bool:
        """Forget the object of a key if nothing but this cache refers to it. Returns whether there is none any more.

        One that is not durable yet is kept. Whoever deletes what the object stands for does so inside `alone`.
        """
        with self._lock:
            value = self.peek(key)
            if value is None:
                return True
            if key in self._pinned:
                return False
            self._recent.pop(key)
            # Nothing but a weak reference is left of what nobody else has.
            self._alive[key] = value
            del value
            return key not in self._alive

    def is_pinned(self, key: K) -> bool:
        """Whether the key's object has a state that is not durable yet."""
        with self._lock:
            return key in self._pinned

    def pinned(self) -> dict[K, V]:
        """The objects whose state is not durable yet."""
        with self._lock:
            return dict(self._pinned)

    def _admit(self, keys: list[K], rows: Mapping[K, Any]) -> dict[K, V]:
        admitted: dict[K, V] = {}
        for key in keys:
            value = self.peek(key)
            if value is None and key in rows:
                value = self._build(key, rows[key])
            if value is None:
                self._absent[key] = True
            else:
                self._remember(key, value)
                admitted[key] = value
        return admitted

    def _make_room(self, wanted: int) -> None:
        """Objects that were fetched together are used together; the caller alone keeps live ones in memory."""
        if wanted > self._absent.maxsize:
            larger: LRUCache[K, bool] = LRUCache(wanted)
            larger.update(self._absent)
            self._absent = larger

    def _remember(self, key: K, value: V) -> None:
        if key in self._absent:
            del self._absent[key]
        self._recent[key] = value


class LazyMapping(Mapping[str, V]):
    """A mapping over everything in the database, fetched piece by piece while it is gone through."""

    def __init__(self, keys: Callable[[], Iterator[str]], fetch: Callable[[Iterable[str]], Mapping[str, V]]) -> None:
        self._keys = keys
        self._fetch = fetch

    def __getitem__(self, key: str) -> V:
        return self._fetch([key])[key]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bool(self[key])

    def __iter__(self) -> Iterator[str]:
        for chunk in _chunks(self._keys()):
            # So that looking up the values finds them in memory.
            self._fetch(chunk)
            yield from chunk

    def __len__(self) -> int:
        return sum(1 for _ in self._keys())


def _chunks(keys: Iterator[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    for key in keys:
        chunk.append(key)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
