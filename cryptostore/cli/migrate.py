"""`cryptostore migrate`: a database's tables, made or brought up to date before clients start."""

from __future__ import annotations

from cryptostore.plugins import open_backend
from cryptostore.plugins.loading import shown_url

from .databases import DatabaseUrl, owner_of, refuse_process_local
from .output import AsJson, if_interrupted, print_json, print_line


def migrate(
    url: DatabaseUrl,
    as_json: AsJson = False,
) -> None:
    """Make a database's tables, or bring them up to date, as every client does that may.

    For a role that owns the tables, where that of the clients may not make any (migrate=never in their URL). Take a
    backup first. One transaction: when this is interrupted, the old tables are whole; run it again.
    """
    refuse_process_local(url)
    how_to_go_on = "interrupted: the tables are as they were, or up to date already; run the same command again"
    with if_interrupted(how_to_go_on), open_backend(url, owner=owner_of("migrate")) as backend:
        schema, accounts = backend.schema(), len(backend.accounts())
    if as_json:
        print_json(
            {
                "database": shown_url(url),
                "schema": schema.version,
                "min_compatible": schema.min_compatible,
                "stored_accounts": accounts,
            }
        )
        return
    print_line(f"{shown_url(url)} has tables of schema {schema.version}, and {accounts:,} accounts")
