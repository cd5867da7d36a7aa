"""Records: their keys, their checks, and what they never show."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from cryptostore import (
    KINDS,
    Account,
    Device,
    EncryptedRoom,
    FieldType,
    InvalidRecord,
    OlmAccount,
    OutboundGroupSession,
    Record,
    ReplayPage,
    SharedPart,
    Value,
    fields_of,
    key_fields_of,
    record_kind,
)
from cryptostore.records import check_key, check_prefix
from example_records import ALICE, SECRET, VALUES, example

#: One refused value for each field type.
BAD: dict[FieldType, Any] = {
    FieldType.IDENTIFIER: "",
    FieldType.PUBLIC_KEY: "",
    FieldType.TEXT: f"{SECRET}\0",
    FieldType.BYTES: SECRET,
    FieldType.FLAG: SECRET,
    FieldType.COUNT: -1,
    FieldType.TIME: SECRET,
    FieldType.NAMES: SECRET,
    FieldType.SCALARS: SECRET,
    FieldType.PAIRS: SECRET,
    FieldType.TRUST: SECRET,
}

every_kind = pytest.mark.parametrize("kind", KINDS)


def test_kinds_have_names_and_numbers_of_their_own() -> None:
    assert len({kind.kind_name for kind in KINDS}) == len(KINDS)
    assert [kind.kind_number for kind in KINDS] == sorted({kind.kind_number for kind in KINDS})


@pytest.mark.parametrize("number", [0, 255, 256, -1, OlmAccount.kind_number])
def test_a_number_that_is_taken_or_out_of_range_makes_no_kind(number: int) -> None:
    with pytest.raises(ValueError, match=f"the kind number {number} of Late is taken"):

        @record_kind
        class Late(Record):
            kind_number = number
            kind_name = "late"
            key_fields = ()


@every_kind
def test_every_field_is_declared(kind: type[Record]) -> None:
    assert [field.name for field in dataclasses.fields(kind)] == [name for name, _ in fields_of(kind)]


@every_kind
def test_key_fields_are_identifiers_or_counts(kind: type[Record]) -> None:
    assert [name for name, _ in key_fields_of(kind)] == list(kind.key_fields)
    assert {field_type for _, field_type in key_fields_of(kind)} <= {
        FieldType.IDENTIFIER,
        FieldType.PUBLIC_KEY,
        FieldType.COUNT,
    }


@every_kind
def test_key_holds_the_key_fields(kind: type[Record]) -> None:
    assert example(kind).key == tuple(VALUES[field_type] for _, field_type in key_fields_of(kind))


@every_kind
def test_records_are_frozen(kind: type[Record]) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(example(kind), fields_of(kind)[0].name, None)


@every_kind
def test_records_are_values(kind: type[Record]) -> None:
    record = example(kind)
    assert {record, example(kind)} == {record}
    assert pickle.loads(pickle.dumps(record)) == copy.copy(record) == record


@every_kind
def test_repr_shows_the_key_and_nothing_else(kind: type[Record]) -> None:
    record = example(kind)
    assert SECRET not in repr(record)
    assert repr(record).startswith(f"{kind.__name__}(")
    assert all(f"{name}=" in repr(record) for name in kind.key_fields)


@pytest.mark.parametrize(("kind", "field"), [(kind, field) for kind in KINDS for field in fields_of(kind)])
def test_an_offending_field_is_named_and_its_value_is_not(kind: type[Record], field: tuple[str, FieldType]) -> None:
    name, field_type = field
    with pytest.raises(InvalidRecord) as caught:
        example(kind, **{name: BAD[field_type]})
    assert (caught.value.kind, caught.value.field) == (kind.kind_name, name)
    assert str(caught.value) == f"{kind.kind_name}.{name} {caught.value.reason}"
    assert SECRET not in str(caught.value)


def test_values_are_kept_in_the_form_of_their_type() -> None:
    room = EncryptedRoom("!r:x", {"algorithm": "m.megolm.v1.aes-sha2"})
    assert hash(room) == hash(EncryptedRoom("!r:x", dict(room.settings)))
    with pytest.raises(TypeError):
        room.settings["algorithm"] = "none"  # type: ignore[index]  # the type forbids it, too


def test_defaults_are_valid() -> None:
    assert Device("@a:x", "D") == Device("@a:x", "D", {}, "", False)
    assert OlmAccount(b"") == OlmAccount(b"", False)
    time = VALUES[FieldType.TIME]
    assert OutboundGroupSession("!r:x", b"", time) == OutboundGroupSession("!r:x", b"", time, 0, False, 0)
    assert SharedPart("!r:x", "s", 0) == SharedPart("!r:x", "s", 0, frozenset(), [])  # type: ignore[arg-type]  # a list is taken, too


def test_an_account_is_checked_like_a_record() -> None:
    assert str(ALICE) == "@alice:example.org ALICEDEVICE"
    with pytest.raises(InvalidRecord, match=r"^account\.device_id must not be empty$"):
        Account("@alice:example.org", "")


@pytest.mark.parametrize("key", [(), ("s",), ("s", "k"), ("s", "k", 3)])
def test_beginnings_of_a_key_are_prefixes(key: tuple[str | int, ...]) -> None:
    assert check_prefix(ReplayPage, key) == key


def test_a_whole_key_is_accepted() -> None:
    assert check_key(ReplayPage, ("s", "k", 3)) == ("s", "k", 3)
    assert check_key(OlmAccount, ()) == ()


@pytest.mark.parametrize(
    ("kind", "key", "reason"),
    [
        (Value, ["a", "b"], "value.key must be a tuple, not list"),
        (Value, "ab", "value.key must be a tuple, not str"),
        (Value, ("a",), "value.key has 1 values; the kind's key is (namespace, name)"),
        (Value, ("a", "b", "c"), "value.key has 3 values; the kind's key is (namespace, name)"),
        (OlmAccount, ("a",), "olm_account.key has 1 values; the kind's key is (no fields)"),
        (Value, ("a", ""), "value.name must not be empty"),
        (ReplayPage, ("s", "k", "3"), "replay_page.page must be an integer, not str"),
    ],
)
def test_what_is_no_key_is_refused(kind: type[Record], key: Any, reason: str) -> None:
    with pytest.raises(InvalidRecord) as caught:
        check_key(kind, key)
    assert str(caught.value) == reason


def test_a_prefix_is_checked_like_a_key() -> None:
    with pytest.raises(InvalidRecord, match=r"^replay_page\.session_id must not be empty$"):
        check_prefix(ReplayPage, ("",))
    with pytest.raises(InvalidRecord, match="has 4 values"):
        check_prefix(ReplayPage, ("s", "k", 3, 4))
