"""Whether somebody uses an account that a command would take away from them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Annotated, Final

import typer

from cryptostore.errors import ConfigurationError
from cryptostore.records import Account
from cryptostore.store.backend import Backend
from cryptostore.store.owners import is_gone
from cryptostore.store.ownership import Ownership

_POLL_SECONDS: Final = 0.2

EvenIfUsed = Annotated[bool, typer.Option("--even-if-used", help="Take the account over although its owner writes.")]


def a_number(value: float) -> float:
    """The value of an option. Not all versions of typer find that "nan" is in no range."""
    if math.isnan(value):
        raise typer.BadParameter(f"{value} is no number of seconds.")
    return value


#: Up to a day: "inf" would never end.
Watch = Annotated[
    float,
    typer.Option(
        metavar="SECONDS", min=0, max=86_400, callback=a_number, help="How long to watch for a write of its owner."
    ),
]


def owner_seen(backend: Backend, account: Account) -> dict[Account, Ownership]:
    """Who owns the account now, to be compared by `refuse_used`; nothing where it is gone."""
    return {each: owner for each, owner in backend.accounts().items() if each == account}


def refuse_used(backend: Backend, seen: Mapping[Account, Ownership], seconds: float, remedy: str) -> None:
    """Raise ConfigurationError where somebody wrote to one of the accounts, or took it over, since it was seen.

    Accounts whose owner has certainly ended are not waited for.
    """
    ends = time.monotonic() + seconds
    watched = dict(seen)
    while True:
        now = backend.accounts()
        used = [each for each, owner in watched.items() if now.get(each, owner) != owner]
        if used:
            raise ConfigurationError(
                f"{used[0]} is in use: somebody wrote to it or took it over at this moment. {remedy}"
            )
        watched = {each: owner for each, owner in watched.items() if each in now and not is_gone(owner.owner)}
        if not watched or time.monotonic() >= ends:
            return
        time.sleep(_POLL_SECONDS)
