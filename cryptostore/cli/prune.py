"""`cryptostore prune`: what an account keeps for old messages is deleted, as far as its owner says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Final, NamedTuple

import typer

from cryptostore.errors import ConfigurationError
from cryptostore.plugins.loading import shown_url
from cryptostore.records import Account, InboundGroupSession, OutboundGroupSession
from cryptostore.store import pruning
from cryptostore.store.backend import Backend
from cryptostore.store.ownership import Mode
from cryptostore.store.prunable import Pruned, Rules

from .databases import DatabaseUrl, DeviceId, UserId, open_for, the_account
from .in_use import EvenIfUsed, Watch, owner_seen, refuse_used
from .output import AsJson, ask_before_deleting, counting, if_interrupted, print_json, print_line, say
from .pickle_keys import NO_OPTIONS, PickleKeyOptions, current_pickle_key, takes_pickle_keys

OlderThan = Annotated[int | None, typer.Option(metavar="DAYS", min=0, help="Megolm sessions that came longer ago.")]
UnusedFor = Annotated[
    int | None, typer.Option(metavar="DAYS", min=0, help="Megolm sessions that read no message for so long.")
]
Room = Annotated[
    list[str] | None, typer.Option(metavar="ID", help="Megolm sessions of this room alone; may be repeated.")
]
ReplayPages = Annotated[
    int | None, typer.Option(metavar="DAYS", min=0, help="Replay pages alone, where unused for so long.")
]
OlmSessions = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Olm sessions with one device, beyond the N used last.")
]
GoneDevices = Annotated[
    int | None, typer.Option(metavar="DAYS", min=0, help="Devices that are gone, if unused for so long.")
]
AnsweredRequests = Annotated[bool, typer.Option("--answered-requests", help="Key requests whose session has come.")]
MissedEvents = Annotated[int | None, typer.Option(metavar="DAYS", min=0, help="News of missed events from longer ago.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count, and delete nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]

_NO_RULE: Final = (
    "say what to delete: --older-than, --unused-for, --room, --replay-pages, --olm-sessions, --gone-devices, "
    "--answered-requests or --missed-events"
)


@takes_pickle_keys
def prune(
    url: DatabaseUrl,
    user_id: UserId = None,
    device_id: DeviceId = None,
    older_than: OlderThan = None,
    unused_for: UnusedFor = None,
    room: Room = None,
    replay_pages: ReplayPages = None,
    olm_sessions: OlmSessions = None,
    gone_devices: GoneDevices = None,
    answered_requests: AnsweredRequests = False,
    missed_events: MissedEvents = None,
    pickle_key_options: PickleKeyOptions = NO_OPTIONS,
    dry_run: DryRun = False,
    yes: Yes = False,
    even_if_used: EvenIfUsed = False,
    watch: Watch = 5.0,
    as_json: AsJson = False,
) -> None:
    """Delete what one account keeps for old messages, as far as the options say; nothing is deleted without them.

    Messages that only deleted Megolm sessions open cannot be read any more, unless the key backup on the server has
    them: a session that is not there yet is kept where one is in use. Without its replay page, an old message that is
    sent again is taken for a new one.

    Stop the account's client first: the account is taken over, and left alone if somebody writes to it. When this is
    interrupted, what was deleted is gone with all that belongs to it, and the rest is whole; run it again to go on.
    """
    before = partial(_days_before, datetime.now(UTC))
    rules = Rules(
        received_before=before(older_than),
        unused_since=before(unused_for),
        rooms=frozenset(room or ()),
        replay_before=before(replay_pages),
        olm_sessions=olm_sessions,
        gone_before=before(gone_devices),
        answered_requests=answered_requests,
        missed_before=before(missed_events),
    )
    if rules == Rules():
        raise ConfigurationError(_NO_RULE)
    pickle_key = current_pickle_key(pickle_key_options)
    with open_for("prune", url) as backend:
        account = the_account(backend, url, user_id, device_id, "one account is pruned at a time")
        work = _Work(backend, url, account, pickle_key, rules)
        unknown_rooms = work.unknown_rooms()
        pruned = work.counted() if dry_run else work.done(None if even_if_used else watch, ask=not yes)
    _report(work, pruned, unknown_rooms, dry_run=dry_run, as_json=as_json)


def _days_before(now: datetime, days: int | None) -> datetime | None:
    try:
        return None if days is None else now - timedelta(days=days)
    except OverflowError:
        raise ConfigurationError(f"{days} days ago is before the calendar; give fewer") from None


class _Work(NamedTuple):
    """What is deleted, and where."""

    backend: Backend
    url: str
    account: Account
    pickle_key: str
    rules: Rules

    def unknown_rooms(self) -> list[str]:
        """The rooms of which there is no session. They are told."""
        with self.backend.open_store(self.account, Mode.READ, pickle_key=self.pickle_key) as store:
            kinds = (InboundGroupSession, OutboundGroupSession)
            rooms = sorted(self.rules.rooms)
            unknown = [room for room in rooms if not any(any(store.keys(kind, (room,))) for kind in kinds)]
        for room in unknown:
            say(f"{self.account} has no session of the room {room}; is it the right one?")
        return unknown

    def counted(self) -> Pruned:
        """What would be deleted."""
        with (
            self.backend.open_store(self.account, Mode.READ, pickle_key=self.pickle_key) as store,
            counting("counting") as advance,
        ):
            return pruning.prune(store, self.rules, dry_run=True, advance=advance)

    def done(self, watch: float | None, *, ask: bool) -> Pruned:
        """Count, ask, and delete, unless somebody uses the account. With no `watch` it is taken whoever does."""
        seen = owner_seen(self.backend, self.account)
        counted = self.counted()
        if not counted.deleted:
            return counted
        if ask:
            what = ", ".join(f"{number:,} {kind}" for kind, number in counted.deleted.items())
            question = f"Delete {what} of {self.account} from {shown_url(self.url)}? They cannot be brought back"
            ask_before_deleting(question)
        if watch is not None:
            refuse_used(self.backend, seen, watch, "Nothing was deleted: stop that program, or give --even-if-used")
        with (
            if_interrupted("interrupted: some of it may be deleted, and the rest is whole; run this again to go on"),
            self.backend.open_store(self.account, pickle_key=self.pickle_key) as store,
            counting("deleting") as advance,
        ):
            return pruning.prune(store, self.rules, advance=advance)


def _report(work: _Work, pruned: Pruned, unknown_rooms: list[str], *, dry_run: bool, as_json: bool) -> None:
    account, place = work.account, shown_url(work.url)
    if as_json:
        names = {"database": place, "user_id": account.user_id, "device_id": account.device_id}
        kept = {"not_backed_up": pruned.not_backed_up, "unreadable": dict(pruned.unreadable)}
        counts = {"deleted": dict(pruned.deleted), **kept, "unknown_rooms": unknown_rooms}
        print_json({**names, "dry_run": dry_run, **counts})
        return
    print_line(f"{'would be deleted' if dry_run else 'deleted'} of {account} in {place}", style="bold")
    for kind, number in pruned.deleted.items():
        print_line(f"  {kind:<22} {number:,}")
    if not pruned.deleted:
        print_line("  nothing")
    if pruned.not_backed_up:
        print_line(f"  {pruned.not_backed_up:,} sessions are kept: they are not in the key backup yet")
    if pruned.unreadable:
        print_line(
            f"  {pruned.unreadable.total():,} records are kept that cannot be read; `cryptostore verify` lists them"
        )
