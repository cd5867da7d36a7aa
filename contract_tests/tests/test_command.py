"""`cryptostore contract`, as users run it, and the places that it works in."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from contract_command import FEW, interrupt, run
from cryptostore import INTERFACE_VERSION, BackendPlugin, ConfigurationError, open_backend
from cryptostore.plugins.memory import open_memory
from cryptostore.plugins.plugin import MakeScratch
from cryptostore_contract import places
from cryptostore_contract.places import place_for
from unverified import published


@pytest.mark.parametrize("processes", ["1", "2"])
def test_the_report_is_printed_and_nothing_is_left(tmp_path: Path, processes: str) -> None:
    ended = run(f"sqlite:///{tmp_path}/keys.db", "--json", "--processes", processes)
    report = json.loads(ended.stdout)
    [contract] = report["contracts"]
    assert (ended.returncode, contract["verdict"]) == (1, "INCOMPLETE")
    assert (contract["backend"], contract["harness"], contract["counts"]["passed"]) == ("sqlite", "live", 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("processes", ["1", "2"])
def test_pytest_may_be_told_to_look_for_no_plugins(tmp_path: Path, processes: str) -> None:
    env = {**FEW, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ended = run(f"sqlite:///{tmp_path}/keys.db", "--json", "--processes", processes, env=env)
    [contract] = json.loads(ended.stdout)["contracts"]
    assert contract["counts"]["passed"] == 2


@pytest.mark.timeout(1_000)
def test_it_ends_with_0_where_everything_passes(tmp_path: Path) -> None:
    """The whole suite: half a minute on a machine that has nothing else to do."""
    url = f"sqlite:///{tmp_path}/keys.db"
    ended = run(url, "--json", "--processes", "2", env={"PYTEST_ADDOPTS": ""}, timeout=900)
    report = json.loads(ended.stdout)
    [contract] = report["contracts"]
    assert (ended.returncode, report["verdict"]) == (0, "PASS"), contract["failed"]
    assert contract["not_verified"].keys() == published("`cryptostore contract`") - set(contract["soak"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("processes", ["1", "2"])
def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, processes: str, number: signal.Signals) -> None:
    url = f"sqlite:///{tmp_path}/keys.db"
    assert interrupt(url, processes, number, lambda: list(tmp_path.iterdir()) != []) == 130
    assert list(tmp_path.iterdir()) == []


#: A case that takes an interrupt for the one that it waits for, as cases of interrupts do.
_TAKES_IT = """
import os, signal, time

def pytest_runtest_call(item):
    try:
        os.kill(os.getpid(), signal.{name})
        time.sleep(60)
    except KeyboardInterrupt:
        pass
"""


@pytest.mark.parametrize("words", ["-k not_found", "-k not_there_is_not_found"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupt_that_a_case_takes_for_its_own_ends_the_run(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "taking.py").write_text(_TAKES_IT.format(name=name))
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ended = run("memory://", "--json", env={"PYTHONPATH": paths, "PYTEST_ADDOPTS": f"-p taking {words}"})
    assert (ended.returncode, ended.stdout) == (130, "")


def test_people_read_it_and_it_is_written_as_well(tmp_path: Path) -> None:
    ended = run("memory://", "--report", str(tmp_path / "report.md"))
    assert "TestLive: INCOMPLETE (2 passed, " in ended.stdout
    assert "warning" not in ended.stdout
    assert (tmp_path / "report.md").read_text().startswith("# Contract report: INCOMPLETE")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sqlite:////nowhere/at/all/keys.db",), "cannot make a folder of its own in /nowhere/at/all"),
        (("memory://", "--report", "report.pdf"), "must end in .json or .md"),
        (("nothing://host/database",), "nothing"),
        (("postgresql://nobody@127.0.0.1:1/none?deadline=1",), "127.0.0.1"),
    ],
)
def test_what_is_wrong_is_one_line(words: tuple[str, ...], said: str) -> None:
    ended = run(*words)
    assert ended.returncode in (2, 3)
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_folder_is_beside_the_file_and_goes_with_all_that_is_in_it(tmp_path: Path) -> None:
    place = place_for(f"sqlite:///{tmp_path}/keys%20of%20bots.db?deadline=3", "run")
    place.prepare()
    urls = [place.new_url(), place.new_url()]
    for url in urls:
        open_backend(url).close()
    [folder] = tmp_path.iterdir()
    assert len(list(folder.iterdir())) >= 2
    place.remove(urls[0])
    assert {path.name[:32] for path in folder.iterdir()} == {Path(urls[1].partition("?")[0]).name}
    place.clear()
    assert list(tmp_path.iterdir()) == []


def test_a_schema_takes_the_place_of_the_urls_own() -> None:
    place = place_for("postgresql://me@host/db?schema=mine&deadline=3&sslmode=require", "run")
    url = place.new_url()
    assert url.startswith(
        "postgresql://me@host/db?deadline=3&sslmode=require"
        "&application_name=cryptostore_contract_run&schema=cryptostore_contract_run_"
    )
    assert url != place.new_url()


class Databases:
    """Room that a plugin makes."""

    def __init__(self, url: str, name: str) -> None:
        self.made = f"{url}/{name}"
        self.left = ["one"]

    def new_url(self) -> str:
        return f"{self.made}_1"

    def remove(self, url: str) -> None:
        self.left.remove(url)

    def clear(self) -> None:
        self.left.clear()


def plugin_with(scratch: MakeScratch | None) -> Callable[[str], BackendPlugin]:
    return lambda scheme: BackendPlugin(scheme, INTERFACE_VERSION, open_memory, scratch=scratch)


def test_a_plugin_says_where_the_suite_may_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "load_backend", plugin_with(Databases))
    place = place_for("mydb://host", "run")
    place.prepare()
    assert place.new_url() == "mydb://host/cryptostore_contract_run_1"
    place.remove("one")
    place.clear()


def test_a_server_whose_plugin_makes_no_room_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "load_backend", plugin_with(None))
    with pytest.raises(ConfigurationError, match="would not touch your database"):
        place_for("mydb://host/database", "run")


def test_a_clean_up_that_fails_is_told_and_hides_no_verdict(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(_FAILING)
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    env["PYTEST_ADDOPTS"] = f"-p failing {FEW['PYTEST_ADDOPTS']}"
    ended = run(f"sqlite:///{tmp_path}/keys.db", "--json", env=env)
    [contract] = json.loads(ended.stdout)["contracts"]
    assert (contract["verdict"], contract["counts"]["passed"], contract["counts"]["failed"]) == ("INCOMPLETE", 2, 0)
    assert "may be left behind: the server has gone away" in ended.stderr


_FAILING = """
from cryptostore import BackendUnavailable
from cryptostore_contract.places import FolderPlace

def fail(*_):
    raise BackendUnavailable("the server has gone away")

FolderPlace.clear = FolderPlace.remove = fail
"""
