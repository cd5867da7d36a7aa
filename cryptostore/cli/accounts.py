"""`cryptostore accounts`: which accounts a database has, who owns them, and how much each holds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import typer

from cryptostore.plugins.loading import shown_url
from cryptostore.records import Account
from cryptostore.store.ownership import Ownership

from .databases import DatabaseUrl, DeviceId, UserId, open_for, wanted_accounts
from .output import print_json, print_line, say
from .stats import Stored, count


def accounts(
    url: DatabaseUrl,
    user_id: UserId = None,
    device_id: DeviceId = None,
    quick: Annotated[bool, typer.Option("--quick", help="Do not count records, which takes reading them all.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON for programs.")] = False,
) -> None:
    """List accounts: user, device, owner, since when, batches, records and bytes.

    Needs no pickle key, takes nothing over, and opens no record. Counts by kind are in --json, and in `cryptostore
    stats`. When an account was last written is not kept; its number of batches grows with each write.
    """
    with open_for("accounts", url) as backend:
        owners = backend.accounts()
        wanted = wanted_accounts(backend, url, user_id, device_id)
        if not wanted:
            say(f"the database {shown_url(url)} holds no account; is it the right one?")
        counted = {} if quick else {account: count(backend, account) for account in wanted}
    _report(url, {account: owners[account] for account in wanted if account in owners}, counted, as_json=as_json)


def _report(url: str, owned: Mapping[Account, Ownership], counted: Mapping[Account, Stored], *, as_json: bool) -> None:
    if as_json:
        documents = [_document(account, owner, counted.get(account)) for account, owner in owned.items()]
        print_json({"database": shown_url(url), "accounts": documents})
        return
    print_line(f"Accounts in {shown_url(url)}", style="bold")
    for account, owner in owned.items():
        # Lines, not columns: an id and an owner's name leave no room beside each other on a terminal.
        print_line(str(account))
        print_line(f"  owner    {owner.owner}")
        print_line(f"  since    {_shown_time(owner.since)}")
        print_line(f"  written  {owner.sequence:,} batch{'es' * (owner.sequence != 1)}{_held(counted.get(account))}")


def _held(stored: Stored | None) -> str:
    if stored is None:
        return ""
    return f"; holds {stored.rows.total():,} records, {stored.size.total():,} bytes"


def _shown_time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def _document(account: Account, owner: Ownership, stored: Stored | None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "user_id": account.user_id,
        "device_id": account.device_id,
        "owner": owner.owner,
        "since": owner.since.isoformat(),
        "epoch": owner.epoch,
        "batches": owner.sequence,
    }
    if stored is not None:
        document["kinds"] = {kind: {"rows": rows, "bytes": stored.size[kind]} for kind, rows in stored.rows.items()}
    return document
