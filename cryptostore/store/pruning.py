"""Deleting what an account keeps for old messages, where its owner decides that they need not be read again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Final

from cryptostore.errors import ConfigurationError
from cryptostore.records.changes import Changes
from cryptostore.records.kinds import InboundGroupSession, OlmSession, OutgoingKeyRequest, ReplayPage
from cryptostore.records.record import Key, Record
from cryptostore.records.trust_kinds import KeyBackup, SessionToBackUp

from .crypto_store import CryptoStore

#: Sessions that are deleted at once, with their replay pages.
_BATCH: Final = 500

#: A record to delete.
Doomed = tuple[type[Record], Key]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What to delete. Megolm sessions that match both: received before that time, and of one of the rooms, if given.

    Of Olm sessions with one device, all but the `olm_sessions` that were used last. Key requests whose session came.
    """

    received_before: datetime | None = None
    rooms: frozenset[str] = frozenset()
    olm_sessions: int | None = None
    answered_requests: bool = False

    @property
    def has_sessions(self) -> bool:
        """Whether Megolm sessions are meant."""
        return self.received_before is not None or bool(self.rooms)


@dataclass
class Pruned:
    """How many records of each kind were deleted, and how many sessions were kept: they are in no backup yet."""

    deleted: Counter[str] = field(default_factory=Counter)
    not_backed_up: int = 0


def prune(
    store: CryptoStore, rules: Rules, *, dry_run: bool = False, advance: Callable[[int], None] = lambda _number: None
) -> Pruned:
    """Delete what the rules say, for the owner; with `dry_run` count it alone, also in READ mode.

    A Megolm session goes with its replay pages in one batch; where a backup on the server is in use, one that is not
    there yet is kept. Records that cannot be read are kept. In bounded memory; after an error or a kill, the same call
    does the rest. `advance` is called with the number of records of each batch.
    Raises ConfigurationError where the backup has not seen all sessions; what look-ups and `apply` raise.
    """
    pruned = Pruned()
    for batch in _batches(store, rules, pruned):
        if not dry_run:
            store.apply(Changes(deletes=batch))
        pruned.deleted.update(kind.kind_name for kind, _ in batch)
        advance(len(batch))
    if pruned.deleted and not dry_run:
        store.reports.pruned(pruned.deleted)
    return pruned


def _batches(store: CryptoStore, rules: Rules, pruned: Pruned) -> Iterator[list[Doomed]]:
    if rules.has_sessions:
        _check_backup(store)
        yield from _sessions(store, rules, pruned)
    if rules.olm_sessions is not None:
        yield from _pieces((OlmSession, key) for key in _old_olm_sessions(store, rules.olm_sessions))
    if rules.answered_requests:
        yield from _pieces((OutgoingKeyRequest, key) for key in _answered(store))


def _check_backup(store: CryptoStore) -> None:
    found = store.get(KeyBackup, [()])
    backup = found.get(())
    if found.unreadable or (backup is not None and not backup.is_walked):
        raise ConfigurationError(
            f"the key backup of {store.account} has not seen all of its sessions yet; let its client run until it has "
            "(`cryptostore identity` shows it), and delete old ones then"
        )


def _sessions(store: CryptoStore, rules: Rules, pruned: Pruned) -> Iterator[list[Doomed]]:
    prefixes: list[Key] = [(room,) for room in sorted(rules.rooms)] or [()]
    matching = (
        session.key
        for prefix in prefixes
        for session in store.scan(InboundGroupSession, prefix)
        if rules.received_before is None or session.received_at < rules.received_before
    )
    while keys := list(islice(matching, _BATCH)):
        waiting = store.get(SessionToBackUp, keys)
        kept = waiting.keys() | waiting.unreadable.keys()
        pruned.not_backed_up += len(kept)
        doomed = [key for key in keys if key not in kept]
        pages = store.select(ReplayPage, {(session_id, sender_key) for _, session_id, sender_key in doomed})
        page_keys = [page.key for found in pages.values() for page in found]
        page_keys += [key for key in pages.unreadable if key is not None]
        if doomed:
            yield [*((InboundGroupSession, key) for key in doomed), *((ReplayPage, key) for key in page_keys)]


def _old_olm_sessions(store: CryptoStore, kept: int) -> Iterator[Key]:
    of_device: list[OlmSession] = []
    # In key order, so that those with one device come together.
    for session in store.scan(OlmSession):
        if of_device and of_device[0].sender_key != session.sender_key:
            yield from _beyond(of_device, kept)
            of_device = []
        of_device.append(session)
    yield from _beyond(of_device, kept)


def _beyond(sessions: list[OlmSession], kept: int) -> list[Key]:
    by_use = sorted(sessions, key=lambda session: session.last_used_at, reverse=True)
    return [session.key for session in by_use[kept:]]


def _answered(store: CryptoStore) -> Iterator[Key]:
    for request in store.scan(OutgoingKeyRequest):
        if next(store.keys(InboundGroupSession, (request.room_id, request.session_id)), None) is not None:
            yield request.key


def _pieces(doomed: Iterable[Doomed]) -> Iterator[list[Doomed]]:
    left = iter(doomed)
    while piece := list(islice(left, _BATCH)):
        yield piece
