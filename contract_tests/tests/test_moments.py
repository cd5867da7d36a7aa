"""Where a process is killed, in its own last words."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from cryptostore_contract import moments
from cryptostore_contract.moments import Events


def _work() -> None:
    str.upper("a")
    with suppress(TypeError):
        len(None)  # type: ignore[arg-type]  # a function of C that raises
    str.lower("A")


def _work_in_a_thread() -> None:
    thread = threading.Thread(target=_work)
    thread.start()
    thread.join()


#: Events in `_work`, and how many lines below its first.
_EVENTS = {
    "call of _work": 0,
    "call of str.upper": 1,
    "return of str.upper": 1,
    "error of len": 3,
    "call of str.lower": 4,
}

LastWords = Callable[[Callable[[], None]], list[list[str]]]


@pytest.fixture
def last_words(monkeypatch: pytest.MonkeyPatch) -> LastWords:
    """What would be said at each event of a call, in lines."""
    monkeypatch.setattr(moments, "kill_this_process", lambda: None)
    monkeypatch.setattr(threading, "_profile_hook", None)

    def all_of(call: Callable[[], None]) -> list[list[str]]:
        said: list[str] = []
        for number in range(1, Events().during(call) + 1):
            Events(number, said.append).during(call)
        return [words.splitlines() for words in said]

    return all_of


@pytest.mark.parametrize("call", [_work, _work_in_a_thread])
def test_they_name_the_function_and_the_lines_that_led_to_it(last_words: LastWords, call: Callable[[], None]) -> None:
    callers = {(event, where): called for event, where, *called in last_words(call)}
    for event, offset in _EVENTS.items():
        where = f"  at {__file__}:{_work.__code__.co_firstlineno + offset} in _work"
        called = callers[f"at the {event}", where]
        assert all(line.startswith("  called from ") for line in called)
        assert any("threading.py" in line for line in called) == (call is _work_in_a_thread)
