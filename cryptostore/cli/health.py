"""`cryptostore health`: whether a database is there and takes writes, for people and for probes."""

from __future__ import annotations

import time

import typer

from cryptostore.plugins.loading import shown_url
from cryptostore.store.interface import Health, Schema

from .databases import DatabaseUrl, open_for
from .exits import ExitCode
from .output import AsJson, print_json, print_line


def health(
    url: DatabaseUrl,
    as_json: AsJson = False,
) -> None:
    """Ask a database whether it is there, accepts writes, and is set up to keep them.

    Needs no pickle key, takes nothing over, and makes no database. The exit code is 0 for one that accepts writes, 1
    for one that can be read alone, and 3 for one that does not answer; ?deadline=3 in the URL says how long to wait.
    """
    with open_for("health", url) as backend:
        started = time.monotonic()
        found, schema = backend.health(), backend.schema()
        _report(url, found, schema, time.monotonic() - started, as_json=as_json)
    if not found.writable:
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _report(url: str, found: Health, schema: Schema, seconds: float, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "database": shown_url(url),
                "server": found.server,
                "writable": found.writable,
                "not_durable": found.not_durable or None,
                "schema": schema.version,
                "milliseconds": round(1_000 * seconds, 3),
            }
        )
        return
    print_line(shown_url(url), style="bold")
    print_line(f"{found.server}, tables of schema {schema.version}, answered in {1_000 * seconds:.1f} ms")
    print_line("accepts writes" if found.writable else "cannot be written; it may be a standby, or read-only")
    if found.not_durable:
        print_line(f"a power failure may take what it acknowledged: {found.not_durable}")
