"""Containers that say what was changed in them."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

import pytest

from cryptostore.nio.client.noting import NotingDict, NotingSet

Change = Callable[[NotingSet], object]

CHANGES: dict[str, Change] = {
    "add": lambda users: users.add("d"),
    "discard": lambda users: users.discard("a"),
    "remove": lambda users: users.remove("a"),
    "pop": lambda users: users.pop(),
    "clear": lambda users: users.clear(),
    "update": lambda users: users.update(iter(["d", "e"]), ["f"]),
    "difference": lambda users: users.difference_update(iter(["a", "b"]), ["c"]),
    "intersection": lambda users: users.intersection_update(["a", "b"], ["b"]),
    "symmetric difference": lambda users: users.symmetric_difference_update(iter(["a", "d"])),
    "|=": lambda users: users.__ior__({"d", "e"}),
    "-=": lambda users: users.__isub__({"a", "b"}),
    "&=": lambda users: users.__iand__({"a"}),
    "^=": lambda users: users.__ixor__({"a", "d"}),
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_set_notes_who_comes_and_goes(how: str) -> None:
    noted: set[str] = set()
    users, plain = NotingSet("abc", noted.update), set("abc")
    assert noted == set()
    answer = CHANGES[how](users)
    assert noted >= users ^ plain != set()
    if how != "pop":
        CHANGES[how](plain)  # type: ignore[arg-type]  # the plain set says what should come out
        assert users == plain
    assert answer is users or isinstance(answer, str | None)


def test_changes_of_a_copy_are_not_noted() -> None:
    noted: set[str] = set()
    users = NotingSet("abc", noted.update)
    for other in (users.copy(), users | {"d"}, users - {"a"}, copy(users)):
        other.discard("b")
    assert users == set("abc")


def test_a_dictionary_notes_what_is_handed_out() -> None:
    noted: list[str] = []
    values = NotingDict[int](noted.append)
    values["a"] = 1
    values.update(b=2)
    assert noted == ["a", "b"]
    noted.clear()
    assert "a" in values
    assert values.get("none") is None
    assert list(values) == ["a", "b"]
    assert noted == []
    assert (values["a"], values.get("b"), values.pop("a")) == (1, 2, 1)
    assert set(noted) == {"a", "b"}
    noted.clear()
    assert list(values.values()) == [2]
    values.clear()
    assert set(noted) == {"b"}
    with pytest.raises(KeyError):
        values["none"]
