"""Text that strangers choose to steer what shows it."""

from __future__ import annotations

import unicodedata
from typing import Final

#: What a forged line of a log begins with.
FORGED: Final = "CRITICAL:root:"

HOSTILE: Final = {
    "a line of its own": f"D\n{FORGED}all is lost",
    "a carriage return": "D\rE",
    "terminal controls": "D\x1b[2J\x1b]0;title\x07\x08",
    "C1 controls": "D\x9b2J\x85",
    "delete": "D\x7f",
    "bidi overrides": "D\u202eE\u202c",
    "bidi isolates and marks": "D\u2066E\u2069\u200f\u061c",
    "zero width": "D\u200bE\u200d\u2060\ufeff",
    "separators": "D\u2028E\u2029",
    "blank letters": "D\u3164\u115f\uffa0\u034f",
    "variation selectors": "D\ufe0f\U000e0101",
    "tags": "D\U000e0041",
    "markup": "DEV[/b]",
    "more markup": "[red]D[link=https://example.org]",
    "an emoji's name": ":skull:",
}

#: All in one.
WORST: Final = "".join(HOSTILE.values())

#: Letters by their category, which cannot be seen all the same: Unicode calls them ignorable by default.
_UNSEEN: Final = frozenset("\u034f\u115f\u1160\u3164\uffa0\U000e0101") | {chr(code) for code in range(0xFE00, 0xFE10)}


def raw_in(text: str, *, lines: bool = False) -> list[str]:
    """What in `text` may steer a terminal or a reader; with `lines`, it is several lines, none of them forged."""
    forged = [line for line in text.split("\n") if line.lstrip("\x1b").startswith(FORGED)] if lines else []
    return forged + [f"{char!a}" for char in text if _steers(char) and not (lines and char == "\n")]


def _steers(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") or char in _UNSEEN
