"""Batches in portions: a server ends the session over a message of 1 GiB, and the core would send it again forever."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

from cryptostore.store.interface import Batch, Row

T = TypeVar("T")

#: Bytes of keys and values that one statement carries, about.
_PORTION: Final = 64 * 1024 * 1024


class Portion(NamedTuple):
    """What one statement puts and deletes."""

    puts: Sequence[Row]
    deletes: Sequence[bytes]


def portions(batch: Batch) -> list[Portion]:
    """The batch in as few portions as it can be sent in; one for nearly every batch."""
    puts = list(_slices(batch.puts, lambda row: len(row.key) + len(row.value)))
    deletes = list(_slices(batch.deletes, len))
    if len(puts) <= 1 and len(deletes) <= 1:
        return [Portion(batch.puts, batch.deletes)]
    return [*(Portion(rows, ()) for rows in puts), *(Portion((), keys) for keys in deletes)]


def _slices(items: Sequence[T], size_of: Callable[[T], int]) -> Iterator[Sequence[T]]:
    begins = size = 0
    for at, item in enumerate(items):
        if size > _PORTION:
            yield items[begins:at]
            begins, size = at, 0
        size += size_of(item)
    if size:
        yield items[begins:]
