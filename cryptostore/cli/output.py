"""Output: tables for people, JSON for programs. Text that comes from strangers is escaped in both."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def results() -> Console:
    """Standard output, for what was asked for. Text is shown as it is: ids come from strangers, never as markup."""
    return Console(markup=False, highlight=False, emoji=False)


def messages() -> Console:
    """Standard error, for progress and everything that is not the answer."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def printable(text: str) -> str:
    """`text` with control characters escaped, so that an id cannot steer the terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def print_json(document: Any) -> None:
    """Write one JSON document to standard output."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=not _takes_unicode()) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table for people to standard output."""
    console = results()
    # Not the table's own title, which is broken at the table's width: it may be a URL to copy.
    console.print(printable(title), style="bold", soft_wrap=True)
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row))
    console.print(table)


def print_error(text: str) -> None:
    """Say on standard error, in one line, why the command ended."""
    sys.stderr.write(f"error: {printable(' '.join(text.split()))}\n")


def _takes_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
