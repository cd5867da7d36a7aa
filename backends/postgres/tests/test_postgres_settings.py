"""What is said of a URL's settings: all that libpq would take, and no secret of it."""

from __future__ import annotations

import os

import pytest

from cryptostore import ConfigurationError
from cryptostore.plugins import Setting
from cryptostore_postgres.settings import settings

CANARY = "s3cret"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)


def found(url: str = "postgresql://db/keys", **options: str) -> dict[str, Setting]:
    return {each.name: each for each in settings(url, options)}


def test_every_variable_of_libpq_is_found_and_what_may_be_secret_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGPASSWORD", "PGOPTIONS", "PGSSLKEY", "PGSSLROOTCERT", "PGUSER"):
        monkeypatch.setenv(name, CANARY)
    shown = found()
    for name, variable, value in (
        ("password", "PGPASSWORD", "***"),
        ("options", "PGOPTIONS", "***"),
        ("sslkey", "PGSSLKEY", "***"),
        ("sslrootcert", "PGSSLROOTCERT", CANARY),
        ("user", "PGUSER", CANARY),
    ):
        assert shown[name] == (name, value, f"{variable} in the environment", "")


def test_the_url_wins_and_says_over_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "disable")
    monkeypatch.setenv("PGAPPNAME", "bot")
    shown = found("postgresql://bot:s3cret@db/keys", sslmode="require", pool_size="2")
    assert shown["sslmode"] == ("sslmode", "require", "the URL", "PGSSLMODE")
    assert shown["application_name"] == ("application_name", "matrix-cryptostore", "default", "PGAPPNAME")
    assert shown["pool_size"] == ("pool_size", "2", "the URL", "")
    assert shown["migrate"] == ("migrate", "auto", "default", "")
    assert CANARY not in str(shown)


def test_what_could_not_be_opened_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="unknown option 'ssl_mode'"):
        found(ssl_mode="require")


def test_without_a_home_folder_the_password_file_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs as a number without a name."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    assert found()["password"].value == "none, but what ~/.pgpass has (not there)"
