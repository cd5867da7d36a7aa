"""Where a path is mounted, as Linux tells it. Other systems do not, and nothing is said of their mounts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

_TABLE: Final = Path("/proc/self/mountinfo")

#: Spaces, tabs, line feeds and backslashes are written as three octal digits.
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """A folder or a single file that is mounted, and its file system's type."""

    point: Path
    type: str


def mounts() -> list[Mount] | None:
    """All mounts that this process sees, or None where the system does not tell."""
    try:
        return parsed(_TABLE.read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:
        return None


def parsed(table: str) -> list[Mount]:
    """The mounts of a table in the format of /proc/self/mountinfo."""
    # The number of fields before the " - " varies.
    halves = (line.split(" - ", 1) for line in table.splitlines() if " - " in line)
    return [Mount(Path(_unescaped(left.split(" ")[4])), right.split(" ")[0]) for left, right in halves]


def mount_of(path: Path, among: Iterable[Mount]) -> Mount | None:
    """The mount that `path`, absolute and without links, lies in. A later one at the same place hides the earlier."""
    around = [mount for mount in among if path.is_relative_to(mount.point)]
    return max(reversed(around), key=lambda mount: len(mount.point.parts), default=None)


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)
