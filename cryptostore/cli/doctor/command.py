"""`cryptostore doctor`: everything that can be wrong, each with its remedy."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from cryptostore.cli.databases import DatabaseUrl, DeviceId, UserId
from cryptostore.cli.exits import ExitCode
from cryptostore.cli.in_use import a_number
from cryptostore.cli.output import AsJson
from cryptostore.cli.pickle_keys import NO_OPTIONS, PickleKeyOptions, takes_pickle_keys

from .checks import Group, has_to_be_changed
from .database import Wanted, look_at_database, not_looked_at
from .env_file import look_at_env_file
from .installation import look_at_installation
from .pickle_key import look_at_pickle_key
from .report import report


@takes_pickle_keys
def doctor(
    url: DatabaseUrl,
    user_id: UserId = None,
    device_id: DeviceId = None,
    pickle_key_options: PickleKeyOptions = NO_OPTIONS,
    all_rows: Annotated[
        bool, typer.Option("--all", help="Open every row, not the first hundred of each kind.")
    ] = False,
    watch: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            max=86_400,
            callback=a_number,
            help="How long to watch for clients that fence each other.",
        ),
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Look at everything that can be wrong with a database and its clients, and say how to mend it.

    The installation, the settings, the server or the file, the tables and rights, and each account. Changes nothing and
    takes nothing over; works where the database cannot be opened. The exit code is 0 where nothing has to be changed, 1
    where something has, a server that is away included.
    """
    with _silent_logs():
        wanted = Wanted(url, user_id, device_id, all_rows, watch)
        groups = report(url, _groups(pickle_key_options, wanted), as_json=as_json)
    if has_to_be_changed(groups):
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _groups(options: PickleKeyOptions, wanted: Wanted) -> Iterator[Group]:
    installation = Group("Installation", list(look_at_installation(wanted.url)))
    yield installation
    env_file = look_at_env_file()
    # What is wrong with the file would be found in it again.
    pickle_key, findings = (None, []) if env_file.prevents_opening else look_at_pickle_key(options)
    yield Group("Settings", [env_file, *findings])
    if any(each.prevents_opening for each in (env_file, *installation.findings)):
        yield not_looked_at(wanted.url)
    else:
        yield from look_at_database(wanted, pickle_key)


@contextmanager
def _silent_logs() -> Iterator[None]:
    """Drop what is logged: the same is found, with its remedy."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
