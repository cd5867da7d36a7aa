"""`cryptostore contract`, as users run it, and the places that it works in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from cryptostore import ConfigurationError, open_backend
from cryptostore_contract.places import place_for

#: Few cases, so that this takes no minute; a verdict cannot be PASS then.
_FEW = {"PYTEST_ADDOPTS": "-k not_found"}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from cryptostore.cli import main; main()", "contract", *words]
    return subprocess.run(command, env=os.environ | _FEW, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_the_report_is_printed_and_nothing_is_left(tmp_path: Path, processes: str) -> None:
    ended = run(f"sqlite:///{tmp_path}/keys.db", "--json", "--processes", processes)
    report = json.loads(ended.stdout)
    [contract] = report["contracts"]
    assert (ended.returncode, contract["verdict"]) == (1, "INCOMPLETE")
    assert (contract["backend"], contract["harness"], contract["counts"]["passed"]) == ("sqlite", "live", 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("processes", ["1", "2"])
def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, processes: str) -> None:
    command = [sys.executable, "-c", "from cryptostore.cli import main; main()", "contract"]
    url = f"sqlite:///{tmp_path}/keys.db"
    # A shell that started the tests in the background lets its children ignore this signal.
    hear = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        [*command, url, "--processes", processes], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=hear
    ) as running:
        assert running.stdout is not None
        while b"." not in running.stdout.read(1):
            pass
        assert list(tmp_path.iterdir()) != []
        running.send_signal(signal.SIGINT)
        running.stdout.read()
    assert running.returncode not in (0, None)
    assert list(tmp_path.iterdir()) == []


def test_people_read_it_and_it_is_written_as_well(tmp_path: Path) -> None:
    ended = run("memory://", "--report", str(tmp_path / "report.md"))
    assert "TestLive: INCOMPLETE (2 passed, " in ended.stdout
    assert (tmp_path / "report.md").read_text().startswith("# Contract report: INCOMPLETE")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sqlite:////nowhere/at/all/keys.db",), "cannot make a folder of its own in /nowhere/at/all"),
        (("memory://", "--report", "report.pdf"), "must end in .json or .md"),
        (("nothing://host/database",), "the suite knows how to make databases of its own"),
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
    assert url.startswith("postgresql://me@host/db?deadline=3&sslmode=require&schema=cryptostore_contract_run_")
    assert url != place.new_url()


def test_what_is_neither_path_nor_postgresql_is_left_alone() -> None:
    with pytest.raises(ConfigurationError, match="would not touch yours"):
        place_for("mydb://host/database", "run")
