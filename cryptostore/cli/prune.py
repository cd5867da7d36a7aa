"""`cryptostore prune`: what an account keeps for old messages is deleted, as far as its owner says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from cryptostore.errors import ConfigurationError
from cryptostore.plugins.loading import shown_url
from cryptostore.records import Account
from cryptostore.store import pruning
from cryptostore.store.backend import Backend
from cryptostore.store.ownership import Mode
from cryptostore.store.pruning import Pruned, Rules

from .databases import DatabaseUrl, DeviceId, UserId, open_for, the_account
from .in_use import EvenIfUsed, Watch, owner_seen, refuse_used
from .output import AsJson, ask_before_deleting, counting, print_json, print_line
from .pickle_keys import NO_OPTIONS, PickleKeyOptions, current_pickle_key, takes_pickle_keys


@takes_pickle_keys
def prune(
    url: DatabaseUrl,
    user_id: UserId = None,
    device_id: DeviceId = None,
    older_than: Annotated[
        int | None, typer.Option(metavar="DAYS", min=0, help="Megolm sessions that came longer ago.")
    ] = None,
    room: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Megolm sessions of this room alone; may be repeated.")
    ] = None,
    olm_sessions: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Olm sessions with one device, beyond the N used last.")
    ] = None,
    answered_requests: Annotated[
        bool, typer.Option("--answered-requests", help="Key requests whose session has come.")
    ] = False,
    pickle_key_options: PickleKeyOptions = NO_OPTIONS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and delete nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    even_if_used: EvenIfUsed = False,
    watch: Watch = 5.0,
    as_json: AsJson = False,
) -> None:
    """Delete what one account keeps for old messages, as far as the options say; nothing is deleted without them.

    Messages that only deleted Megolm sessions open cannot be read any more, unless the key backup on the server has
    them: a session that is not there yet is kept where one is in use.

    Stop the account's client first: the account is taken over, and left alone if somebody writes to it. When this is
    interrupted, what was deleted is gone with all that belongs to it, and the rest is whole; run it again to go on.
    """
    rules = _rules(older_than, room or [], olm_sessions, answered_requests=answered_requests)
    pickle_key = current_pickle_key(pickle_key_options)
    with open_for("prune", url) as backend:
        account = the_account(backend, url, user_id, device_id, "one account is pruned at a time")
        seen = owner_seen(backend, account)
        pruned = _pruned(backend, account, pickle_key, rules, dry_run=True)
        if not dry_run and pruned.deleted:
            if not yes:
                _ask(url, account, pruned)
            if not even_if_used:
                refuse_used(backend, seen, watch, "Nothing was deleted: stop that program, or give --even-if-used")
            pruned = _pruned(backend, account, pickle_key, rules, dry_run=False)
    _report(url, account, pruned, dry_run=dry_run, as_json=as_json)


def _rules(older_than: int | None, rooms: list[str], olm_sessions: int | None, *, answered_requests: bool) -> Rules:
    rules = Rules(
        received_before=None if older_than is None else _days_ago(older_than),
        rooms=frozenset(rooms),
        olm_sessions=olm_sessions,
        answered_requests=answered_requests,
    )
    if rules == Rules():
        raise ConfigurationError("say what to delete: --older-than, --room, --olm-sessions or --answered-requests")
    return rules


def _days_ago(days: int) -> datetime:
    try:
        return datetime.now(UTC) - timedelta(days=days)
    except OverflowError:
        raise ConfigurationError(f"{days} days ago is before the calendar; give fewer") from None


def _pruned(backend: Backend, account: Account, pickle_key: str, rules: Rules, *, dry_run: bool) -> Pruned:
    mode, doing = (Mode.READ, "counting") if dry_run else (Mode.OWN, "deleting")
    with backend.open_store(account, mode, pickle_key=pickle_key) as store, counting(doing) as advance:
        return pruning.prune(store, rules, dry_run=dry_run, advance=advance)


def _ask(url: str, account: Account, pruned: Pruned) -> None:
    what = ", ".join(f"{number:,} {kind}" for kind, number in pruned.deleted.items())
    ask_before_deleting(f"Delete {what} of {account} from {shown_url(url)}? They cannot be brought back")


def _report(url: str, account: Account, pruned: Pruned, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        names = {"database": shown_url(url), "user_id": account.user_id, "device_id": account.device_id}
        counts = {"deleted": dict(pruned.deleted), "not_backed_up": pruned.not_backed_up}
        print_json({**names, "dry_run": dry_run, **counts})
        return
    print_line(f"{'would be deleted' if dry_run else 'deleted'} of {account} in {shown_url(url)}", style="bold")
    for kind, number in pruned.deleted.items():
        print_line(f"  {kind:<22} {number:,}")
    if not pruned.deleted:
        print_line("  nothing")
    if pruned.not_backed_up:
        print_line(f"  {pruned.not_backed_up:,} sessions are kept: they are not in the key backup yet")
