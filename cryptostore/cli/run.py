"""`cryptostore run`: a program that was written for matrix-nio, with its keys in a database."""

from __future__ import annotations

from typing import Annotated

import typer

from cryptostore.plugins import open_backend

from .databases import refuse_process_local, url_from_settings
from .programs import find_module, find_program


def run(
    program: Annotated[str, typer.Argument(metavar="PROGRAM", help="A file, or the name of a console script.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGUMENTS", help="The program's own.", show_default=False)
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The database; else the one that clients find in the environment or in .env."),
    ] = None,
    production: Annotated[
        bool, typer.Option("--production", help="ProductionMatrixClient in place of nio's AsyncClient, too.")
    ] = False,
    is_module: Annotated[
        bool, typer.Option("-m", "--module", help="PROGRAM is a module, as after `python -m`.")
    ] = False,
) -> None:
    """Start an unmodified matrix-nio program with its keys in a database.

    The program runs in this process, with its own arguments, exit code and signals. NioStore takes the place of nio's
    SqliteStore and DefaultStore, and CRYPTOSTORE_PICKLE_KEY that of nio's default pickle key.
    """
    # nio takes half a second to import; the other commands do without it.
    from cryptostore.nio import unmodified

    url = store or url_from_settings()
    refuse_process_local(url)
    found = (find_module if is_module else find_program)(program, arguments or [])
    # What is wrong with the database is said before the program begins, in one line.
    with open_backend(url) as backend:
        backend.accounts()
    (unmodified.use_our_client if production else unmodified.use_our_store)(url)
    raise found
