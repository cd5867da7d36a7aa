"""A URL where programs expect a folder, and a program that made it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from cryptostore import BackendUnavailable, new_pickle_key
from cryptostore.nio import NioStore

URL = "postgresql://bot:s3cr3t-canary@127.0.0.1:1/keys?deadline=0.1"


def test_a_folder_that_was_made_of_a_url_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(URL).mkdir(parents=True)
    with pytest.raises(BackendUnavailable):
        NioStore("@bot:example.org", "D", URL, "key")
    assert f"there is a folder '{tmp_path}/postgresql:': a program took the URL" in caplog.text
    assert "change the password" in caplog.text
    assert "s3cr3t-canary" not in caplog.text


def test_nothing_is_said_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(NioStore("@bot:example.org", "D", "sqlite:///keys.db", new_pickle_key())):
        assert caplog.messages == []
