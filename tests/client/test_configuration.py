"""Where a client's settings come from, and what wins."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Any

import pytest

from cryptostore import ConfigurationError
from cryptostore.nio.configuration import client_settings

POSTGRES = {
    "USE_POSTGRES_STORE": "true",
    "POSTGRES_HOST": "db.example.org",
    "POSTGRES_PORT": "6543",
    "POSTGRES_DB": "bots",
    "POSTGRES_USER": "bot",
    "POSTGRES_PASSWORD": "p/a@s",
}
MATRIX = {"MATRIX_HOMESERVER": "https://example.org", "MATRIX_USER_ID": "@bot:example.org"}
KEY = {"CRYPTOSTORE_PICKLE_KEY": "key"}
URL_OF_POSTGRES = "postgresql://bot:p%2Fa%40s@db.example.org:6543/bots"


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("CRYPTOSTORE_", "POSTGRES_", "MATRIX_", "USE_POSTGRES")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def set_environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def store(**arguments: Any) -> str:
    return client_settings("https://example.org", "@bot:example.org", pickle_key="key", **arguments).store


def test_everything_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, **MATRIX, **KEY, MATRIX_DEVICE_ID="DEVICE", CRYPTOSTORE_URL="sqlite:///keys.db")
    settings = client_settings()
    assert (settings.homeserver, settings.user_id, settings.device_id) == (*MATRIX.values(), "DEVICE")
    assert (settings.store, settings.pickle_key) == ("sqlite:///keys.db", "key")


def test_everything_may_come_from_an_env_file_over_which_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    variables = MATRIX | KEY | POSTGRES
    (tmp_path / ".env").write_text("".join(f"{name}='{value}'\n" for name, value in variables.items()))
    assert client_settings().store == URL_OF_POSTGRES
    monkeypatch.setenv("MATRIX_USER_ID", "@other:example.org")
    assert client_settings().user_id == "@other:example.org"
    with pytest.raises(ConfigurationError, match="MATRIX_HOMESERVER"):
        client_settings(env_file=None)


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, **MATRIX, **KEY, **POSTGRES, CRYPTOSTORE_URL="sqlite:///keys.db")
    assert client_settings(user_id="@me:example.org").user_id == "@me:example.org"
    assert client_settings(pickle_key="mine").pickle_key == "mine"
    assert store(store="memory://") == "memory://"
    assert store(use_postgres=True) == URL_OF_POSTGRES
    assert store() == "sqlite:///keys.db"


def test_the_url_wins_over_use_postgres_store(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, **POSTGRES)
    assert store() == URL_OF_POSTGRES
    with pytest.raises(ConfigurationError, match="no database is named"):
        store(use_postgres=False)
    monkeypatch.setenv("CRYPTOSTORE_URL", "memory://")
    assert store() == "memory://"


def test_pg_config_is_filled_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"database": "mine", "host": "/run/postgresql", "pool_size": 2, "sslmode": "require"}
    assert store(use_postgres=True, pg_config=config) == (
        "postgresql://%2Frun%2Fpostgresql:5432/mine?pool_size=2&sslmode=require"
    )
    set_environment(monkeypatch, **POSTGRES)
    assert store(pg_config={"database": "mine"}) == "postgresql://bot:p%2Fa%40s@db.example.org:6543/mine"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"pg_config": {"databse": "x"}}, "unknown key 'databse' in pg_config; known are"),
        ({"pg_config": {"host": "x"}}, "POSTGRES_DB"),
        ({"pg_config": {"database": "x"}, "use_postgres": False}, "use_postgres=False forbids"),
        ({"store": "memory://", "use_postgres": True}, "not both"),
        ({}, "USE_POSTGRES_STORE=true with POSTGRES_HOST"),
    ],
)
def test_what_is_missing_unknown_or_double_is_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        store(**arguments)


def test_use_postgres_store_is_true_or_false(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, **POSTGRES | {"USE_POSTGRES_STORE": "maybe"})
    with pytest.raises(ConfigurationError, match="must be true or false"):
        store()


def test_the_pickle_key_may_stand_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_environment(monkeypatch, **MATRIX, CRYPTOSTORE_URL="memory://")
    with pytest.raises(ConfigurationError, match="there is no pickle key"):
        client_settings()
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(ConfigurationError, match="No such file"):
        client_settings()
    (tmp_path / "key").write_text(" a key \n")
    assert client_settings().pickle_key == " a key "
    (tmp_path / "key").write_text("a key\nand more\n")
    with pytest.raises(ConfigurationError, match="in one line") as refused:
        client_settings()
    assert "and more" not in str(refused.value)
    (tmp_path / "key").write_bytes(b"a key of \xff bytes")
    with pytest.raises(ConfigurationError, match="is not UTF-8 text") as refused:
        client_settings()
    assert "a key of" not in "".join(traceback.format_exception(refused.value))
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", "another")
    with pytest.raises(ConfigurationError, match="not both"):
        client_settings()


def test_the_repr_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, **MATRIX, **POSTGRES, CRYPTOSTORE_PICKLE_KEY="pickle secret")
    shown = repr(client_settings())
    assert "pickle secret" not in shown
    assert "p%2Fa" not in shown
