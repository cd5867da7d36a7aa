"""A batch: the records to put and the keys to delete, together or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .errors import InvalidRecord
from .fields import FieldType
from .records import KINDS, Key, Record, check_key, fields_of


class RecordKey(NamedTuple):
    """Which record of an account is meant."""

    kind: type[Record]
    key: Key


class Changes:
    """An immutable batch with at most one operation for each key.

    Raises InvalidRecord for something that is not a record, for a key that is not whole, and for a second operation on
    one key, so that a batch never depends on an order inside itself.
    """

    __slots__ = ("_deletes", "_puts")

    def __init__(self, puts: Iterable[Record] = (), deletes: Iterable[tuple[type[Record], Key]] = ()) -> None:
        self._puts: dict[type[Record], dict[Key, Record]] = {}
        self._deletes: dict[type[Record], dict[Key, None]] = {}
        for record in puts:
            self._put(record)
        for kind, key in deletes:
            self._delete(kind, key)

    def puts(self, kind: type[Record]) -> list[Record]:
        """The records of `kind` to insert or replace whole."""
        return list(self._puts.get(kind, {}).values())

    def deletes(self, kind: type[Record]) -> list[Key]:
        """The keys of `kind` to delete; deleting what is not there is no error."""
        return list(self._deletes.get(kind, {}))

    def kinds(self) -> list[type[Record]]:
        """The kinds that the batch touches, in the order of `KINDS`: every writer locks rows in one order."""
        return [kind for kind in KINDS if kind in self._puts or kind in self._deletes]

    def keys(self) -> Iterator[RecordKey]:
        """Every key that the batch touches."""
        for operations in (self._puts, self._deletes):
            for kind, by_key in operations.items():
                yield from (RecordKey(kind, key) for key in by_key)

    def followed_by(self, later: Changes) -> Changes:
        """One batch with the effect of this one and then `later`."""
        superseded = set(later.keys())
        kept = [name for name in self.keys() if name not in superseded]
        return Changes(
            [self._puts[kind][key] for kind, key in kept if key in self._puts.get(kind, {})] + later._all_puts(),
            [(kind, key) for kind, key in kept if key in self._deletes.get(kind, {})] + later._all_deletes(),
        )

    @property
    def size(self) -> int:
        """How many bytes of pickles and values the batch puts."""
        return sum(
            len(getattr(record, name))
            for kind, by_key in self._puts.items()
            for name, field_type in fields_of(kind)
            if field_type is FieldType.BYTES
            for record in by_key.values()
        )

    def __len__(self) -> int:
        return sum(len(by_key) for operations in (self._puts, self._deletes) for by_key in operations.values())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Changes):
            return NotImplemented
        return self._puts == other._puts and self._deletes == other._deletes

    __hash__ = None  # type: ignore[assignment]  # compared by content; hashing a batch would pickle-walk it for nothing

    def __repr__(self) -> str:
        puts = sum(map(len, self._puts.values()))
        return f"<Changes: {puts} puts, {len(self) - puts} deletes>"

    def _all_puts(self) -> list[Record]:
        return [record for by_key in self._puts.values() for record in by_key.values()]

    def _all_deletes(self) -> list[tuple[type[Record], Key]]:
        return [(kind, key) for kind, by_key in self._deletes.items() for key in by_key]

    def _put(self, record: Record) -> None:
        kind = type(record)
        if kind not in KINDS:
            raise InvalidRecord(kind.__name__, "kind", "is not one of the kinds in cryptostore.KINDS")
        self._claim(kind, record.key)
        self._puts.setdefault(kind, {})[record.key] = record

    def _delete(self, kind: type[Record], key: Key) -> None:
        if kind not in KINDS:
            raise InvalidRecord(getattr(kind, "__name__", "?"), "kind", "is not one of the kinds in cryptostore.KINDS")
        check_key(kind, key)
        self._claim(kind, key)
        self._deletes.setdefault(kind, {})[key] = None

    def _claim(self, kind: type[Record], key: Key) -> None:
        if key in self._puts.get(kind, {}) or key in self._deletes.get(kind, {}):
            raise InvalidRecord(
                kind.kind_name, "key", "has two operations in one batch; a batch takes one for each key"
            )
