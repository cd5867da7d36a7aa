"""What was ever written can be read for ever, and today's bytes are those of the release."""

from __future__ import annotations

from dataclasses import fields
from typing import Final

import pytest

import golden_values
from cryptostore import KINDS, Record
from cryptostore.store.keys import decode_key, encode_own_key
from cryptostore.store.values import decode_value, encode_value
from example_records import example

GOLDEN: Final = golden_values.load()


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_of_a_kind_can_be_read(kind: type[Record]) -> None:
    for number, golden in GOLDEN[kind.kind_name].items():
        # A field that was added later has its default in an older format.
        added = {
            field.name: field.default for field in fields(kind) if field.name in kind.added_fields[int(number) - 1 :]
        }
        record = example(kind, **added)
        key = decode_key(kind, bytes.fromhex(golden["key"]))
        assert key == record.key
        assert decode_value(kind, key, bytes.fromhex(golden["value"])) == record


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_has_a_golden_value(kind: type[Record]) -> None:
    assert set(GOLDEN[kind.kind_name]) == {str(number) for number in range(1, len(kind.added_fields) + 2)}
    assert kind.format_number == len(kind.added_fields) + 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_present_format_writes_the_same_bytes(kind: type[Record]) -> None:
    golden = GOLDEN[kind.kind_name][str(kind.format_number)]
    record = example(kind)
    assert (encode_own_key(record).hex(), encode_value(record).hex()) == (golden["key"], golden["value"])


def test_no_golden_value_is_of_a_kind_that_is_gone() -> None:
    assert set(GOLDEN) == {kind.kind_name for kind in KINDS}
