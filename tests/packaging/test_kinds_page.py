"""The reference lists every kind of record with its number, and what a row that cannot be read means."""

from __future__ import annotations

from pathlib import Path

from cryptostore import KINDS

REFERENCE = Path(__file__).parents[2] / "docs" / "reference.md"


def test_the_table_of_kinds() -> None:
    rows = [
        f"| {kind.kind_number} | {kind.__name__} | {', '.join(kind.key_fields) or 'one an account'} "
        f"| {kind.when_unreadable.value} |"
        for kind in KINDS
    ]
    shown = [line for line in REFERENCE.read_text().splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert shown == rows
