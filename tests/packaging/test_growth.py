"""What an account grows by, as it is measured and as the docs say it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
GROWTH: Final = ROOT / "benchmarks" / "growth.py"

#: Rows for one more of each. Own messages are read with a session of the account's own.
ROWS: Final = {
    "a Megolm session that came": 1,
    "a message read, 100 of a session": 0.02,
    "a message read, 5 of a session": 0.2,
    "a device of others": 1,
    "an Olm session": 1,
    # The room, the session that sends there, its other half that reads, and one part with all devices.
    "a room, sent to 40 devices": 4,
}


def test_rows_are_as_many_as_were_made(tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    command = [sys.executable, str(GROWTH), "--small", "--json", str(written)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    told = json.loads(written.read_text())
    assert set(told) == {"SQLite", "PostgreSQL"}
    for figures in told.values():
        rows = {each["what"]: each["rows"] for each in figures}
        assert {what: rows[what] for what in ROWS} == ROWS
        assert rows["a day of a bot"] == 112
        assert figures[0]["bytes"] > 300
    assert "a message read, 100 of a session" in ended.stdout


def test_the_page_shows_these_figures() -> None:
    page = (ROOT / "docs" / "growth.md").read_text()
    table = dict(re.findall(r"^\| ([^|]+?) \| ([\d.]+) \|", page, re.MULTILINE))
    assert {what: float(table[what]) for what in ROWS} == ROWS
    assert "python benchmarks/growth.py" in page
