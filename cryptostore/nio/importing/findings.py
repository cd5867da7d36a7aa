"""What a source could not give, and why: by kind and ids, never by content."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cryptostore.records import Account


class Finding(NamedTuple):
    """Things of one kind that are missing or not whole, for one reason."""

    #: Whose they are; None for rows that belong to no account of the file.
    account: Account | None
    kind: str
    reason: str
    #: Which ones, in the words of the source: session ids, room ids, user and device ids.
    ids: tuple[str, ...]


class Findings:
    """Collects findings; those of one account, kind and reason become one."""

    def __init__(self) -> None:
        self._ids: dict[tuple[Account | None, str, str], dict[str, None]] = {}

    def add(self, account: Account | None, kind: str, reason: str, *ids: object) -> None:
        """Note one thing, by its ids; noting it twice is noting it once."""
        self._ids.setdefault((account, kind, reason), {})[" ".join(map(str, ids))] = None

    def __iter__(self) -> Iterator[Finding]:
        return (Finding(*key, tuple(ids)) for key, ids in self._ids.items())

    def __len__(self) -> int:
        return sum(map(len, self._ids.values()))
