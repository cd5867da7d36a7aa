"""A valid value of every field type, and with them a record of every kind."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from cryptostore import Account, DeviceTrust, FieldType, Record, fields_of

R = TypeVar("R", bound=Record)

#: Shows up in no message and no repr.
SECRET: Final = "canary-4f1d"

ALICE: Final = Account("@alice:example.org", "ALICEDEVICE")

VALUES: Final[Mapping[FieldType, Any]] = {
    FieldType.IDENTIFIER: "!id:example.org",
    FieldType.PUBLIC_KEY: "bcgRWDIV4hc1Ugfb81ZDjvWpAZNUdNQ3Hi9AUGk8SU4",
    FieldType.TEXT: SECRET,
    FieldType.BYTES: SECRET.encode(),
    FieldType.FLAG: True,
    FieldType.COUNT: 7,
    FieldType.TIME: datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC),
    FieldType.NAMES: (SECRET, "second"),
    FieldType.SCALARS: {"name": SECRET, "count": 1, "flag": False, "nothing": None},
    FieldType.PAIRS: frozenset({("@bob:example.org", SECRET)}),
    FieldType.TRUST: DeviceTrust.VERIFIED,
}


def example(kind: type[R], **fields: Any) -> R:
    """A record of `kind`; `fields` replace the usual values."""
    return kind(**{name: VALUES[field_type] for name, field_type in fields_of(kind)} | fields)
