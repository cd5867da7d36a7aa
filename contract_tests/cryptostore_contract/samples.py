"""Records to store: plain numbered ones, derived from the fields' declarations, and the keys of their accounts."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from cryptostore import KINDS, Account, DeviceTrust, FieldType, Record, fields_of
from cryptostore.store.keys import encode_own_key

R = TypeVar("R", bound=Record)

ALICE: Final = Account("@alice:example.org", "ALICEDEVICE")
BOB: Final = Account("@bob:example.org", "BOBDEVICE")

#: The pickle key of every account: a generated one, so that opening a store costs no scrypt. It never changes, since
#: golden databases are sealed with it.
KEY: Final = "csk1_zmngwv6yeaqkmwoctzrlzlvqy7opbjnv6cmtk26v3nqacb5xabpaaii6j4"

#: 255 bytes, the last four of them one character.
LONGEST_IDENTIFIER: Final = "é" * 125 + "x" + "\U0001d56c"

#: Valid identifiers that few databases like.
IDENTIFIERS: Final = (
    "!",
    " ",
    " spaces around ",
    "\t\n\r",
    "\x01\x1f\x7f\x80\x9f",
    "\ufeff\u200b\u202e\ufffd\uffff\U0010ffff",
    "aß\u0905\U0001d56ce\u0301",
    "'\"`;--\\%_*?[]{}$1:name",
    '{"json": [null]}',
    LONGEST_IDENTIFIER,
)

_TIME: Final = datetime(2024, 2, 29, 23, 59, 59, 999_999, UTC)


def public_key(name: str, number: int) -> str:
    """A public key; those of one name are in the order of their numbers."""
    raw = name.encode().ljust(24, b"-")[:24] + number.to_bytes(8, "big")
    return binascii.b2a_base64(raw, newline=False).decode().rstrip("=")


_NUMBERED: Final[Mapping[FieldType, Callable[[str, int], Any]]] = {
    FieldType.IDENTIFIER: lambda name, number: f"{name}-{number:08}",
    FieldType.PUBLIC_KEY: public_key,
    FieldType.TEXT: lambda name, number: f"{name} {number}",
    FieldType.BYTES: lambda name, number: f"{name} {number}".encode(),
    FieldType.FLAG: lambda _name, number: number % 2 == 1,
    FieldType.COUNT: lambda _name, number: number,
    FieldType.TIME: lambda _name, number: _TIME + timedelta(seconds=number),
    FieldType.NAMES: lambda name, number: (f"{name} {number}", f"{name} 0"),
    FieldType.SCALARS: lambda name, number: {name: number, "text": f"{number}", "flag": True, "none": None},
    FieldType.PAIRS: lambda name, number: {(f"@{name}:{number}", "D1"), (f"@{name}:{number}", "D2")},
    FieldType.TRUST: lambda _name, number: list(DeviceTrust)[number % len(DeviceTrust)],
}


def sample(kind: type[R], number: int = 1, /, **fields: Any) -> R:
    """The numbered record of a kind: other numbers give other keys and other values."""
    numbered = {name: _NUMBERED[field_type](name, number) for name, field_type in fields_of(kind)}
    return kind(**numbered | fields)


def samples(kind: type[R], count: int) -> list[R]:
    """Records of one kind, in key order; only one of a kind of which an account has one."""
    return [sample(kind, number) for number in range(1, count + 1 if kind.key_fields else 2)]


def one_of_each(number: int = 1) -> list[Record]:
    """A record of every kind."""
    return [sample(kind, number) for kind in KINDS]


def changed(record: R, number: int) -> R:
    """A record with the same key, and the other fields of another number."""
    return replace(sample(type(record), number), **{name: getattr(record, name) for name in record.key_fields})


def exact(record: Record) -> tuple[object, ...]:
    """All of a record for a strict comparison: plain equality takes True for 1 in a mapping."""
    values = [getattr(record, name) for name, _ in fields_of(type(record))]
    return (type(record), *[_exact(value) for value in values])


def _exact(value: Any) -> object:
    if isinstance(value, Mapping):
        return sorted((name, type(item), item) for name, item in value.items())
    if isinstance(value, frozenset):
        # Equal sets may list their members in different orders, and so have different reprs.
        return frozenset, sorted(value)
    return type(value), value


def in_key_order(records: Iterable[R]) -> list[R]:
    """Records in the order that the interface promises."""
    return sorted(records, key=encode_own_key)
