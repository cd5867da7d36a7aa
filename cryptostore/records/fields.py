"""The types that a record's fields may have, and the checks that make every backend refuse the same values."""

from __future__ import annotations

import enum
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Annotated, Any, Final, NamedTuple

from immutabledict import immutabledict

#: An identifier's greatest length in UTF-8 bytes (Matrix specification, appendix "Identifier grammar").
MAX_IDENTIFIER_BYTES: Final = 255

#: The greatest length of one text or bytes field: no database takes values of any size.
MAX_VALUE_LENGTH: Final = 4 * 1024 * 1024

#: The greatest count: what databases keep in 8 bytes with a sign.
MAX_COUNT: Final = 2**63 - 1

#: The greatest integer that canonical JSON allows (Matrix specification, appendix "Canonical JSON").
MAX_JSON_INTEGER: Final = 2**53 - 1

Scalar = str | int | bool | None

#: An empty mapping, for fields that default to one.
NO_SCALARS: Final[Mapping[str, Scalar]] = immutabledict()


class DeviceTrust(enum.StrEnum):
    """What the account's owner decided about another device."""

    #: Nothing was decided.
    UNSET = "unset"
    #: The owner made sure that the device's keys are its user's.
    VERIFIED = "verified"
    #: The device gets no room keys.
    BLACKLISTED = "blacklisted"
    #: The device gets room keys, although it was not verified.
    IGNORED = "ignored"


class FieldType(enum.Enum):
    """How a field's values look."""

    IDENTIFIER = "1 to 255 UTF-8 bytes without NUL or lone surrogates"
    PUBLIC_KEY = "an identifier, usually 32 bytes in unpadded base64: a Curve25519 or Ed25519 key, or a hash"
    TEXT = "text of up to 4 Mi characters without NUL or lone surrogates, may be empty"
    BYTES = "any bytes, up to 4 MiB"
    FLAG = "true or false"
    COUNT = "an integer from 0 to 2^63 - 1"
    TIME = "an aware time, kept in UTC with microseconds"
    NAMES = "an ordered sequence of texts"
    SCALARS = "a mapping of texts to texts, integers of canonical JSON, booleans or None"
    PAIRS = "a set of (user id, device id) pairs"
    TRUST = "a device trust"


Identifier = Annotated[str, FieldType.IDENTIFIER]
PublicKey = Annotated[str, FieldType.PUBLIC_KEY]
Text = Annotated[str, FieldType.TEXT]
Bytes = Annotated[bytes, FieldType.BYTES]
Flag = Annotated[bool, FieldType.FLAG]
Count = Annotated[int, FieldType.COUNT]
Time = Annotated[datetime, FieldType.TIME]
Names = Annotated[tuple[str, ...], FieldType.NAMES]
Scalars = Annotated[Mapping[str, Scalar], FieldType.SCALARS]
Pairs = Annotated[frozenset[tuple[str, str]], FieldType.PAIRS]
Trust = Annotated[DeviceTrust, FieldType.TRUST]

_FIRST_DAY: Final = datetime.fromtimestamp(0, UTC)


class Field(NamedTuple):
    """One field of a record kind."""

    name: str
    type: FieldType


def day_of(time: datetime) -> int:
    """The day of a time, counted from 1970 (UTC); 0 for one before."""
    return max(0, (time - _FIRST_DAY).days)


def declared_fields(cls: type) -> tuple[Field, ...]:
    """The annotated fields of `cls` in the order of their declaration."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return tuple(Field(name, hint.__metadata__[0]) for name, hint in hints.items() if hasattr(hint, "__metadata__"))


def values_getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """What returns the values of these fields of an object."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda instance: tuple([getattr(instance, name) for name in names])


def _identifier(value: Any) -> str:
    # Nearly all are such texts, and every record that is made or looked up has some.
    if type(value) is str and value.isascii() and 0 < len(value) <= MAX_IDENTIFIER_BYTES and "\0" not in value:
        return value
    text = _text(value)
    size = len(text.encode())
    if size == 0:
        raise ValueError("must not be empty")
    if size > MAX_IDENTIFIER_BYTES:
        raise ValueError(f"must be at most {MAX_IDENTIFIER_BYTES} UTF-8 bytes, not {size}")
    return text


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {type(value).__name__}")
    if len(value) > MAX_VALUE_LENGTH:
        raise ValueError(f"must be at most {MAX_VALUE_LENGTH} characters, not {len(value)}")
    if "\0" in value:
        raise ValueError("must not contain NUL")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            # The codec's error quotes the whole text, which may be a secret.
            raise ValueError("must not contain lone surrogates") from None
    return value


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError(f"must be bytes, not {type(value).__name__}")
    if len(value) > MAX_VALUE_LENGTH:
        raise ValueError(f"must be at most {MAX_VALUE_LENGTH} bytes, not {len(value)}")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {type(value).__name__}")
    return value


def _integer_between(lowest: int, highest: int) -> Callable[[Any], int]:
    def check_integer(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"must be an integer, not {type(value).__name__}")
        if not lowest <= value <= highest:
            raise ValueError(f"must be between {lowest} and {highest}")
        return value

    return check_integer


_json_integer = _integer_between(-MAX_JSON_INTEGER, MAX_JSON_INTEGER)


def _time(value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise ValueError(f"must be a datetime, not {type(value).__name__}")
    if value.tzinfo is UTC:
        return value
    if value.utcoffset() is None:
        raise ValueError("must be an aware datetime, with a time zone")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time that UTC can express") from None


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"must be a list or tuple of texts, not {type(value).__name__}")
    return tuple(_text(name) for name in value)


def _scalar(value: Any) -> Scalar:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return _json_integer(value)
    return _text(value)


def _scalars(value: Any) -> immutabledict[str, Scalar]:
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a mapping, not {type(value).__name__}")
    return immutabledict({_text(name): _scalar(item) for name, item in value.items()})


def _pairs(value: Any) -> frozenset[tuple[str, str]]:
    if not isinstance(value, (set, frozenset, list, tuple)):
        raise ValueError(f"must be a set of pairs, not {type(value).__name__}")
    return frozenset(_pair(item) for item in value)


def _pair(value: Any) -> tuple[str, str]:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError("must hold (user id, device id) pairs only")
    return _text(value[0]), _text(value[1])


def _trust(value: Any) -> DeviceTrust:
    try:
        return DeviceTrust(value)
    except ValueError:
        raise ValueError(f"must be one of {', '.join(DeviceTrust)}") from None


#: For each type what returns a value in the form that records keep it in, or raises ValueError with a reason that does
#: not quote the value.
CHECKS: Final[Mapping[FieldType, Callable[[Any], Any]]] = {
    FieldType.IDENTIFIER: _identifier,
    FieldType.PUBLIC_KEY: _identifier,
    FieldType.TEXT: _text,
    FieldType.BYTES: _bytes,
    FieldType.FLAG: _flag,
    FieldType.COUNT: _integer_between(0, MAX_COUNT),
    FieldType.TIME: _time,
    FieldType.NAMES: _names,
    FieldType.SCALARS: _scalars,
    FieldType.PAIRS: _pairs,
    FieldType.TRUST: _trust,
}
