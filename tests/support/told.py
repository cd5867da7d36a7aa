"""What observers are told: every hook that is called, with all that its declaration names."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from cryptostore.plugins.hookspecs import ObserverHooks
from cryptostore.plugins.observers import Observers

__all__ = ["Told", "told"]


class Told(list[tuple[str, dict[str, Any]]]):
    """The hooks that were called, without their common prefix, and the facts."""

    def note(self, hook: str, facts: dict[str, Any]) -> None:
        """Note a call that has every fact that was declared; others reach no observer."""
        declared = set(inspect.signature(getattr(ObserverHooks, hook)).parameters) - {"self"}
        assert facts.keys() >= declared, f"{hook} was called without {declared - facts.keys()}"
        self.append((hook.removeprefix("cryptostore_"), {name: facts[name] for name in declared}))

    @property
    def names(self) -> list[str]:
        """The hooks that were called."""
        return [name for name, _ in self]

    def of(self, name: str, *facts: str) -> list[Any]:
        """These facts of each call of a hook."""
        return [tuple(told[each] for each in facts) if facts else told for hook, told in self if hook == name]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    noted, original = Told(), Observers.notify

    def notify(observers: Observers, hook: str, facts: dict[str, Any]) -> None:
        noted.note(hook, facts)
        original(observers, hook, facts)

    monkeypatch.setattr(Observers, "notify", notify)
    return noted
