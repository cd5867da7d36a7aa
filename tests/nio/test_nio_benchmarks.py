"""The measurements run, and what they count is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def figures(*arguments: str) -> dict[str, list[str]]:
    """The rows of the table that a script prints."""
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"}
    )
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in done.stdout.splitlines() if "│" in line]
    return {label: cells for label, *cells in rows}


def test_one_sync_is_one_commit_however_many_room_keys_it_brings() -> None:
    rows = figures(str(BENCHMARKS / "syncs.py"), "--keys", "7", "--timed-keys", "3", "--runs", "1")
    # nio commits the token, and for each key its Olm session and its Megolm session.
    assert rows["7 room keys: commits"] == ["15", "1 (15)", "1 (15)"]
    stock, _sqlite, postgresql = rows["7 room keys: round trips"]
    assert (stock, postgresql) == ("-", "2")
    assert all(re.match(r"\d+ ms", cell) for cell in rows["3 room keys: time"])
