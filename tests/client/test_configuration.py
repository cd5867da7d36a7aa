"""Where a client's settings come from, and what wins."""

from __future__ import annotations

import os
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg.pq import Conninfo

from cryptostore import ConfigurationError, open_backend
from cryptostore.nio import NioStore, Pruning
from cryptostore.nio.configuration import client_settings
from cryptostore.plugins.urls import CommonOptions, options_of
from cryptostore_postgres.options import OWN_OPTIONS, PostgresOptions, parse

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
    ("config", "url"),
    [
        ({"host": "a,b", "port": "1,2", "database": "x"}, "postgresql://a:1,b:2/x"),
        ({"host": "a,b", "database": "x"}, "postgresql://a:5432,b:5432/x"),
        ({"hostaddr": "10.0.0.1", "database": "x"}, "postgresql:///x?hostaddr=10.0.0.1"),
        ({"service": "keys"}, "postgresql:///?service=keys"),
        ({"dbname": "x"}, "postgresql://localhost:5432/?dbname=x"),
        ({"database": "x", "migrate": "never"}, "postgresql://localhost:5432/x?migrate=never"),
        ({"database": "x", "owner": None, "schema": ""}, "postgresql://localhost:5432/x"),
    ],
)
def test_pg_config_takes_what_a_url_takes(config: dict[str, Any], url: str) -> None:
    assert store(pg_config=config) == url


def option_names() -> list[str]:
    """Every option that a PostgreSQL URL may have, of the core, of the backend and of libpq."""
    ours = {"deadline", "owner", *OWN_OPTIONS}
    return sorted(ours | {option.keyword.decode() for option in Conninfo.get_defaults()})


@pytest.mark.parametrize("name", option_names())
def test_pg_config_takes_every_option_of_the_backend(name: str) -> None:
    value = {"migrate": "never", "pool_size": 7, "deadline": 3, "port": 1234}.get(name, "some")
    url = store(pg_config={"database": "x", name: value})
    options = options_of(url, {})
    CommonOptions.take_from(options)
    parsed = parse(url, options)
    given = {"database": "dbname"}.get(name, name)
    assert str({**vars_of(parsed), "deadline": 3, "owner": "some"}[given]) in (str(value), "utf8")


def vars_of(parsed: PostgresOptions) -> dict[str, Any]:
    return {**parsed.connection, "schema": parsed.schema, "migrate": parsed.migrate, "pool_size": parsed.pool_size}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pool_size", "many"),
        ("pool_size", 0),
        ("deadline", "soon"),
        ("migrate", "perhaps"),
        ("schema", "A B"),
        ("connect_timeout", "soon"),
        ("keepalives_idle", "soon"),
        ("databse", "x"),
    ],
)
def test_what_pg_config_must_not_hold_is_named_by_the_backend(name: str, value: object) -> None:
    url = store(pg_config={"host": "127.0.0.1", "port": 1, "database": "x", name: value})
    with pytest.raises(ConfigurationError, match=f"\\b{name}\\b"):
        open_backend(url)


@pytest.mark.parametrize("given", [Path("keys.db"), Path("postgresql://bot:secret@host/keys"), b"sqlite:///keys.db"])
def test_a_path_is_no_url(given: Any) -> None:
    for use in (lambda: store(store=given), lambda: open_backend(given), lambda: NioStore("@a:b", "D", given, "key")):
        with pytest.raises(ConfigurationError, match="URL") as refused:
            use()
        assert "sqlite:///keys.db" in str(refused.value)
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"pg_config": {"databse": "x"}}, "no database is named: .*; pg_config has 'databse'"),
        ({"pg_config": {"host": "x"}}, "POSTGRES_DB"),
        ({"pg_config": {"host": "a,b,c", "port": "1,2", "database": "x"}}, "3 PostgreSQL hosts and 2 ports"),
        ({"pg_config": {"port": "many", "database": "x"}}, "pg_config's port, or POSTGRES_PORT, is not a number"),
        ({"store": "keys.db"}, "begins with the name of its backend"),
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


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"older_than": 90}, "older_than must be a timedelta, and not below 0"),
        ({"gone_devices": timedelta(days=-1)}, "gone_devices must be a timedelta, and not below 0"),
        ({"unused_for": timedelta.max}, "is before the calendar; give less"),
        ({"olm_sessions": 0}, "olm_sessions must be 1 or more"),
        ({"olm_sessions": "3"}, "olm_sessions must be 1 or more"),
        (
            {"unused_for": timedelta(days=90), "replay_pages": timedelta(days=89)},
            "keep them for as long as sessions that are not used",
        ),
    ],
)
def test_what_cannot_be_pruned_is_refused_before_anything(given: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        Pruning(**given)


def test_what_is_pruned_has_names() -> None:
    names: Any = {"older_than": timedelta(days=90)}
    with pytest.raises(ConfigurationError, match=r"must be a cryptostore\.nio\.Pruning"):
        client_settings("https://x", "@bot:x", store="memory://", pickle_key="key", prune=names)
    wanted = Pruning(**names)
    assert client_settings("https://x", "@bot:x", store="memory://", pickle_key="key", prune=wanted).prune == wanted
