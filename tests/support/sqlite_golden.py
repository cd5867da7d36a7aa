"""The golden databases that programs of every released schema left behind, as files.

`python tests/support/sqlite_golden.py` makes the one of this program's schema. That is done once, when its migration is
about to be released: the file is committed, never made again, and read by every later version's tests.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from clock import to_microseconds
from cryptostore import open_backend
from cryptostore_contract.golden import fill
from cryptostore_sqlite.schema import SHIPPED

FOLDER: Final = Path(__file__).parents[2] / "backends" / "sqlite" / "tests" / "golden"

OWNER: Final = "golden"
INCARNATION: Final = 2**63 - 1
SINCE: Final = datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)


def golden(version: int) -> Path:
    """What the program of this schema left behind."""
    return FOLDER / f"schema_{version}.db"


def make(path: Path) -> None:
    """Write the golden records with today's program."""
    with open_backend(f"sqlite:///{path}", owner=OWNER) as backend:
        fill(backend)
    # When it was made is no part of it, nor what was drawn for its owner.
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(
            "UPDATE ownership SET since = ?, written_at = ?, incarnation = ?",
            [to_microseconds(SINCE), to_microseconds(SINCE), INCARNATION],
        )


if __name__ == "__main__":
    target = golden(SHIPPED.known_version)
    if target.exists():
        raise SystemExit(
            f"{target} is there already, and the databases of users do not change because ours would be made again"
        )
    target.parent.mkdir(exist_ok=True)
    make(target)
    target.chmod(0o644)
    print(target)  # noqa: T201  # a script that is run by hand
