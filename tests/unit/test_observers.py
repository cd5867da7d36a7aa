"""Observers are told facts, and never harm what they watch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pluggy
import pytest

from cryptostore import Account, hookimpl
from cryptostore.plugins import observers as module
from cryptostore.plugins.observers import Observers
from example_records import ALICE
from fake_distributions import FakeSite


class Metrics:
    def __init__(self) -> None:
        self.seen: list[tuple[Account, int]] = []

    @hookimpl
    def cryptostore_batch_applied(self, account: Account, records: int) -> None:
        self.seen.append((account, records))


class Faulty:
    calls = 0

    def __init__(self, error: BaseException) -> None:
        self.error = error

    @hookimpl
    def cryptostore_batch_applied(self) -> None:
        self.calls += 1
        raise self.error


BACKEND = {"account": ALICE, "backend": "memory"}
FACTS: dict[str, Any] = {**BACKEND, "records": 3, "size": 10, "seconds": 0.5, "retries": 0}
AWAY: dict[str, Any] = {**BACKEND, "reason": "away"}


def test_facts_are_delivered() -> None:
    observers, metrics = Observers({}), Metrics()
    observers.add("metrics", metrics)
    observers.notify("cryptostore_batch_applied", FACTS)
    observers.notify("cryptostore_unavailable", AWAY)
    assert metrics.seen == [(ALICE, 3)]


@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit(1)])
def test_an_observer_that_raises_is_reported_and_dropped(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    observers, faulty, metrics = Observers({}), Faulty(error), Metrics()
    observers.add("faulty", faulty)
    observers.add("metrics", metrics)
    observers.notify("cryptostore_batch_applied", FACTS)
    observers.notify("cryptostore_batch_applied", FACTS)
    assert faulty.calls == 1
    assert metrics.seen == [(ALICE, 3), (ALICE, 3)]
    assert [record.getMessage() for record in caplog.records] == [
        "observer 'faulty' raised in cryptostore_batch_applied and is dropped"
    ]


def test_an_interrupt_is_not_held_back() -> None:
    observers = Observers({})
    observers.add("faulty", Faulty(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        observers.notify("cryptostore_batch_applied", FACTS)


def test_a_hook_that_does_not_exist_is_refused() -> None:
    class Misspelt:
        @hookimpl
        def cryptostore_batch_aplied(self) -> None: ...

    with pytest.raises(pluggy.PluginValidationError, match="cryptostore_batch_aplied"):
        Observers({}).add("misspelt", Misspelt())


def test_an_observer_can_be_removed() -> None:
    observers, metrics = Observers({}), Metrics()
    observers.add("metrics", metrics)
    observers.remove("metrics")
    observers.remove("metrics")
    observers.notify("cryptostore_batch_applied", FACTS)
    assert metrics.seen == []


OBSERVER = """
from cryptostore import hookimpl
seen = []
@hookimpl
def cryptostore_unavailable(account):
    seen.append(account)
"""


def test_installed_observers_are_told_even_where_two_have_one_name(
    site: FakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("observer-one", {"cryptostore.observers": {"metrics": "observer_one"}}, observer_one=OBSERVER)
    site.install("observer-two", {"cryptostore.observers": {"metrics": "observer_two"}}, observer_two=OBSERVER)
    monkeypatch.setattr(module, "_observers", None)
    module.notify("cryptostore_unavailable", **AWAY)
    assert site.module("observer_one").seen == [ALICE]
    assert site.module("observer_two").seen == [ALICE]


@pytest.mark.parametrize(
    "source", ["raise RuntimeError('broken')", "import sys; sys.exit(3)", "import no_such_module", OBSERVER + "del x"]
)
def test_an_observer_that_cannot_be_loaded_is_left_out(
    source: str, site: FakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    site.install("broken", {"cryptostore.observers": {"broken": "broken_observer"}}, broken_observer=source)
    site.install("works", {"cryptostore.observers": {"works": "working_observer"}}, working_observer=OBSERVER)
    Observers({}).notify("cryptostore_unavailable", AWAY)
    assert site.module("working_observer").seen == [ALICE]
    assert "observer 'broken:broken' cannot be loaded and is left out" in caplog.text


def test_a_misspelt_hook_is_reported(site: FakeSite, caplog: pytest.LogCaptureFixture) -> None:
    source = OBSERVER.replace("unavailable", "unavialable")
    site.install("misspelt", {"cryptostore.observers": {"misspelt": "misspelt_observer"}}, misspelt_observer=source)
    Observers({})
    assert "observer 'misspelt:misspelt' cannot be loaded" in caplog.text
    assert "cryptostore_unavialable" in caplog.text


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSite:
    return FakeSite(tmp_path, monkeypatch)
