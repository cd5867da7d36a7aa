"""The names of owners: fit for people, and no living process is taken for one that has ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cryptostore.store import owners
from cryptostore.store.owners import default_owner, is_gone

_SAY_AND_WAIT = "from cryptostore.store.owners import default_owner; print(default_owner(), flush=True); input()"


def test_people_read_host_and_process_id() -> None:
    assert default_owner().startswith(f"{socket.gethostname()}:{os.getpid()} [")
    assert len(default_owner()) <= 255


def test_a_process_is_gone_when_it_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", _SAY_AND_WAIT], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        owner = other.stdout.readline().strip()
        assert f":{other.pid} [" in owner
        assert not is_gone(owner)
        other.communicate("\n")
    assert is_gone(owner)


def test_this_process_stands_in_nobodys_way() -> None:
    assert is_gone(default_owner())
    # An earlier one had the same id here.
    run, _, place = default_owner().rpartition("@")
    assert is_gone(f"{run[:-12]}0123456789ab@{place}")


@pytest.mark.parametrize("name", ["bot", "", "host:1", "host:x [aa@bb]", f"{socket.gethostname()}:999999999 [aa@bb]"])
def test_other_names_say_nothing(name: str) -> None:
    assert not is_gone(name)


@pytest.mark.parametrize("mark", ["_BOOT", "_NAMESPACE"])
def test_another_container_with_this_hosts_name_may_be_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    # As seen from a container of its own.
    here, another = default_owner(), tmp_path / "another"
    another.write_text("another")
    monkeypatch.setattr(owners, mark, another)
    monkeypatch.setattr(owners, "_RUN", "0123456789ab")
    assert default_owner().rpartition("[")[0] == here.rpartition("[")[0]
    assert not is_gone(here)


def test_where_nothing_tells_containers_apart_a_process_may_be_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owners, "_BOOT", tmp_path / "absent")
    here = default_owner()
    assert is_gone(here)
    monkeypatch.setattr(owners, "_RUN", "0123456789ab")
    assert not is_gone(here)


def test_an_id_that_no_process_can_have_says_nothing() -> None:
    assert not is_gone(default_owner().replace(f":{os.getpid()} [", f":{10**30} ["))
