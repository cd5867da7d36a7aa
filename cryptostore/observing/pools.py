"""The connections of the databases that are open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from weakref import WeakMethod

from cryptostore.store.interface import Connections

Count = Callable[[], Connections | None]


class Pools:
    """The open databases, by their URLs as they may be shown. Keeps none of them open. From any thread."""

    def __init__(self) -> None:
        self._open: dict[WeakMethod[Count], str] = {}

    def opened(self, database: str, count: Count) -> None:
        """A database was opened."""
        self._open[WeakMethod(count)] = database

    def closed(self, count: Count) -> None:
        """A database was closed."""
        self._open.pop(WeakMethod(count), None)

    def counts(self) -> Iterator[tuple[str, Connections]]:
        """How many connections there are to each URL, all its pools together."""
        found: dict[str, Connections] = {}
        for method, database in list(self._open.items()):
            count = method()
            counted = None if count is None else count()
            if counted is not None:
                found[database] = _together(found.get(database), counted)
        yield from found.items()


def _together(one: Connections | None, other: Connections) -> Connections:
    if one is None:
        return other
    return Connections(one.used + other.used, one.idle + other.idle, one.most + other.most, one.waiting + other.waiting)
