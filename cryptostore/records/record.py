"""What every record has in common: its checks, its key, and how a kind is declared."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Final, TypeVar, dataclass_transform

from cryptostore.errors import InvalidRecord

from .fields import (
    CHECKS,
    Field,
    Identifier,
    declared_fields,
    values_getter,
)

#: The values of a record's key fields, in their declared order; `()` for kinds of which an account has one record.
Key = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Account:
    """One device of one user, which owns the keys."""

    user_id: Identifier
    device_id: Identifier

    def __post_init__(self) -> None:
        _check_fields(self, "account")

    def __str__(self) -> str:
        return f"{self.user_id} {self.device_id}"


class Unreadable(enum.Enum):
    """What a look-up does about a stored row that cannot be read. The row is reported and kept in every case."""

    #: Asking raises UnreadableRecord: read as absent, the row would be replaced.
    ERROR = "error"
    #: The answer names the row, and the caller refuses what its absence would permit.
    REFUSE = "refuse"
    #: The row is left out of the answer, which names it.
    SKIP = "skip"


@dataclass(frozen=True, slots=True, repr=False)
class Record:
    """Base of all kinds. Raises InvalidRecord, naming kind and field, for a value that no store may accept."""

    #: The first byte of the kind's keys: 1 to 254, never used again for another kind.
    kind_number: ClassVar[int]
    #: The kind's stable name, for people.
    kind_name: ClassVar[str]
    #: Grows with each field that is added, so that an older program does not drop the field in silence.
    format_number: ClassVar[int] = 1
    #: The fields that were added since the first format, one a format. They are the last ones, and have defaults.
    added_fields: ClassVar[tuple[str, ...]] = ()
    #: What a row that cannot be read means.
    when_unreadable: ClassVar[Unreadable] = Unreadable.SKIP
    #: The fields that tell one record of this kind from another within an account.
    key_fields: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        _check_fields(self, self.kind_name)

    @property
    def key(self) -> Key:
        """The values of the key fields."""
        return _key_getter_of(type(self))(self)

    def __repr__(self) -> str:
        # Only the key: pickles and tokens have no business in a log line.
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.key_fields)
        return f"{type(self).__name__}({shown})"


_RING_NUMBERS: Final = (0, 255)
_kinds: Final[dict[int, type[Record]]] = {}

#: Every kind that this program knows, by its number.
KINDS_BY_NUMBER: Final[Mapping[int, type[Record]]] = MappingProxyType(_kinds)

R = TypeVar("R", bound=Record)


@dataclass_transform(frozen_default=True)
def record_kind(cls: type[R]) -> type[R]:
    """Declare a kind of record. Raises ValueError for a number that is taken."""
    kind: type[R] = dataclass(frozen=True, slots=True, repr=False)(cls)
    number = kind.kind_number
    if number in _kinds or number in _RING_NUMBERS or not 0 < number < 255:
        raise ValueError(f"the kind number {number} of {kind.__name__} is taken; choose another one from 1 to 254")
    _kinds[number] = kind
    return kind


# Worked out once for each class: every record that is made asks for them.
_fields: Final[dict[type, tuple[Field, ...]]] = {}
_key_fields: Final[dict[type, tuple[Field, ...]]] = {}
_checks: Final[dict[type, tuple[tuple[str, Callable[[Any], Any]], ...]]] = {}
_key_checks: Final[dict[type, tuple[tuple[str, Callable[[Any], Any]], ...]]] = {}
_key_getters: Final[dict[type, Callable[[Any], Key]]] = {}


def fields_of(kind: type[Record | Account]) -> tuple[Field, ...]:
    """The kind's fields with their types, in constructor order."""
    if kind not in _fields:
        _fields[kind] = declared_fields(kind)
    return _fields[kind]


def key_fields_of(kind: type[Record]) -> tuple[Field, ...]:
    """The kind's key fields with their types, in key order."""
    if kind not in _key_fields:
        by_name = {field.name: field for field in fields_of(kind)}
        _key_fields[kind] = tuple(by_name[name] for name in kind.key_fields)
    return _key_fields[kind]


def check_key(kind: type[Record], key: Any) -> Key:
    """`key` if it is a whole key of `kind`. Raises InvalidRecord."""
    return _check_key_values(kind, key, whole=True)


def check_prefix(kind: type[Record], prefix: Any) -> Key:
    """`prefix` if it is the beginning of a key of `kind`; the whole key and `()` count. Raises InvalidRecord."""
    return _check_key_values(kind, prefix, whole=False)


def _checks_of(kind: type[Record | Account]) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    if kind not in _checks:
        _checks[kind] = tuple((name, CHECKS[field_type]) for name, field_type in fields_of(kind))
    return _checks[kind]


def _key_checks_of(kind: type[Record]) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    if kind not in _key_checks:
        _key_checks[kind] = tuple((name, CHECKS[field_type]) for name, field_type in key_fields_of(kind))
    return _key_checks[kind]


def _key_getter_of(kind: type[Record]) -> Callable[[Any], Key]:
    if kind not in _key_getters:
        _key_getters[kind] = values_getter(kind.key_fields)
    return _key_getters[kind]


def _check_fields(instance: Record | Account, kind_name: str) -> None:
    for name, check in _checks_of(type(instance)):
        given = getattr(instance, name)
        try:
            kept = check(given)
        except ValueError as error:
            raise InvalidRecord(kind_name, name, str(error)) from None
        if kept is not given:
            object.__setattr__(instance, name, kept)


def _check_key_values(kind: type[Record], values: Any, *, whole: bool) -> Key:
    expected = _key_checks_of(kind)
    if not isinstance(values, tuple):
        raise InvalidRecord(kind.kind_name, "key", f"must be a tuple, not {type(values).__name__}")
    if len(values) > len(expected) or (whole and len(values) < len(expected)):
        names = ", ".join(kind.key_fields) or "no fields"
        raise InvalidRecord(kind.kind_name, "key", f"has {len(values)} values; the kind's key is ({names})")
    for (name, check), value in zip(expected, values, strict=False):
        try:
            check(value)
        except ValueError as error:
            raise InvalidRecord(kind.kind_name, name, str(error)) from None
    return values
