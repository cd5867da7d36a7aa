"""Records to store: plain numbered ones, and every kind of extreme value, all derived from the fields' declarations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final, TypeVar

from cryptostore import KINDS, Account, DeviceTrust, FieldType, Record, fields_of

R = TypeVar("R", bound=Record)

ALICE: Final = Account("@alice:example.org", "ALICEDEVICE")
BOB: Final = Account("@bob:example.org", "BOBDEVICE")

#: One character of each UTF-8 length, and a combining one.
_UNICODE: Final = "aß\u0905\U0001d56ce\u0301"

#: 255 bytes, the last of them inside a character of four.
LONGEST_IDENTIFIER: Final = "é" * 125 + "x" + "\U0001d56c"

_EPOCH: Final = datetime(2024, 2, 29, 23, 59, 59, 999_999, UTC)

_NUMBERED: Final[Mapping[FieldType, Callable[[str, int], Any]]] = {
    FieldType.IDENTIFIER: lambda name, number: f"{name}-{number:08}",
    FieldType.TEXT: lambda name, number: f"{name} {number}",
    FieldType.BYTES: lambda name, number: f"{name} {number}".encode(),
    FieldType.FLAG: lambda _name, number: number % 2 == 1,
    FieldType.COUNT: lambda _name, number: number,
    FieldType.INTEGER: lambda _name, number: -number,
    FieldType.TIME: lambda _name, number: _EPOCH + timedelta(seconds=number),
    FieldType.NAMES: lambda name, number: (f"{name} {number}", f"{name} 0"),
    FieldType.SCALARS: lambda name, number: {name: number, "text": f"{number}", "flag": True, "none": None},
    FieldType.PAIRS: lambda name, number: {(f"@{name}:{number}", "D1"), (f"@{name}:{number}", "D2")},
    FieldType.TRUST: lambda _name, number: list(DeviceTrust)[number % len(DeviceTrust)],
}

EXTREMES: Final[Mapping[FieldType, tuple[Any, ...]]] = {
    FieldType.IDENTIFIER: (
        "!",
        " ",
        " spaces around ",
        "\t\n\r",
        "\x01\x1f\x7f\x80\x9f",
        "\ufeff\u200b\u202e\ufffd\uffff\U0010ffff",
        _UNICODE,
        "'\"`;--\\%_*?[]{}$1:name",
        '{"json": [null]}',
        LONGEST_IDENTIFIER,
    ),
    FieldType.TEXT: ("", " ", "\t\n\r\x01\x7f\x80", _UNICODE, "'\"\\%_", "\ufeff\U0010ffff", "x" * 100_000),
    FieldType.BYTES: (b"", b"\0", bytes(range(256)), b"\0" * 1_000, b"\\x00\\", b"'; --", "ß".encode("latin-1")),
    FieldType.FLAG: (False, True),
    FieldType.COUNT: (0, 1, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1),
    FieldType.INTEGER: (0, -1, 2**31, -(2**31) - 1, 2**53 + 1, 2**63 - 1, -(2**63)),
    FieldType.TIME: (
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1, 1, 1, 0, 0, 0, 1, UTC),
        datetime(1582, 10, 10, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC),
        datetime(2024, 3, 31, 2, 30, 0, 123_457, timezone(timedelta(hours=5, minutes=45))),
        datetime(2024, 1, 1, 0, 0, 0, 1, timezone(-timedelta(hours=11, minutes=59, seconds=59))),
    ),
    FieldType.NAMES: ((), ("",), ("b", "a", "b"), (_UNICODE, "'\"\\%_", "\n\x01"), tuple(map(str, range(1_000)))),
    FieldType.SCALARS: (
        {},
        {"": ""},
        {"b": 1, "a": 2},
        {"a": None, "b": True, "c": False, "d": 0, "e": "0", "f": "null", "g": "true"},
        {"most": 2**53 - 1, "least": -(2**53) + 1},
        {_UNICODE: _UNICODE, "'\"\\%_\n": '{"a": [1]}'},
    ),
    FieldType.PAIRS: (
        frozenset(),
        {("", "")},
        {("@a:b", "C"), ("@a:b", "c"), ("@A:b", "C")},
        {(_UNICODE, "'\"\\"), ("\n", "\x01")},
        {(f"@user{number}:example.org", "DEVICE") for number in range(500)},
    ),
    FieldType.TRUST: tuple(DeviceTrust),
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


def extremes(kind: type[R]) -> Iterator[R]:
    """A record for each extreme value of each field, under keys of their own."""
    number = 0
    for name, field_type in fields_of(kind):
        for value in EXTREMES[field_type]:
            number += 1
            yield sample(kind, number, **{name: value})


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
    return sorted(records, key=lambda record: [v.encode() if isinstance(v, str) else v for v in record.key])
