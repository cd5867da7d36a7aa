"""A batch: the records to put and the keys to delete, together or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple, TypeVar, cast

from cryptostore.errors import InvalidRecord

from .record import KINDS_BY_NUMBER, Key, Record, check_key

R = TypeVar("R", bound=Record)


class RecordKey(NamedTuple):
    """Which record of an account is meant."""

    kind: type[Record]
    key: Key


class Changes:
    """An immutable batch with at most one operation for each key.

    Raises InvalidRecord for something that is not a record, for a key that is not whole, and for a second operation on
    one key, so that a batch never depends on an order inside itself.
    """

    __slots__ = ("_operations",)

    def __init__(self, puts: Iterable[Record] = (), deletes: Iterable[tuple[type[Record], Key]] = ()) -> None:
        # None stands for a deletion.
        self._operations: dict[type[Record], dict[Key, Record | None]] = {}
        for record in puts:
            self._add(type(record), getattr(record, "key", ()), record)
        for kind, key in deletes:
            self._add(kind, key, None)

    def puts(self, kind: type[Record]) -> list[Record]:
        """The records of `kind` to insert or replace whole."""
        return [record for record in self._operations.get(kind, {}).values() if record is not None]

    def deletes(self, kind: type[Record]) -> list[Key]:
        """The keys of `kind` to delete; deleting what is not there is no error."""
        return [key for key, record in self._operations.get(kind, {}).items() if record is None]

    def operations(self, kind: type[R]) -> Mapping[Key, R | None]:
        """What is put under each key of `kind`; None where it is deleted. Nothing is copied."""
        # Each dictionary holds records of its kind only.
        return cast("Mapping[Key, R | None]", self._operations.get(kind, {}))

    def kinds(self) -> list[type[Record]]:
        """The kinds that the batch touches."""
        return list(self._operations)

    def keys(self) -> Iterator[RecordKey]:
        """Every key that the batch touches."""
        for kind, by_key in self._operations.items():
            yield from (RecordKey(kind, key) for key in by_key)

    def followed_by(self, *later: Changes) -> Changes:
        """One batch with the effect of this one and then the `later` ones, in their order."""
        batches = [batch for batch in (self, *later) if batch]
        if len(batches) <= 1:
            return batches[0] if batches else self
        together = Changes()
        for batch in batches:
            for kind in batch.kinds():
                together._operations.setdefault(kind, {}).update(batch.operations(kind))
        return together

    def __len__(self) -> int:
        return sum(map(len, self._operations.values()))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Changes):
            return NotImplemented
        return self._operations == other._operations

    __hash__ = None  # type: ignore[assignment]  # typeshed declares it callable on object; batches compare by content

    def __repr__(self) -> str:
        puts = sum(len(self.puts(kind)) for kind in self.kinds())
        return f"<Changes: {puts} puts, {len(self) - puts} deletes>"

    def _add(self, kind: type[Record], key: Key, record: Record | None) -> None:
        if KINDS_BY_NUMBER.get(getattr(kind, "kind_number", -1)) is not kind:
            name = getattr(kind, "__name__", type(kind).__name__)
            raise InvalidRecord(name, "kind", "is not a kind of record; give a record of one in cryptostore.KINDS")
        if record is None:
            check_key(kind, key)
        by_key = self._operations.setdefault(kind, {})
        if key in by_key:
            raise InvalidRecord(
                kind.kind_name, "key", "has two operations in one batch; keep one, or apply two batches"
            )
        by_key[key] = record


#: The batch that changes nothing.
NOTHING: Final = Changes()
