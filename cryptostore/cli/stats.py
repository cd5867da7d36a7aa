"""`cryptostore stats`: what is stored, counted without opening any of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptostore.plugins.loading import shown_url
from cryptostore.records import Account
from cryptostore.store.backend import Backend
from cryptostore.store.ownership import Mode

from .databases import DatabaseUrl, DeviceId, UserId, accounts_to_show, open_for
from .output import AsJson, print_json, print_table
from .rows import kind_of_row


@dataclass
class Stored:
    """The rows of an account, and their bytes of keys and values, by the name of their kind."""

    rows: Counter[str] = field(default_factory=Counter)
    size: Counter[str] = field(default_factory=Counter)


def stats(
    url: DatabaseUrl,
    user_id: UserId = None,
    device_id: DeviceId = None,
    as_json: AsJson = False,
) -> None:
    """Count what is stored of each account, by kind: rows, and bytes.

    Needs no pickle key, takes nothing over, and opens no record.
    """
    with open_for("stats", url) as backend:
        wanted = accounts_to_show(backend, url, user_id, device_id)
        _report(url, {account: count(backend, account) for account in wanted}, as_json=as_json)


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
