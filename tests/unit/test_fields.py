"""What each field type accepts, keeps and refuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from types import MappingProxyType
from typing import Any

import pytest
from immutabledict import immutabledict

from cryptostore import DeviceTrust, FieldType
from cryptostore.records.fields import CHECKS, MAX_VALUE_LENGTH, NO_SCALARS

ODD_HOUR = timezone(timedelta(hours=5, minutes=30))

ACCEPTED: list[tuple[FieldType, Any]] = [
    (FieldType.IDENTIFIER, "a"),
    (FieldType.IDENTIFIER, "a" * 255),
    (FieldType.IDENTIFIER, "é" * 127),
    (FieldType.IDENTIFIER, " %_\\'\"\n"),
    (FieldType.PUBLIC_KEY, "a key that is no base64"),
    (FieldType.TEXT, ""),
    (FieldType.TEXT, "\U0001f512" * 100_000),
    (FieldType.BYTES, b""),
    (FieldType.BYTES, bytes(range(256))),
    (FieldType.FLAG, True),
    (FieldType.FLAG, False),
    (FieldType.COUNT, 0),
    (FieldType.COUNT, 2**63 - 1),
    (FieldType.TIME, datetime.max.replace(tzinfo=UTC)),
    (FieldType.TIME, datetime.min.replace(tzinfo=UTC)),
    (FieldType.NAMES, ()),
    (FieldType.NAMES, ("b", "a", "b")),
    (FieldType.SCALARS, NO_SCALARS),
    (FieldType.PAIRS, frozenset()),
    (FieldType.TRUST, DeviceTrust.IGNORED),
]


@pytest.mark.parametrize(("field_type", "value"), ACCEPTED)
def test_accepted_values_are_kept_as_they_are(field_type: FieldType, value: Any) -> None:
    assert CHECKS[field_type](value) == value


@pytest.mark.parametrize(
    ("field_type", "given_value", "kept"),
    [
        (FieldType.TIME, datetime(2024, 1, 1, 5, 30, tzinfo=ODD_HOUR), datetime(2024, 1, 1, tzinfo=UTC)),
        (FieldType.NAMES, ["b", "a"], ("b", "a")),
        (FieldType.SCALARS, {"a": 1}, immutabledict({"a": 1})),
        (FieldType.SCALARS, MappingProxyType({"a": None}), immutabledict({"a": None})),
        (FieldType.PAIRS, [["@u:x", "D"], ("@u:x", "D")], frozenset({("@u:x", "D")})),
        (FieldType.TRUST, "blacklisted", DeviceTrust.BLACKLISTED),
    ],
)
def test_equivalent_values_take_one_form(field_type: FieldType, given_value: Any, kept: Any) -> None:
    result = CHECKS[field_type](given_value)
    assert result == kept
    assert type(result) is type(kept)


def test_times_are_kept_in_utc() -> None:
    assert CHECKS[FieldType.TIME](datetime(2024, 1, 1, tzinfo=ODD_HOUR)).tzinfo is UTC


class Undecided(tzinfo):
    """A time zone that does not know its offset, which makes a time naive."""

    def utcoffset(self, _: datetime | None) -> None:
        return None

    def dst(self, _: datetime | None) -> None:
        return None

    def tzname(self, _: datetime | None) -> None:
        return None


REFUSED: list[tuple[FieldType, Any, str]] = [
    (FieldType.IDENTIFIER, "", "must not be empty"),
    (FieldType.PUBLIC_KEY, "", "must not be empty"),
    (FieldType.IDENTIFIER, "secret" * 43, "must be at most 255 UTF-8 bytes, not 258"),
    (FieldType.IDENTIFIER, "é" * 128, "must be at most 255 UTF-8 bytes, not 256"),
    (FieldType.IDENTIFIER, "secret\0", "must not contain NUL"),
    (FieldType.IDENTIFIER, "secret\udc80", "must not contain lone surrogates"),
    (FieldType.IDENTIFIER, b"secret", "must be text, not bytes"),
    (FieldType.TEXT, "secret\0", "must not contain NUL"),
    (FieldType.TEXT, "secret\ud800", "must not contain lone surrogates"),
    (FieldType.TEXT, None, "must be text, not NoneType"),
    (FieldType.BYTES, "secret", "must be bytes, not str"),
    (FieldType.BYTES, bytearray(b"secret"), "must be bytes, not bytearray"),
    (FieldType.FLAG, 1, "must be true or false, not int"),
    (FieldType.COUNT, -1, "must be between 0 and 9223372036854775807"),
    (FieldType.COUNT, 2**63, "must be between 0 and 9223372036854775807"),
    (FieldType.COUNT, True, "must be an integer, not bool"),
    (FieldType.COUNT, 1.0, "must be an integer, not float"),
    (FieldType.TIME, 0, "must be a datetime, not int"),
    (FieldType.TIME, datetime(2024, 1, 1), "must be an aware datetime, with a time zone"),  # noqa: DTZ001  # the point
    (FieldType.TIME, datetime(2024, 1, 1, tzinfo=Undecided()), "must be an aware datetime, with a time zone"),
    (FieldType.TIME, datetime.min.replace(tzinfo=ODD_HOUR), "must be a time that UTC can express"),
    (FieldType.NAMES, "secret", "must be a list or tuple of texts, not str"),
    (FieldType.NAMES, ["secret", 1], "must be text, not int"),
    (FieldType.SCALARS, [("a", 1)], "must be a mapping, not list"),
    (FieldType.SCALARS, {1: "secret"}, "must be text, not int"),
    (FieldType.SCALARS, {"secret": 1.5}, "must be text, not float"),
    (FieldType.SCALARS, {"secret": 2**53}, "must be between -9007199254740991 and 9007199254740991"),
    (FieldType.SCALARS, {"secret": {"nested": 1}}, "must be text, not dict"),
    (FieldType.PAIRS, "secret", "must be a set of pairs, not str"),
    (FieldType.PAIRS, [("secret",)], "must hold (user id, device id) pairs only"),
    (FieldType.PAIRS, ["ab"], "must hold (user id, device id) pairs only"),
    (FieldType.PAIRS, [("secret", 1)], "must be text, not int"),
    (FieldType.TRUST, "secret", "must be one of unset, verified, blacklisted, ignored"),
    (FieldType.TRUST, ["secret"], "must be one of unset, verified, blacklisted, ignored"),
]


@pytest.mark.parametrize(("field_type", "value", "reason"), REFUSED)
def test_refused_values_are_not_quoted(field_type: FieldType, value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        CHECKS[field_type](value)
    assert str(caught.value) == reason
    # A traceback would print the codec's error, too, and that one quotes the text.
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_no_value_is_longer_than_any_database_takes() -> None:
    longest = bytes(MAX_VALUE_LENGTH)
    assert CHECKS[FieldType.BYTES](longest) is longest
    for field_type, value in ((FieldType.BYTES, longest + b"x"), (FieldType.TEXT, "x" * (MAX_VALUE_LENGTH + 1))):
        with pytest.raises(ValueError, match=f"must be at most {MAX_VALUE_LENGTH} .*, not {MAX_VALUE_LENGTH + 1}"):
            CHECKS[field_type](value)


def test_every_field_type_has_a_refused_value() -> None:
    assert {field_type for field_type, _, _ in REFUSED} == set(FieldType)
