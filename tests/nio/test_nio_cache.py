"""What is deleted from the database has no live object, and none comes back to life."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cryptostore.nio.cache import LiveCache


class Live:
    """A live object."""


class Rows:
    """A database, and a cache in front of it. `while_read` happens in the middle of each look-up."""

    def __init__(self, *names: str) -> None:
        self.rows: Final = dict.fromkeys(names, "row")
        self.cache: Final = LiveCache(self._read, lambda _key, _row: Live())
        self.while_read: Callable[[], None] = lambda: None

    def _read(self, names: list[str]) -> dict[str, str]:
        found = {name: self.rows[name] for name in names if name in self.rows}
        self.while_read()
        return found

    def delete(self, name: str) -> bool:
        with self.cache.alone():
            is_free = self.cache.let_go(name)
            if is_free:
                del self.rows[name]
            return is_free


def test_what_nobody_uses_is_let_go() -> None:
    rows = Rows("a", "b")
    rows.cache.fetch(["a", "b"])
    assert rows.delete("a")
    assert rows.cache.get("a") is None
    assert rows.cache.peek("b") is not None


def test_what_somebody_uses_is_kept_and_stays_the_one_object() -> None:
    rows = Rows("a")
    held = rows.cache.get("a")
    assert not rows.delete("a")
    assert rows.cache.peek("a") is held
    assert rows.cache.get("a") is held
    del held
    assert rows.delete("a")


def test_what_is_not_durable_is_kept() -> None:
    rows = Rows("a")
    rows.cache.put("a", Live())
    assert not rows.delete("a")
    rows.cache.unpin("a")
    assert rows.delete("a")


def test_what_was_never_read_can_go() -> None:
    rows = Rows("a")
    assert rows.delete("a")
    assert rows.cache.get("a") is None


def test_what_was_read_before_the_deletion_does_not_come_back_to_life() -> None:
    rows = Rows("a", "b")

    def delete_once() -> None:
        rows.while_read = lambda: None
        assert rows.delete("a")

    rows.while_read = delete_once
    assert rows.cache.fetch(["a", "b"]).keys() == {"b"}
    assert rows.cache.is_absent("a")
