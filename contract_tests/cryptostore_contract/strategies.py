"""Hypothesis strategies for records and keys, derived from the declarations of the record kinds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta, timezone
from typing import Any, Final, TypeVar

from hypothesis import strategies as st

from cryptostore import Account, DeviceTrust, FieldType, Key, Record, fields_of, key_fields_of

R = TypeVar("R", bound=Record)

_characters: Final = st.characters(codec="utf-8", exclude_characters="\0")

#: Few letters, so that one key is often the beginning of another, and the neighbours of every comparison rule.
_near_misses: Final = st.text(st.sampled_from("aAbÄäe\u0301%_ "), min_size=1, max_size=4)

texts: Final = st.text(_characters, max_size=40)

identifiers: Final = _near_misses | st.text(_characters, min_size=1, max_size=63)

_zones: Final = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)

_json_integers: Final = st.integers(-(2**53) + 1, 2**53 - 1)

_BY_TYPE: Final[Mapping[FieldType, st.SearchStrategy[Any]]] = {
    FieldType.IDENTIFIER: identifiers,
    FieldType.TEXT: texts,
    FieldType.BYTES: st.binary(max_size=200),
    FieldType.FLAG: st.booleans(),
    FieldType.COUNT: st.integers(0, 2**63 - 1),
    FieldType.INTEGER: st.integers(-(2**63), 2**63 - 1),
    FieldType.TIME: st.datetimes(timezones=_zones).filter(lambda time: 1 < time.year < 9999),
    FieldType.NAMES: st.lists(texts, max_size=5),
    FieldType.SCALARS: st.dictionaries(texts, st.none() | st.booleans() | _json_integers | texts, max_size=5),
    FieldType.PAIRS: st.frozensets(st.tuples(texts, texts), max_size=5),
    FieldType.TRUST: st.sampled_from(DeviceTrust),
}


def accounts() -> st.SearchStrategy[Account]:
    """Any account."""
    return st.builds(Account, identifiers, identifiers)


def keys(kind: type[Record]) -> st.SearchStrategy[Key]:
    """Any whole key of a kind."""
    return st.tuples(*[_BY_TYPE[field_type] for _, field_type in key_fields_of(kind)])


def records(kind: type[R]) -> st.SearchStrategy[R]:
    """Any record of a kind."""
    return st.builds(kind, **{name: _BY_TYPE[field_type] for name, field_type in fields_of(kind)})


def batches(kind: type[R], max_size: int = 12) -> st.SearchStrategy[list[R]]:
    """Records of a kind that fit in one batch: no key twice."""
    return st.lists(records(kind), max_size=max_size, unique_by=lambda record: record.key)
