"""What the rules of pruning name, found page by page: nothing is held beyond the page that is looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from cryptostore.errors import ConfigurationError
from cryptostore.records.changes import RecordKey
from cryptostore.records.fields import DeviceTrust, day_of
from cryptostore.records.kinds import (
    USE_KEPT_TO,
    Device,
    InboundGroupSession,
    MissedEvents,
    OlmSession,
    OutboundGroupSession,
    OutgoingKeyRequest,
    ReplayPage,
    SharedPart,
)
from cryptostore.records.record import Key, Record
from cryptostore.records.trust_kinds import SessionToBackUp

from .answers import Selected
from .crypto_store import CryptoStore

R = TypeVar("R", bound=Record)
T = TypeVar("T")

#: Records that are looked at together.
_PAGE: Final = 500
#: Sessions whose replay pages are looked at together: each has any number.
_SESSIONS: Final = 100
#: Devices that are looked for among all others at once.
_DEVICES: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What to delete; nothing by default. Times are points in time.

    Megolm sessions that match all that is given of `received_before`, `unused_since` and `rooms`. A session is used
    when a message of it is read. With `rooms` their outbound sessions go, too.
    Replay pages alone, of those rooms if any are given, that were not used since `replay_before`.
    Of Olm sessions with one device, all but the `olm_sessions` that were used last.
    Devices that the homeserver does not list any more, about which nobody decided anything, and their Olm sessions,
    where none of these was used since `gone_before`.
    Key requests whose session came, and news of missed events from before `missed_before`.

    Raises ConfigurationError where replay pages would go before they can say when their sessions were used.
    """

    received_before: datetime | None = None
    unused_since: datetime | None = None
    rooms: frozenset[str] = frozenset()
    replay_before: datetime | None = None
    olm_sessions: int | None = None
    gone_before: datetime | None = None
    answered_requests: bool = False
    missed_before: datetime | None = None

    def __post_init__(self) -> None:
        if self.unused_since and self.replay_before and self.replay_before > self.unused_since:
            raise ConfigurationError(
                "replay pages say when a session was used: keep them for as long as sessions that are not used"
            )

    @property
    def has_sessions(self) -> bool:
        """Whether Megolm sessions are meant."""
        by_age = self.received_before is not None or self.unused_since is not None
        return by_age or (bool(self.rooms) and self.replay_before is None)

    @property
    def prefixes(self) -> list[Key]:
        """Where Megolm sessions are looked for."""
        return [(room,) for room in sorted(self.rooms)] or [()]

    def are_met_by(self, session: InboundGroupSession) -> bool:
        """Whether a session came so long ago as it must have for each rule."""
        times = (self.received_before, self.unused_since)
        return all(time is None or session.received_at < time for time in times)

    def is_used(self, pages: Iterable[ReplayPage]) -> bool:
        """Whether a session with these pages was used too lately, or may have been."""
        if self.unused_since is None:
            return False
        since = day_of(self.unused_since)
        return any(not page.used_on or page.used_on + USE_KEPT_TO > since for page in pages)

    def is_old(self, page: ReplayPage) -> bool:
        """Whether a replay page goes alone."""
        if self.replay_before is None or not page.used_on:
            return False
        return page.used_on + USE_KEPT_TO <= day_of(self.replay_before)


@dataclass
class Pruned:
    """How many records of each kind were deleted, and how many sessions were kept: they are in no backup yet.

    Of each kind, `unreadable` records were kept, too: what they are cannot be said.
    """

    deleted: Counter[str] = field(default_factory=Counter)
    not_backed_up: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)


class Doomed(NamedTuple):
    """A record to delete, and what goes with it in the same batch."""

    record: RecordKey
    with_it: tuple[RecordKey, ...] = ()

    @property
    def keys(self) -> tuple[RecordKey, ...]:
        """All of it."""
        return (self.record, *self.with_it)


def in_batches(doomed: Iterable[Doomed], most: int) -> Iterator[list[Doomed]]:
    """As many together as have `most` records; one that has more stands alone."""
    batch: list[Doomed] = []
    size = 0
    for each in doomed:
        if batch and size + len(each.keys) > most:
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += len(each.keys)
    if batch:
        yield batch


def doomed_by(rules: Rules, store: CryptoStore, pruned: Pruned) -> Iterator[list[Doomed]]:
    """What the rules name: a list for each page that was looked at, often an empty one. What is kept is counted.

    Each step reads anew, so steps may be made in different threads, and what earlier ones named may be gone. What no
    step deletes is named once: a rule leaves out what one before it names.
    """
    if rules.answered_requests:
        yield from _answered_requests(store, pruned)
    if rules.replay_before is not None:
        yield from _old_pages(rules, store, pruned)
    if rules.has_sessions:
        yield from _sessions(rules, store, pruned)
        yield from _outbound_sessions(rules, store, pruned)
    if rules.olm_sessions is not None:
        yield from _surplus_olm_sessions(rules.olm_sessions, store, pruned)
    if rules.gone_before is not None:
        yield from _gone_devices(rules, store, pruned)
    if rules.missed_before is not None:
        yield from _missed_events(rules.missed_before, store, pruned)


def _pages(store: CryptoStore, kind: type[R], pruned: Pruned, prefix: Key = ()) -> Iterator[list[R]]:
    after: Key | None = None
    while True:
        unreadable: dict[Key | None, str] = {}
        page = list(islice(store.scan(kind, prefix, after, unreadable), _PAGE))
        pruned.unreadable += Counter({kind.kind_name: len(unreadable)})
        yield page
        if len(page) < _PAGE:
            return
        after = page[-1].key


def _sessions(rules: Rules, store: CryptoStore, pruned: Pruned) -> Iterator[list[Doomed]]:
    for prefix in rules.prefixes:
        for page in _pages(store, InboundGroupSession, pruned, prefix):
            old = [session for session in page if rules.are_met_by(session)]
            yield from (_with_pages(rules, store, piece, pruned) for piece in _in_pieces(old, _SESSIONS))


def _with_pages(
    rules: Rules, store: CryptoStore, sessions: Sequence[InboundGroupSession], pruned: Pruned
) -> list[Doomed]:
    found = store.select(ReplayPage, [(each.session_id, each.sender_key) for each in sessions])
    unreadable = _by_prefix(found, 2)
    # A page whose key cannot be read may be of any of them.
    is_one_unknown = None in found.unreadable
    unused = []
    for session in sessions:
        pages = found[session.session_id, session.sender_key]
        damaged = unreadable.get((session.session_id, session.sender_key), ())
        may_be_used = rules.unused_since is not None and (damaged or is_one_unknown)
        if not rules.is_used(pages) and not may_be_used:
            going = [RecordKey(ReplayPage, page.key) for page in pages if not rules.is_old(page)]
            going += [RecordKey(ReplayPage, key) for key in damaged]
            unused.append(Doomed(RecordKey(InboundGroupSession, session.key), tuple(going)))
    waiting = store.get(SessionToBackUp, [each.record.key for each in unused])
    kept = waiting.keys() | waiting.unreadable.keys()
    pruned.not_backed_up += len(kept)
    return [each for each in unused if each.record.key not in kept]


def _old_pages(rules: Rules, store: CryptoStore, pruned: Pruned) -> Iterator[list[Doomed]]:
    for pages in _pages_of_rooms(rules, store) if rules.rooms else _pages(store, ReplayPage, pruned):
        yield [Doomed(RecordKey(ReplayPage, page.key)) for page in pages if rules.is_old(page)]


def _pages_of_rooms(rules: Rules, store: CryptoStore) -> Iterator[list[ReplayPage]]:
    for prefix in rules.prefixes:
        for page in _pages(store, InboundGroupSession, Pruned(), prefix):
            for piece in _in_pieces(page, _SESSIONS):
                found = store.select(ReplayPage, [(each.session_id, each.sender_key) for each in piece])
                yield [each for pages in found.values() for each in pages]


def _outbound_sessions(rules: Rules, store: CryptoStore, pruned: Pruned) -> Iterator[list[Doomed]]:
    times = [time for time in (rules.received_before, rules.unused_since) if time is not None]
    for rooms in _in_pieces(sorted(rules.rooms), _SESSIONS):
        found = store.get(OutboundGroupSession, [(room,) for room in rooms])
        pruned.unreadable += Counter({OutboundGroupSession.kind_name: len(found.unreadable)})
        old = [session for session in found.values() if all(session.created_at < time for time in times)]
        parts = store.select(SharedPart, [session.key for session in old])
        unreadable = _by_prefix(parts, 1)
        yield [
            Doomed(
                RecordKey(OutboundGroupSession, session.key),
                tuple(
                    RecordKey(SharedPart, key)
                    for key in [*(part.key for part in parts[session.key]), *unreadable.get(session.key, ())]
                ),
            )
            for session in old
        ]


def _surplus_olm_sessions(kept: int, store: CryptoStore, pruned: Pruned) -> Iterator[list[Doomed]]:
    last = ""
    for page in _pages(store, OlmSession, pruned):
        # Those with one device come together, and are looked at together, also where they go beyond the page.
        senders = dict.fromkeys((session.sender_key,) for session in page if session.sender_key != last)
        last = page[-1].sender_key if page else last
        whole = store.select(OlmSession, senders)
        yield [Doomed(RecordKey(OlmSession, each.key)) for found in whole.values() for each in _by_use(found)[kept:]]


def _by_use(sessions: Iterable[OlmSession]) -> list[OlmSession]:
    return sorted(sessions, key=lambda session: session.last_used_at, reverse=True)


def _gone_devices(rules: Rules, store: CryptoStore, pruned: Pruned) -> Iterator[list[Doomed]]:
    window: list[Device] = []
    for page in _pages(store, Device, pruned):
        window += filter(_is_gone, page)
        if len(window) < _DEVICES:
            yield []
            continue
        yield from _with_olm_sessions(rules, store, window)
        window = []
    yield from _with_olm_sessions(rules, store, window)


def _with_olm_sessions(rules: Rules, store: CryptoStore, devices: Sequence[Device]) -> Iterator[list[Doomed]]:
    """The devices with their Olm sessions, but not with those of a device that says that it has the same key."""
    keys = {_curve_key(device) for device in devices}
    shared: set[str] = set()
    for page in _pages(store, Device, Pruned()) if devices else ():
        shared |= {_curve_key(device) for device in page if not _is_gone(device)} & keys
        yield []
    for piece in _in_pieces(devices, _SESSIONS):
        yield _unused_devices(rules, store, piece, shared)


def _unused_devices(rules: Rules, store: CryptoStore, devices: Sequence[Device], shared: set[str]) -> list[Doomed]:
    found = store.select(OlmSession, {(key,) for device in devices if (key := _curve_key(device))})
    unreadable = _by_prefix(found, 1)
    doomed = []
    for device in devices:
        prefix = (_curve_key(device),)
        sessions = _by_use(found.get(prefix, ()))
        is_used = any(rules.gone_before is None or each.last_used_at >= rules.gone_before for each in sessions)
        if is_used or prefix in unreadable:
            continue
        own = [] if prefix[0] in shared else sessions[: rules.olm_sessions]
        # Of two devices with one key the first takes the sessions along.
        shared.add(prefix[0])
        doomed.append(Doomed(RecordKey(Device, device.key), tuple(RecordKey(OlmSession, each.key) for each in own)))
    return doomed


def _is_gone(device: Device) -> bool:
    return device.deleted and device.trust is DeviceTrust.UNSET


def _curve_key(device: Device) -> str:
    return str(device.keys.get("curve25519") or "")


def _answered_requests(store: CryptoStore, pruned: Pruned) -> Iterator[list[Doomed]]:
    for page in _pages(store, OutgoingKeyRequest, pruned):
        found = store.select(InboundGroupSession, {(each.room_id, each.session_id) for each in page})
        answered = [each for each in page if found[each.room_id, each.session_id]]
        yield [Doomed(RecordKey(OutgoingKeyRequest, each.key)) for each in answered]


def _missed_events(before: datetime, store: CryptoStore, pruned: Pruned) -> Iterator[list[Doomed]]:
    for page in _pages(store, MissedEvents, pruned):
        yield [Doomed(RecordKey(MissedEvents, each.key)) for each in page if each.noticed_at < before]


def _by_prefix(found: Selected[R], length: int) -> dict[Key, list[Key]]:
    """The keys of unreadable records, by their beginnings."""
    by_prefix: dict[Key, list[Key]] = {}
    for key in filter(None, found.unreadable):
        by_prefix.setdefault(key[:length], []).append(key)
    return by_prefix


def _in_pieces(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
