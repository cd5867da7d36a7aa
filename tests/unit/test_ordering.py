"""What the core makes sure of in a backend's answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptostore import BackendInvalid, Range, Row
from cryptostore.store.keys import range_of
from cryptostore.store.ordering import checked_rows, merged, only_wanted


def rows(*keys: bytes) -> list[Row]:
    return [Row(key, b"value") for key in keys]


def test_rows_that_were_asked_for_pass() -> None:
    answer = rows(b"b", b"a")
    assert list(only_wanted({b"a", b"b", b"c"}, answer)) == answer


@pytest.mark.parametrize("answer", [rows(b"x"), rows(b"a", b"a")])
def test_a_row_that_was_not_asked_for_or_comes_twice_is_refused(answer: list[Row]) -> None:
    with pytest.raises(BackendInvalid, match="a row that was not asked for, or one twice"):
        list(only_wanted({b"a"}, answer))


def test_rows_in_order_and_in_their_ranges_pass() -> None:
    answer = rows(b"a1", b"a2", b"c1", b"d")
    assert list(checked_rows(answer, [range_of(b"a"), range_of(b"b"), range_of(b"c"), Range(b"d", None)])) == answer
    assert list(checked_rows([], [])) == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (rows(b"a2", b"a1"), "out of order"),
        (rows(b"a1", b"a1"), "out of order, or one twice"),
        (rows(b"b"), "not asked for"),
        (rows(b"a", b"bb"), "not asked for"),
        (rows(b"a", b"d"), "not asked for"),
    ],
)
def test_other_rows_are_refused(answer: list[Row], message: str) -> None:
    with pytest.raises(BackendInvalid, match=message):
        list(checked_rows(answer, [range_of(b"a"), range_of(b"c")]))


prefixes = st.lists(st.binary(max_size=3), max_size=8)


@given(prefixes, st.binary(max_size=4))
def test_merged_ranges_hold_the_same_keys_and_do_not_overlap(given_prefixes: list[bytes], key: bytes) -> None:
    disjoint = merged(range_of(prefix) for prefix in given_prefixes)
    holding = [each for each in disjoint if each.start <= key and (each.end is None or key < each.end)]
    assert len(holding) == any(key.startswith(prefix) for prefix in given_prefixes)
    assert disjoint == sorted(disjoint, key=lambda each: each.start)
