"""How a failure tells what is wrong with records."""

from __future__ import annotations

import pytest

from cryptostore import KINDS, OlmAccount, SyncToken, Value
from cryptostore_contract.comparing import explained
from cryptostore_contract.samples import one_of_each, sample

_SECRET = "a secret"  # as a value has one


def test_a_difference_is_told_by_kind_key_and_field_and_without_the_value() -> None:
    found = {SyncToken: [SyncToken(_SECRET)], Value: [Value("n", "one", _SECRET.encode()), sample(Value, 2)]}
    expected = {SyncToken: [SyncToken("other")], Value: [Value("n", "one", b"other"), sample(Value, 3)]}
    lines = explained(found, expected)
    assert lines is not None
    assert f"the {SyncToken.kind_name} differs in token" in lines
    assert f"{Value.kind_name} ('n', 'one') differs in value" in lines
    assert len([line for line in lines if line.endswith("is missing")]) == 1
    assert len([line for line in lines if line.endswith("was not expected")]) == 1
    assert _SECRET not in "".join(lines)


def test_the_order_and_what_comes_twice_are_told() -> None:
    one, two = sample(Value, 1), sample(Value, 2)
    in_another_order = "the same records, in another order or under other keys"
    assert explained([one, two], [two, one]) == ["records differ", in_another_order]
    lines = explained([one, one], [one])
    assert lines is not None
    assert lines[1].endswith("comes 2 times")


def test_not_all_of_many_differences_are_told() -> None:
    lines = explained(one_of_each(1), one_of_each(2) * 2)
    assert lines is not None
    assert len(lines) <= 22
    assert len(KINDS) > 10


@pytest.mark.parametrize("sides", [(1, 2), ([], []), ({"a": 1}, {"a": 2}), ([sample(OlmAccount), 1], [])])
def test_what_is_no_record_is_left_to_pytest(sides: tuple[object, object]) -> None:
    assert explained(*sides) is None
