"""A URL where programs expect a folder, and a program that made it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from cryptostore import BackendUnavailable, new_pickle_key
from cryptostore.nio import NioStore
from cryptostore.nio.client.looking import look_no_further
from cryptostore.nio.client.statistics import Statistics
from cryptostore.nio.client.store import ProductionStore
from cryptostore_contract.samples import ALICE, KEY

URL = "postgresql://bot:s3cr3t-canary@127.0.0.1:1/keys?deadline=0.1"
WITHOUT_PASSWORD = "postgresql://bot@127.0.0.1:1/keys?deadline=0.1&application_name=bot"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def try_to_open(url: str) -> None:
    with pytest.raises(BackendUnavailable):
        NioStore(ALICE.user_id, ALICE.device_id, url, KEY)


def test_a_folder_that_was_made_of_a_url_is_named_with_the_remedy(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Path(WITHOUT_PASSWORD).mkdir(parents=True)
    try_to_open(WITHOUT_PASSWORD)
    (message,) = caplog.messages
    assert f"there is a folder '{folder}/postgresql:': a program took the URL" in message
    assert "change the password" in message
    assert "NioStore.at(" in message


def test_a_password_in_the_store_path_draws_a_warning_with_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    try_to_open(URL)
    (message,) = caplog.messages
    assert "store_path holds a password" in message
    assert "NioStore.at(" in message


def test_both_are_one_warning_each(caplog: pytest.LogCaptureFixture) -> None:
    Path(URL).mkdir(parents=True)
    try_to_open(URL)
    assert len(caplog.messages) == 2
    assert "s3cr3t-canary" not in caplog.text


def test_a_class_that_is_bound_to_a_database_has_the_password_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(BackendUnavailable):
        NioStore.at(URL)(ALICE.user_id, ALICE.device_id, "store", KEY)
    assert caplog.messages == []


def test_the_production_client_has_no_store_path(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(BackendUnavailable):
        ProductionStore(ALICE, URL, KEY, Statistics(), look_no_further)
    assert caplog.messages == []


def test_nothing_is_said_where_there_is_nothing_to_say(caplog: pytest.LogCaptureFixture) -> None:
    try_to_open(WITHOUT_PASSWORD)
    with closing(NioStore("@bot:example.org", "D", "sqlite:///keys.db", new_pickle_key())):
        assert caplog.messages == []
