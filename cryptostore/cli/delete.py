"""`cryptostore delete`: one account leaves a database, with all that it has stored."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Final

import typer

from cryptostore.errors import ConfigurationError
from cryptostore.plugins.loading import shown_url
from cryptostore.records import Account
from cryptostore.shown import shown
from cryptostore.store.backend import Backend
from cryptostore.store.owners import is_gone
from cryptostore.store.ownership import Ownership

from .databases import DatabaseUrl, DeviceId, UserId, open_for, the_account
from .exits import ExitCode
from .output import print_json, print_line, say
from .stats import Stored, count

_POLL_SECONDS: Final = 0.2


def delete(
    url: DatabaseUrl,
    user_id: UserId = None,
    device_id: DeviceId = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    even_if_used: Annotated[bool, typer.Option("--even-if-used", help="Delete it although its owner writes.")] = False,
    watch: Annotated[float, typer.Option(metavar="SECONDS", help="How long to watch for a write of its owner.")] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON for programs.")] = False,
) -> None:
    """Delete one account with all that it has stored: messages that only its keys open cannot be read any more.

    Stop its client first. The account is watched, unless its owner has certainly ended, and is not deleted if somebody
    writes to it meanwhile. All of it is deleted in one transaction, and nothing else.
    """
    with open_for("delete", url) as backend:
        account = the_account(backend, url, user_id, device_id, "one account is deleted at a time")
        seen = backend.accounts().get(account)
        stored = count(backend, account)
        if not yes:
            _ask(url, account, stored)
        if not even_if_used:
            _refuse_used(backend, account, seen, watch)
        backend.delete_account(account)
    if as_json:
        document = {"user_id": account.user_id, "device_id": account.device_id, "deleted_rows": stored.rows.total()}
        print_json({"database": shown_url(url), **document})
        return
    print_line(f"deleted {account}, which had {stored.rows.total():,} records, from {shown_url(url)}")


def _refuse_used(backend: Backend, account: Account, seen: Ownership | None, seconds: float) -> None:
    """Raise ConfigurationError where somebody wrote to the account, or took it over, since it was seen."""
    ends = time.monotonic() + seconds
    while (now := backend.accounts().get(account)) == seen:
        if now is None or is_gone(now.owner) or time.monotonic() >= ends:
            return
        time.sleep(_POLL_SECONDS)
    raise ConfigurationError(
        f"{account} is in use: somebody wrote to it or took it over at this moment. Nothing was deleted: stop "
        "that program, or give --even-if-used"
    )


def _ask(url: str, account: Account, stored: Stored) -> None:
    if not sys.stdin.isatty():
        raise ConfigurationError("there is no terminal to ask on; give --yes to delete without being asked")
    question = (
        f"Delete {account} with its {stored.rows.total():,} records from {shown_url(url)}? It cannot be brought back"
    )
    if not typer.confirm(shown(question), err=True):
        say("nothing was deleted")
        raise typer.Exit(ExitCode.CHECK_FAILED)
