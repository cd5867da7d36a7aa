"""The tables of the doctor's checks are those of the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from cryptostore import Level
from cryptostore.cli.doctor import checks
from cryptostore_postgres.diagnosis import CHECKS as POSTGRES
from cryptostore_sqlite.diagnosis import CHECKS as SQLITE

SECTION: Final = (
    (Path(__file__).parents[2] / "docs" / "command-line.md")
    .read_text()
    .partition("## `cryptostore doctor URL`")[2]
    .partition("\n## ")[0]
)


def tables() -> list[dict[str, str]]:
    """The tables of the section that have two columns, without their heads."""
    found = re.findall(r"^\| (?:check|mark) \|.*\n\|[-|]+\n((?:\|.*\n)+)", SECTION, re.MULTILINE)
    return [dict(re.findall(r"^\| (.+?) \| (.+) \|$", rows, re.MULTILINE)) for rows in found]


def test_the_page_lists_every_check_of_the_core_and_of_our_backends() -> None:
    _, core, postgres, sqlite = tables()
    assert core == {**checks.INSTALLATION, **checks.SETTINGS, **checks.DATABASE, **checks.ACCOUNT}
    assert postgres == POSTGRES
    assert sqlite == SQLITE


def test_the_page_explains_every_mark() -> None:
    assert [mark.strip("`") for mark in tables()[0]] == list(Level)
