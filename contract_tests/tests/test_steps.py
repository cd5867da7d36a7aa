"""What counts as a step of a backend."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from cryptostore_contract import steps
from cryptostore_contract.steps import Steps

#: Enough lists for several collections of garbage.
WORK = "def work(driver):\n    kept = [[] for _ in range(10_000)]\n    driver()\n    return kept\n"
OTHERS = "def other(*_):\n    pass\n"


def made(source: str, module: str, name: str) -> Any:
    """A function of another module."""
    scope: dict[str, Any] = {"__name__": module}
    exec(source, scope)
    return scope[name]


def test_what_others_do_when_garbage_is_collected_is_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "BACKENDS", {"a_backend"})
    work, other = made(WORK, "a_backend", "work"), made(OTHERS, "pytest", "other")
    gc.callbacks.append(other)
    try:
        counted = Steps("memory")
        counted.during(lambda: work(other))
    finally:
        gc.callbacks.remove(other)
    assert counted.count == 1
    assert gc.isenabled()
