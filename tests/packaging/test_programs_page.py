"""The table of programs is that of the tests which run them."""

from __future__ import annotations

import re
from pathlib import Path

from programs_tried import PROGRAMS

PAGE = Path(__file__).parents[2] / "docs" / "unmodified-programs.md"


def test_the_table_has_the_programs_and_versions_that_are_run() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| ([\d.]+) \| (.+?) \|", PAGE.read_text(), re.MULTILINE)
    assert [(name, version) for name, version, _ in rows] == [(each.distribution, each.version) for each in PROGRAMS]
    for (_, _, started), program in zip(rows, PROGRAMS, strict=True):
        commands = [command for command in (program.command, program.sending) if command]
        assert re.findall(r"`(.+?)`", started) == [" ".join(command) for command in commands]
