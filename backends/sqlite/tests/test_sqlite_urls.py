"""Which file a URL names, and which URLs are refused."""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest

from cryptostore import Capability, ConfigurationError, Support, load_backend, open_backend
from cryptostore_sqlite.given import path_of
from raw_databases import take_over


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("sqlite:///keys.db", "keys.db"),
        ("SQLite:///keys.db", "keys.db"),
        ("sqlite:///data/keys.db?deadline=3", "data/keys.db"),
        ("sqlite:///a%20b%3Fc%23d%25.db", "a b?c#d%.db"),
        ("sqlite:///caf%C3%A9/schl%C3%BCssel.db", "café/schlüssel.db"),
        ("sqlite:///%FF.db", "\udcff.db"),
        ("sqlite:///../keys.db", "../keys.db"),
    ],
)
def test_three_slashes_begin_a_relative_path(url: str, name: str) -> None:
    assert path_of(url) == Path.cwd() / name


def test_four_slashes_begin_an_absolute_path() -> None:
    assert path_of("sqlite:////var/lib/bot/keys.db") == Path("/var/lib/bot/keys.db")


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("sqlite:", "sqlite:///keys.db"),
        ("sqlite://", "memory://"),
        ("sqlite:///", "memory://"),
        ("sqlite:///?deadline=3", "memory://"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite:keys.db", "sqlite:///keys.db"),
        ("sqlite:/var/keys.db", "sqlite:////var"),
        ("sqlite://keys.db", "sqlite:///keys.db"),
        ("sqlite://host/keys.db", "sqlite:///keys.db"),
        ("sqlite:///keys.db#1", "%23"),
        ("sqlite:///keys%00.db", "%00"),
        ("sqlite:///keys.db?timeout=3", "create, deadline, file_system, owner"),
        ("sqlite:///keys.db?deadline=soon", "seconds"),
        ("sqlite:///keys.db?create=no", "'auto' or 'never'"),
        ("sqlite:///keys.db?create=never", "create=auto"),
        ("sqlite:///keys.db?file_system=nfs", "'local' or 'any'"),
        ("sqlite:///keys.db?mode=ro", "create, deadline, file_system, owner"),
        ("sqlite:///keys.db?immutable=1", "create, deadline, file_system, owner"),
        ("sqlite:///keys.db?owner=a&owner=b", "once"),
    ],
)
def test_other_urls_are_refused_with_a_remedy(
    url: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=re.escape(remedy)):
        open_backend(url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a b?c#d%.db", "schlüssel 🔑.db", "-.db", "%41.db", "a'b\"c;.db", "\udcff.db"])
def test_any_file_name_can_be_written_in_a_url(name: str, tmp_path: Path) -> None:
    with open_backend(f"sqlite:///{quote_from_bytes(os.fsencode(tmp_path / name))}") as backend:
        assert backend.accounts() == {}
        assert {path.name for path in tmp_path.iterdir()} == {name, f"{name}-wal", f"{name}-shm"}


def test_a_relative_path_stays_where_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_backend("sqlite:///keys.db") as backend:
        monkeypatch.chdir("/")
        take_over(backend.database)
        assert backend.health().writable
    assert [path.name for path in tmp_path.iterdir()] == ["keys.db"]


def test_an_old_sqlite_is_refused(url: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    with pytest.raises(ConfigurationError, match=r"3\.37\.0 or newer"):
        open_backend(url)
    assert not path.exists()


def test_every_capability_is_claimed_one_way_or_the_other() -> None:
    plugin = load_backend("sqlite")
    assert {capability for capability in Capability if plugin.claim(capability).support is Support.UNKNOWN} == set()
