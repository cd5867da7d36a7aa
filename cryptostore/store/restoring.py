"""Making an account safe whose backup was put back: nothing that is stored encrypts again.

Other devices have seen more than what is stored. An Olm or a Megolm ratchet that was used since would be used twice,
and the homeserver hands out one-time keys that are not known any more. The order survives a kill between any two steps:

1. The account is marked: no client opens it until it is disarmed.
2. Sessions of its own are dropped, Olm sessions decrypt only, and the fallback key is forgotten as published.
3. The mark says so. What needs the homeserver is done by the client at its next start, and then the mark goes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import Final, TypeVar

from cryptostore.records.changes import Changes
from cryptostore.records.kinds import FallbackKey, OlmSession, OutboundGroupSession, RestoredAccount, SharedPart
from cryptostore.records.record import Record

from .crypto_store import CryptoStore

#: Records that are changed at once.
_BATCH: Final = 500
#: What must not be used again, nor taken for what the homeserver has.
_DROPPED: Final[tuple[type[Record], ...]] = (OutboundGroupSession, SharedPart, FallbackKey)

T = TypeVar("T")


def mark_restored(
    store: CryptoStore, *, dry_run: bool = False, advance: Callable[[int], None] = lambda _number: None
) -> Counter[str]:
    """Mark an account, opened by its owner, as restored from a backup, and disarm what is stored of it.

    Returns how many records of each kind were dropped or, of Olm sessions, left for decrypting alone; with `dry_run`
    they are counted only, also in READ mode. In bounded memory. After an error or a kill no client opens the account,
    and the same call does the rest; it may be repeated at any time. `advance` is called with the number of records of
    each batch. Raises what look-ups and `apply` raise.
    """
    done: Counter[str] = Counter()
    mark = RestoredAccount(datetime.now(UTC))
    if not dry_run:
        store.apply(Changes([mark]))
    for changes in _disarming(store):
        if not dry_run:
            store.apply(changes)
        for kind in changes.kinds():
            done[kind.kind_name] += len(changes.operations(kind))
        advance(len(changes))
    if not dry_run:
        store.apply(Changes([replace(mark, is_disarmed=True)]))
        store.reports.restored()
    return done


def _disarming(store: CryptoStore) -> Iterator[Changes]:
    for kind in _DROPPED:
        # By their keys: those that cannot be read go, too.
        yield from (Changes(deletes=[(kind, key) for key in keys]) for keys in _pieces(store.keys(kind)))
    armed = (session for session in store.scan(OlmSession) if not session.receive_only)
    yield from (Changes([replace(each, receive_only=True) for each in sessions]) for sessions in _pieces(armed))


def _pieces(found: Iterable[T]) -> Iterator[list[T]]:
    left = iter(found)
    while piece := list(islice(left, _BATCH)):
        yield piece
