"""What the commands ask of a database before they use it."""

from __future__ import annotations

from typing import Annotated

import typer

from cryptostore.errors import ConfigurationError
from cryptostore.plugins import load_backend
from cryptostore.plugins.capabilities import Capability, Support
from cryptostore.plugins.environment import ENV_FILE, database_url, variables
from cryptostore.plugins.loading import shown_url
from cryptostore.plugins.urls import scheme_of
from cryptostore.records import KINDS_BY_NUMBER
from cryptostore.store.ring import RING_KEYS


def _url_from_settings() -> str:
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
        default_factory=_url_from_settings,
        show_default=False,
        help="The database; else the one that clients find in the environment or in .env.",
    ),
]


def refuse_process_local(url: str) -> None:
    """Raise ConfigurationError for a database that a process takes with it when it ends."""
    claim = load_backend(scheme_of(url)).claim(Capability.SURVIVES_PROCESS_KILL)
    if claim.support in (Support.UNSUPPORTED, Support.NOT_IMPLEMENTED):
        raise ConfigurationError(
            f"{shown_url(url)} keeps nothing beyond its process ({claim.reason}); use another backend: "
            "`cryptostore backends` lists what is installed"
        )


def kind_name(number: int) -> str:
    """What people call the kind of record with this number; a newer program may have kinds that this one does not."""
    if bytes([number]) in RING_KEYS:
        return "key_ring"
    kind = KINDS_BY_NUMBER.get(number)
    return f"kind {number}" if kind is None else kind.kind_name
