"""A batch that is too large for one commit, in several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Final

from cryptostore.records import Device, InboundGroupSession, Key, Record, SessionToBackUp
from cryptostore.records.changes import Changes

#: So many records go in one batch whatever they are: some megabytes, which a slow network takes inside a deadline.
PIECE: Final = 5_000

#: Kinds of which a room, or a file of keys, brings any number. Each record stands for itself, and nothing is lost where
#: it is durable before what came with it. That a session is to be backed up is durable before the session.
_FIRST: Final[tuple[type[Record], ...]] = (Device, SessionToBackUp, InboundGroupSession)

_Operation = tuple[type[Record], Key, Record | None]


def in_pieces(batch: Changes) -> Iterator[Changes]:
    """The batch, if it is small enough; else devices and room keys in pieces, and at last all the rest in one.

    So the sync token comes after every key that it covers, and what belongs together stays together.
    """
    if len(batch) <= PIECE:
        yield batch
        return
    first = chain.from_iterable(_operations(batch, kind) for kind in _FIRST)
    while piece := list(islice(first, PIECE)):
        yield _made_of(piece)
    rest = [kind for kind in batch.kinds() if kind not in _FIRST]
    yield _made_of(chain.from_iterable(_operations(batch, kind) for kind in rest))


def _operations(batch: Changes, kind: type[Record]) -> Iterator[_Operation]:
    return ((kind, key, record) for key, record in batch.operations(kind).items())


def _made_of(operations: Iterable[_Operation]) -> Changes:
    puts: list[Record] = []
    deletes: list[tuple[type[Record], Key]] = []
    for kind, key, record in operations:
        if record is None:
            deletes.append((kind, key))
        else:
            puts.append(record)
    return Changes(puts, deletes)
