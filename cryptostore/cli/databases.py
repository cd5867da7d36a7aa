"""What the commands ask of a database before they use it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Annotated, NamedTuple
from urllib.parse import quote, unquote

import typer

from cryptostore.errors import ConfigurationError, UnreadableRecord
from cryptostore.plugins import load_backend, open_existing
from cryptostore.plugins.capabilities import Capability, Support
from cryptostore.plugins.environment import ENV_FILE, database_url, variables
from cryptostore.plugins.loading import shown_url
from cryptostore.plugins.urls import scheme_of
from cryptostore.records import Account, OlmAccount
from cryptostore.store.backend import Backend
from cryptostore.store.crypto_store import CryptoStore
from cryptostore.store.marks import Mark, Whereabouts, elsewhere
from cryptostore.store.owners import default_owner

from .output import say


def url_from_settings() -> str:
    """The database that the environment or `.env` names. Raises ConfigurationError if neither does."""
    url = database_url(variables())
    if url is None:
        raise ConfigurationError(
            "no database is named: give its URL, or set CRYPTOSTORE_URL, or USE_POSTGRES_STORE=true and POSTGRES_*, in "
            f"the environment or in {ENV_FILE}"
        )
    return url


#: A database that is named by the command line or, as a client's, by the environment or a `.env` file.
DatabaseUrl = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        envvar="CRYPTOSTORE_URL",
        default_factory=url_from_settings,
        show_default=False,
        help="The database; else the one that clients find in the environment or in .env.",
    ),
]


UserId = Annotated[str | None, typer.Option(help="Only this user's accounts.")]
DeviceId = Annotated[str | None, typer.Option(help="Only accounts with this device id.")]


def open_for(command: str, url: str) -> Backend:
    """Open a database that is there already, for a command, whose name a fenced owner is shown.

    Raises ConfigurationError for a database that a process takes with it when it ends, and as `open_backend` does.
    """
    refuse_process_local(url)
    return open_existing(url, owner=owner_of(command))


def owner_of(command: str) -> str:
    """The name of this process, in which a command runs."""
    return f"cryptostore {command} on {default_owner()}"


def owned_url(command: str, url: str) -> str:
    """The URL for a client that a command starts, with the name that a fenced owner is shown.

    An owner in the URL is the bot's: fenced by its own name, it would not say by whom.
    """
    place, _, query = url.partition("?")
    options = [each for each in query.split("&") if each and unquote(each.partition("=")[0]) != "owner"]
    return f"{place}?{'&'.join([*options, 'owner=' + quote(owner_of(command), safe='')])}"


def wanted_accounts(backend: Backend, url: str, user_id: str | None, device_id: str | None) -> list[Account]:
    """The accounts with this user and device id, where they are given.

    Raises ConfigurationError where there are accounts, and none of them is wanted, and SchemaError where half of the
    one that is wanted is missing.
    """
    listing = backend.listing()
    if user_id is not None or device_id is not None:
        names = (user_id, device_id)
        unowned = [] if _matching(listing.accounts, *names) else _matching(listing.unowned, *names)
        for account in unowned:
            # Raises what says how the other half is removed.
            backend.sealed(account).find()
    return chosen(listing.accounts, url, user_id, device_id)


def chosen(there: Collection[Account], url: str, user_id: str | None, device_id: str | None) -> list[Account]:
    """As `wanted_accounts`, of accounts that were listed already."""
    wanted = _matching(there, user_id, device_id)
    if there and not wanted:
        raise ConfigurationError(f"{shown_url(url)} has no such account; it has: {', '.join(map(str, there))}")
    return wanted


def _matching(accounts: Iterable[Account], user_id: str | None, device_id: str | None) -> list[Account]:
    return [each for each in accounts if user_id in (None, each.user_id) and device_id in (None, each.device_id)]


def accounts_to_show(backend: Backend, url: str, user_id: str | None, device_id: str | None) -> list[Account]:
    """As `wanted_accounts`, for who only looks: that there is none at all is said."""
    wanted = wanted_accounts(backend, url, user_id, device_id)
    if not wanted:
        say(f"the database {shown_url(url)} holds no account; is it the right one?")
    return wanted


def is_one_unreadable(backend: Backend, user_id: str | None, device_id: str | None) -> bool:
    """Whether all accounts are meant, and there is one whose row cannot be read. That is said."""
    if user_id is not None or device_id is not None:
        return False
    left_out = backend.listing().left_out
    if left_out > 0:
        have = "account has" if left_out == 1 else "accounts have"
        say(f"left out: {left_out:,} {have} a row that cannot be read; restore a backup of the database")
    return left_out > 0


def the_account(backend: Backend, url: str, user_id: str | None, device_id: str | None, why: str) -> Account:
    """The only account with this user and device id. Raises ConfigurationError, which says `why` it is one."""
    wanted = wanted_accounts(backend, url, user_id, device_id)
    if not wanted:
        raise ConfigurationError(f"the database {shown_url(url)} holds no account; is it the right one?")
    if len(wanted) > 1:
        names = ", ".join(map(str, wanted))
        raise ConfigurationError(f"{why}, and {shown_url(url)} has: {names}; choose one with --user-id and --device-id")
    return wanted[0]


def olm_account_of(store: CryptoStore) -> OlmAccount | None:
    """The Olm account, or None where no client has logged in with the account.

    Raises ConfigurationError where an import of it was interrupted, and UnreadableRecord for an Olm account that is
    damaged, or missing although other records are there.
    """
    found = store.get(OlmAccount, [()]).get(())
    if found is not None:
        return found
    # nio takes half a second to import; most commands do without it.
    from cryptostore.nio.wholeness import read_whole

    return read_whole(store).olm_account


def mark_of(backend: Backend, account: Account) -> Mark | None:
    """What says that an account is not at home in this database. Raises UnreadableRecord, SchemaTooNew."""
    stored = backend.sealed(account)
    return None if stored.find() is None else stored.mark()


class AtHome(NamedTuple):
    """The accounts that a command is for, and the marks of those that it leaves out: they are not at home here.

    `damaged` are left out, too: nobody can say where they are, or open them.
    """

    accounts: list[Account]
    marks: dict[Account, Mark]
    damaged: dict[Account, UnreadableRecord]

    @property
    def is_one_missing(self) -> bool:
        """Whether an account is not complete here, or none is here at all of those that were asked for."""
        is_coming = any(mark.whereabouts is not Whereabouts.MOVED for mark in self.marks.values())
        return is_coming or bool(self.damaged) or (bool(self.marks) and not self.accounts)

    def leave_out(self, account: Account, damage: UnreadableRecord) -> None:
        """Tell the user of an account that cannot be opened."""
        self.damaged[account] = damage
        say(f"left out: {damage}")

    def left_out(self) -> list[dict[str, str | None]]:
        """For JSON: the accounts that are left out, where they are if that is known, and why."""
        found: list[dict[str, str | None]] = []
        for account, mark in self.marks.items():
            why = str(elsewhere(account, mark))
            found.append({**names_of(account), "whereabouts": mark.whereabouts, "place": mark.place, "reason": why})
        for account, damage in self.damaged.items():
            found.append({**names_of(account), "whereabouts": None, "place": None, "reason": str(damage)})
        return found


def at_home(backend: Backend, accounts: Iterable[Account]) -> AtHome:
    """Those of these accounts that are at home here; the others are told. Raises SchemaTooNew for a newer mark."""
    found = AtHome([], {}, {})
    for account in accounts:
        try:
            mark = mark_of(backend, account)
        except UnreadableRecord as error:
            found.leave_out(account, error)
            continue
        if mark is None:
            found.accounts.append(account)
        else:
            found.marks[account] = mark
            say(f"left out: {elsewhere(account, mark)}")
    return found


def names_of(account: Account) -> dict[str, str]:
    """For JSON: which account it is."""
    return {"user_id": account.user_id, "device_id": account.device_id}


def refuse_process_local(url: str) -> None:
    """Raise ConfigurationError for a database that a process takes with it when it ends."""
    claim = load_backend(scheme_of(url)).claim(Capability.SURVIVES_PROCESS_KILL)
    if claim.support in (Support.UNSUPPORTED, Support.NOT_IMPLEMENTED):
        raise ConfigurationError(
            f"{shown_url(url)} keeps nothing beyond its process ({claim.reason}); use another backend: "
            "`cryptostore backends` lists what is installed"
        )
