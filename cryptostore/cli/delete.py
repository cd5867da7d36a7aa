"""`cryptostore delete`: one account leaves a database, with all that it has stored."""

from __future__ import annotations

from typing import Annotated

import typer

from cryptostore.plugins.loading import shown_url

from .databases import DatabaseUrl, DeviceId, UserId, open_for, the_account
from .in_use import Watch, owner_seen, refuse_used
from .output import AsJson, ask_before_deleting, print_json, print_line
from .stats import count


def delete(
    url: DatabaseUrl,
    user_id: UserId = None,
    device_id: DeviceId = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    even_if_used: Annotated[bool, typer.Option("--even-if-used", help="Delete it although its owner writes.")] = False,
    watch: Watch = 5.0,
    as_json: AsJson = False,
) -> None:
    """Delete one account with all that it has stored: messages that only its keys open cannot be read any more.

    Stop its client first. The account is watched, unless its owner has certainly ended, and is not deleted if somebody
    writes to it meanwhile. All of it is deleted in one transaction, and nothing else.
    """
    with open_for("delete", url) as backend:
        account = the_account(backend, url, user_id, device_id, "one account is deleted at a time")
        seen = owner_seen(backend, account)
        stored = count(backend, account)
        if not yes:
            held = f"{account} with its {stored.rows.total():,} records"
            ask_before_deleting(f"Delete {held} from {shown_url(url)}? It cannot be brought back")
        if not even_if_used:
            refuse_used(backend, seen, watch, "Nothing was deleted: stop that program, or give --even-if-used")
        backend.delete_account(account)
    if as_json:
        document = {"user_id": account.user_id, "device_id": account.device_id, "deleted_rows": stored.rows.total()}
        print_json({"database": shown_url(url), **document})
        return
    print_line(f"deleted {account}, which had {stored.rows.total():,} records, from {shown_url(url)}")
