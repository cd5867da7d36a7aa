"""How much room a database takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import psycopg


def stored_bytes(database: Mapping[str, str]) -> int:
    """All tables of the schema with their indexes, or the SQLite file with its log."""
    if database["file"]:
        file = Path(database["file"])
        return sum(part.stat().st_size for part in file.parent.glob(f"{file.name}*") if not part.name.endswith("-shm"))
    with psycopg.connect(database["libpq"]) as connection:
        row = connection.execute(
            "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class "
            "WHERE relnamespace = %s::regnamespace AND relkind = 'r'",
            [database["schema"]],
        ).fetchone()
    return int(row[0]) if row else 0
