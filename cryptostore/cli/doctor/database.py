"""What there is to say of a database: by its backend, by opening it, and account for account."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from cryptostore.cli.databases import chosen, open_for
from cryptostore.cli.output import say
from cryptostore.errors import CryptoStoreError
from cryptostore.plugins import load_backend
from cryptostore.plugins.findings import Finding, Level
from cryptostore.plugins.loading import shown_url
from cryptostore.plugins.urls import CommonOptions, options_of, scheme_of
from cryptostore.records import Account
from cryptostore.store.backend import Backend, Listing
from cryptostore.store.ownership import Ownership

from .account import look_again, look_at_account
from .checks import Group

#: Of more accounts, what is as it should be is left out.
_MOST_IN_FULL: Final = 3
_NOT_LOOKED_AT: Final = Finding(
    "accounts", Level.NOTE, "not looked at: the database cannot be opened as it is", "mend that, and look again"
)


class Wanted(NamedTuple):
    """What the user wants to be looked at."""

    url: str
    user_id: str | None
    device_id: str | None
    all_rows: bool
    watch: float


def not_looked_at(url: str) -> Group:
    """Of a database that nothing can open: the findings say why."""
    return Group(f"Database {shown_url(url)}", [_NOT_LOOKED_AT])


def look_at_database(wanted: Wanted, pickle_key: str | None) -> Iterator[Group]:
    """The findings of the database, and then those of each account in it."""
    found = Group(f"Database {shown_url(wanted.url)}", list(_told_by_backend(wanted.url)))
    if any(each.prevents_opening for each in found.findings):
        found.findings.append(_NOT_LOOKED_AT)
        yield found
        return
    try:
        backend = open_for("doctor", wanted.url)
    except CryptoStoreError as error:
        found.findings.extend([Finding.of_error("opening", error), _NOT_LOOKED_AT])
        yield found
        return
    with backend:
        yield from _with_accounts(backend, wanted, found, pickle_key)


def _told_by_backend(url: str) -> Iterator[Finding]:
    """What the backend says of itself. What it raises is what keeps the database from being opened."""
    plugin = load_backend(scheme_of(url))
    if plugin.diagnose is None:
        return
    try:
        options = options_of(url, {})
        common = CommonOptions.take_from(options)
        yield from plugin.diagnose(url, options, common.deadline)
    except CryptoStoreError as error:
        yield Finding.of_error("opening", error, prevents_opening=True)
    except Exception as error:  # noqa: BLE001  # a stranger's backend may raise anything
        seen = f"the backend {plugin.name!r} could not say what is wrong ({type(error).__name__})"
        yield Finding("opening", Level.WARNING, seen, "tell its author")


def _with_accounts(backend: Backend, wanted: Wanted, found: Group, pickle_key: str | None) -> Iterator[Group]:
    found.findings.append(Finding("opening", Level.OK, "it can be opened"))
    try:
        listing = backend.listing()
    except CryptoStoreError as error:
        found.findings.append(Finding.of_error("accounts", error))
        yield found
        return
    found.findings.append(_number(listing))
    yield found
    owners = listing.accounts
    accounts = chosen(owners, *wanted[:3])
    groups = {account: Group(f"Account {account}", [], len(accounts) > _MOST_IN_FULL) for account in accounts}
    for account, group in groups.items():
        owner = owners[account]
        group.findings.extend(look_at_account(backend, account, owner, pickle_key, all_rows=wanted.all_rows))
    _look_again(backend, owners, groups, wanted.watch)
    yield from groups.values()


def _number(listing: Listing) -> Finding:
    if listing.left_out:
        have = "account has" if listing.left_out == 1 else "accounts have"
        seen = f"left out: {listing.left_out:,} {have} a row that cannot be read"
        return Finding("accounts", Level.WARNING, seen, "restore a backup of the database")
    if not listing.accounts:
        remedy = "is it the right database? The first client that logs in makes its account"
        return Finding("accounts", Level.NOTE, "there is no account", remedy)
    return Finding("accounts", Level.OK, f"{len(listing.accounts):,}")


def _look_again(
    backend: Backend, owners: Mapping[Account, Ownership], groups: Mapping[Account, Group], seconds: float
) -> None:
    """Add what has become of the accounts meanwhile."""
    if not groups:
        return
    if seconds:
        say(f"watching the owners for {seconds:g} s")
        time.sleep(seconds)
    try:
        now = backend.accounts()
    except CryptoStoreError as error:
        for group in groups.values():
            group.findings.append(Finding.of_error("owner", error))
        return
    for account, group in groups.items():
        changed = look_again(owners[account], now.get(account))
        group.findings.extend([] if changed is None else [changed])
