"""Which of our own observers a program has: those that its settings name, or an error at the start."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest

from cryptostore import ConfigurationError, open_backend
from cryptostore.nio.configuration import client_settings
from cryptostore.observing.chosen import chosen_observers
from cryptostore.plugins import observers as module
from cryptostore.plugins.environment import variables
from example_records import ALICE

AWAY = {"account": ALICE, "backend": "memory", "reason": "away"}


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A process that has not looked for its observers yet, in an empty folder."""
    monkeypatch.setattr(module, "_observers", None)
    for name in ("CRYPTOSTORE_OBSERVERS", "CRYPTOSTORE_AUDIT_LOG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("", set()),
        ("logging", {"logging"}),
        (" opentelemetry , logging,", {"logging", "opentelemetry metrics", "opentelemetry traces"}),
    ],
)
def test_the_observers_that_are_named(named: str, expected: set[str]) -> None:
    assert chosen_observers({"CRYPTOSTORE_OBSERVERS": named}).keys() == expected
    assert chosen_observers({}) == {}


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        ("loging", "CRYPTOSTORE_OBSERVERS names 'loging'; it takes logging and opentelemetry$"),
        ("logging audit", "names 'logging audit'"),
        ("audit", "the audit log is switched on by CRYPTOSTORE_AUDIT_LOG"),
    ],
)
def test_a_name_that_there_is_not_is_refused_before_a_database_is_opened(
    named: str, problem: str, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRYPTOSTORE_OBSERVERS", named)
    with pytest.raises(ConfigurationError, match=problem):
        open_backend(f"sqlite:///{fresh}/keys.db")
    assert list(fresh.iterdir()) == []
    monkeypatch.setenv("CRYPTOSTORE_OBSERVERS", "logging")
    open_backend("memory://").close()


@pytest.mark.parametrize("missing", ["opentelemetry", "opentelemetry.metrics"])
def test_a_library_that_is_not_installed_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.startswith("cryptostore.observing.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    from cryptostore.observing import chosen

    with pytest.raises(ConfigurationError, match="`pip install opentelemetry-api`, and an SDK with an exporter"):
        chosen.chosen_observers({"CRYPTOSTORE_OBSERVERS": "opentelemetry"})
    assert chosen.chosen_observers({"CRYPTOSTORE_OBSERVERS": "logging"})


def test_an_env_file_names_them(fresh: Path, caplog: pytest.LogCaptureFixture) -> None:
    (fresh / ".env").write_text("CRYPTOSTORE_OBSERVERS=logging\nCRYPTOSTORE_AUDIT_LOG=audit.jsonl\n")
    with caplog.at_level(logging.INFO):
        open_backend("memory://").close()
    assert [json.loads(each.getMessage())["event"] for each in caplog.records] == ["database_opened", "database_closed"]
    assert (fresh / "audit.jsonl").exists()


def test_a_client_takes_them_from_its_own_env_file(fresh: Path) -> None:
    (fresh / ".env").write_text("CRYPTOSTORE_AUDIT_LOG=wrong.jsonl\n")
    (fresh / "bot.env").write_text("CRYPTOSTORE_AUDIT_LOG=audit.jsonl\n")
    client_settings("https://example.org", "@a:x", store="memory://", pickle_key="k", env_file="bot.env")
    open_backend("memory://").close()
    assert {each.name for each in fresh.iterdir()} == {".env", "bot.env", "audit.jsonl"}


def test_a_client_without_an_env_file_reads_none(fresh: Path) -> None:
    (fresh / ".env").write_text("CRYPTOSTORE_OBSERVERS=nonsense\n")
    client_settings("https://example.org", "@a:x", store="memory://", pickle_key="k", env_file=None)
    open_backend("memory://").close()


def test_they_are_looked_for_once(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = module.observers()
    monkeypatch.setenv("CRYPTOSTORE_OBSERVERS", "nonsense")
    assert module.observers() is module.load_observers(variables()) is first
    module.notify("cryptostore_unavailable", **AWAY)
