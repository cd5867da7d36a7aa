"""The published list of what each of our harnesses leaves unverified: a page, which the tests hold the harnesses to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[2] / "docs" / "contract" / "unverified.md"

_ROW: Final = re.compile(r"^\| (.+?) \| (.+?) \| (.*?) ?\|$", re.MULTILINE)
_CASES: Final = re.compile(r"\{case\}`([A-Z]+)-(\d+)`(?: to \{case\}`\1-(\d+)`)?")


def published(*harnesses: str) -> frozenset[str]:
    """The IDs of the cases that the page says these leave, all together. KeyError for one that it does not name."""
    rows = _rows()
    return frozenset(case_id for harness in harnesses for cell in rows[harness] for case_id in _ids(cell))


def _rows() -> dict[str, list[str]]:
    """What the page says by harness."""
    found: dict[str, list[str]] = {}
    for harness, cases, reason in _ROW.findall(PAGE.read_text("utf-8")):
        assert reason or cases == "nothing", f"no reason is given for {cases}"
        found.setdefault(harness, []).append(cases)
    return found


def _ids(cell: str) -> Iterator[str]:
    for group, first, last in _CASES.findall(cell):
        yield from (f"{group}-{number}" for number in range(int(first), int(last or first) + 1))
