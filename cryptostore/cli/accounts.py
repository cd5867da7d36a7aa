"""`cryptostore accounts`: which accounts a database has, who owns them, and how much each holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import typer

from cryptostore.plugins.loading import shown_url
from cryptostore.records import Account
from cryptostore.store.marks import Mark, Whereabouts
from cryptostore.store.ownership import Ownership

from .databases import DatabaseUrl, DeviceId, UserId, accounts_to_show, is_one_unreadable, mark_of, names_of, open_for
from .exits import ExitCode
from .output import AsJson, print_json, print_line, shown_time
from .stats import Stored, count


class Listed(NamedTuple):
    """One account, its owner, what says that it is not at home here, and what it holds."""

    account: Account
    owner: Ownership
    mark: Mark | None
    stored: Stored | None


def accounts(
    url: DatabaseUrl,
    user_id: UserId = None,
    device_id: DeviceId = None,
    quick: Annotated[bool, typer.Option("--quick", help="Do not count records, which takes reading them all.")] = False,
    as_json: AsJson = False,
) -> None:
    """List accounts: user, device, owner, since when, last write, batches, records and bytes, and where it was moved.

    Needs no pickle key, takes nothing over, and opens no record. Counts by kind are in --json, and in `cryptostore
    stats`.
    """
    with open_for("accounts", url) as backend:
        is_one_left_out = is_one_unreadable(backend, user_id, device_id)
        owners = backend.accounts()
        wanted = accounts_to_show(backend, url, user_id, device_id)
        listed = [
            Listed(account, owners[account], mark_of(backend, account), None if quick else count(backend, account))
            for account in wanted
            if account in owners
        ]
    _report(url, listed, as_json=as_json)
    if is_one_left_out:
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _report(url: str, listed: Sequence[Listed], *, as_json: bool) -> None:
    if as_json:
        print_json({"database": shown_url(url), "accounts": [_document(*each) for each in listed]})
        return
    print_line(f"Accounts in {shown_url(url)}", style="bold")
    for account, owner, mark, stored in listed:
        # Lines, not columns: an id and an owner's name leave no room beside each other on a terminal.
        print_line(str(account))
        for name, text in owner_lines(owner):
            print_line(f"  {name:<7}  {text}")
        if stored is not None:
            print_line(f"  holds    {stored.rows.total():,} records, {stored.size.total():,} bytes")
        if mark is not None:
            print_line(f"  {_shown_mark(mark)}")


def owner_lines(owner: Ownership) -> Iterator[tuple[str, str]]:
    """For people: what each line is about, and what it says."""
    yield "owner", owner.owner
    yield "since", shown_time(owner.since)
    yield "written", _written(owner)


def _written(owner: Ownership) -> str:
    if owner.written_at is None:
        return "never"
    return f"{shown_time(owner.written_at)}, in {owner.sequence:,} batch{'es' * (owner.sequence != 1)}"


def _shown_mark(mark: Mark) -> str:
    if mark.whereabouts is Whereabouts.MOVED:
        return f"moved    to {mark.place} on {shown_time(mark.at)}"
    if mark.whereabouts is Whereabouts.RESTORING:
        return f"restored from {mark.place}, and not complete"
    return f"copied   from {mark.place}, and not complete"


def owner_document(owner: Ownership) -> dict[str, Any]:
    """For JSON."""
    return {
        "owner": owner.owner,
        "since": owner.since.isoformat(),
        "epoch": owner.epoch,
        "batches": owner.sequence,
        "written_at": owner.written_at and owner.written_at.isoformat(),
    }


def _document(account: Account, owner: Ownership, mark: Mark | None, stored: Stored | None) -> dict[str, Any]:
    document = {**names_of(account), **owner_document(owner)}
    if mark is not None:
        document["mark"] = {"whereabouts": mark.whereabouts, "place": mark.place, "at": mark.at.isoformat()}
    if stored is not None:
        document["kinds"] = {kind: {"rows": rows, "bytes": stored.size[kind]} for kind, rows in stored.rows.items()}
    return document
