"""What the commands ask of a database before they use it."""

from __future__ import annotations

from typing import Annotated

import typer

from cryptostore.errors import ConfigurationError
from cryptostore.plugins import load_backend, open_existing
from cryptostore.plugins.capabilities import Capability, Support
from cryptostore.plugins.environment import ENV_FILE, database_url, variables
from cryptostore.plugins.loading import shown_url
from cryptostore.plugins.urls import scheme_of
from cryptostore.records import KINDS_BY_NUMBER, Account
from cryptostore.store.backend import Backend
from cryptostore.store.owners import default_owner
from cryptostore.store.ring import RING_KEYS


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


def wanted_accounts(backend: Backend, url: str, user_id: str | None, device_id: str | None) -> list[Account]:
    """The accounts with this user and device id, where they are given.

    Raises ConfigurationError where there are accounts, and none of them is wanted.
    """
    there = list(backend.accounts())
    wanted = [each for each in there if user_id in (None, each.user_id) and device_id in (None, each.device_id)]
    if there and not wanted:
        raise ConfigurationError(f"{shown_url(url)} has no such account; it has: {', '.join(map(str, there))}")
    return wanted


def the_account(backend: Backend, url: str, user_id: str | None, device_id: str | None, why: str) -> Account:
    """The only account with this user and device id. Raises ConfigurationError, which says `why` it is one."""
    wanted = wanted_accounts(backend, url, user_id, device_id)
    if len(wanted) != 1:
        names = ", ".join(map(str, wanted)) or "none"
        raise ConfigurationError(f"{why}, and {shown_url(url)} has: {names}; choose one with --user-id and --device-id")
    return wanted[0]


def refuse_process_local(url: str) -> None:
    """Raise ConfigurationError for a database that a process takes with it when it ends."""
    claim = load_backend(scheme_of(url)).claim(Capability.SURVIVES_PROCESS_KILL)
    if claim.support in (Support.UNSUPPORTED, Support.NOT_IMPLEMENTED):
        raise ConfigurationError(
            f"{shown_url(url)} keeps nothing beyond its process ({claim.reason}); use another backend: "
            "`cryptostore backends` lists what is installed"
        )


def kind_name(number: int) -> str:
    """What people call the kind of record with this number; a newer program may have kinds that this one does not.

    The two copies of the key ring are told apart as its errors do.
    """
    if bytes([number]) in RING_KEYS:
        return f"key_ring {number:02x}"
    kind = KINDS_BY_NUMBER.get(number)
    return f"kind {number}" if kind is None else kind.kind_name
