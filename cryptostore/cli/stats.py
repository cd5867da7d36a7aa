"""`cryptostore stats`: what is stored, counted without opening any of it, and a picture of how it grew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from cryptostore.plugins.loading import shown_url
from cryptostore.records import Account
from cryptostore.store.backend import Backend
from cryptostore.store.ownership import Mode

from .databases import DatabaseUrl, DeviceId, UserId, accounts_to_show, is_one_unreadable, open_for
from .exits import ExitCode
from .output import AsJson, counting, print_json, print_table, say
from .pickle_keys import NO_OPTIONS, PickleKeyOptions, current_pickle_key, takes_pickle_keys
from .plots import check_plot_name, count_days, write_plot
from .rows import kind_of_row


@dataclass
class Stored:
    """The rows of an account, and their bytes of keys and values, by the name of their kind."""

    rows: Counter[str] = field(default_factory=Counter)
    size: Counter[str] = field(default_factory=Counter)


@takes_pickle_keys
def stats(
    url: DatabaseUrl,
    user_id: UserId = None,
    device_id: DeviceId = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Also draw sessions over time, by the day they came.")
    ] = None,
    pickle_key_options: PickleKeyOptions = NO_OPTIONS,
    as_json: AsJson = False,
) -> None:
    """Count what is stored of each account, by kind: rows, and bytes.

    Takes nothing over. Without --plot, it needs no pickle key and opens no record.

    --plot draws the kinds whose records say when they came, which are sealed: all accounts that are chosen must have
    the same pickle key. What was deleted is not in the picture, which is written in place of an older one.
    """
    if plot is not None:
        check_plot_name(plot)
    pickle_key = None if plot is None else current_pickle_key(pickle_key_options)
    with open_for("stats", url) as backend:
        is_one_left_out = is_one_unreadable(backend, user_id, device_id)
        wanted = accounts_to_show(backend, url, user_id, device_id)
        unreadable = 0 if pickle_key is None or plot is None else _draw(backend, wanted, pickle_key, plot)
        _report(url, {account: count(backend, account) for account in wanted}, as_json=as_json)
    if unreadable:
        say(f"{unreadable:,} records cannot be read, and are not in the plot; `cryptostore verify` lists them")
    if unreadable or is_one_left_out:
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _draw(backend: Backend, accounts: Iterable[Account], pickle_key: str, file: Path) -> int:
    days: dict[str, Counter[date]] = {}
    names, unreadable = [], 0
    with counting("reading") as advance:
        for account in accounts:
            names.append(str(account))
            with backend.open_store(account, Mode.READ, pickle_key=pickle_key) as store:
                unreadable += count_days(store, days, advance)
    write_plot(file, f"Records of {names[0] if len(names) == 1 else f'{len(names)} accounts'}", days)
    say(f"wrote the plot to {file}")
    return unreadable


def count(backend: Backend, account: Account) -> Stored:
    """Count an account's rows. Raises AccountNotFound, BackendUnavailable."""
    stored = Stored()
    with backend.open_store(account, Mode.READ) as store:
        for row in store.stored_rows():
            kind = kind_of_row(row.key)
            stored.rows[kind] += 1
            stored.size[kind] += len(row.key) + len(row.value)
    return stored


def _report(url: str, counted: Mapping[Account, Stored], *, as_json: bool) -> None:
    if as_json:
        print_json({"database": shown_url(url), "accounts": [_document(*each) for each in counted.items()]})
        return
    rows = [
        (str(account), kind, f"{stored.rows[kind]:,}", f"{stored.size[kind]:,}")
        for account, stored in counted.items()
        for kind in stored.rows or ["nothing"]
    ]
    print_table(f"Stored in {shown_url(url)}", ["account", "kind", "rows", "bytes"], rows)


def _document(account: Account, stored: Stored) -> dict[str, Any]:
    return {
        "user_id": account.user_id,
        "device_id": account.device_id,
        "kinds": {kind: {"rows": rows, "bytes": stored.size[kind]} for kind, rows in stored.rows.items()},
    }
