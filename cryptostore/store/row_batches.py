"""Rows in batches, for who writes more of them than fit into memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .interface import Row


def batches_of(rows: Iterable[Row], most_rows: int, enough_bytes: int) -> Iterator[list[Row]]:
    """The rows in their order: each batch ends with `most_rows`, or with the row whose value makes it large enough."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row.value)
        if len(batch) == most_rows or size >= enough_bytes:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
