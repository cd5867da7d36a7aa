"""`cryptostore stats --plot`: the picture has what was counted."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pytest

from command_line import Run, run_process
from cryptostore import (
    Account,
    Changes,
    ConfigurationError,
    OlmSession,
    Record,
    WithheldKey,
    new_pickle_key,
    open_backend,
)
from cryptostore.cli.exits import ExitCode
from cryptostore.cli.plots import write_plot
from cryptostore_contract.limits import limited_files
from example_records import example
from spoiling import spoil

KEY = new_pickle_key()
ALICE = Account("@alice:example.org", "<A>&\x1b[2J")
FIRST = datetime(2026, 1, 1, 23, 59, tzinfo=UTC)
SVG = "{http://www.w3.org/2000/svg}"
XLINK = "{http://www.w3.org/1999/xlink}"


class Picture(NamedTuple):
    """What is to be read in a plot."""

    texts: list[str]
    #: For each line, what its points say.
    points: list[list[str]]


def read(file: Path) -> Picture:
    root = ET.parse(file).getroot()
    assert not list(root.iter(f"{SVG}script")), "a picture runs nothing"
    assert not [each for each in root.iter() if "http" in (each.get(f"{XLINK}href") or "")]
    lines = [
        each for each in root.iter(f"{SVG}g") if "serie-" in each.get("class", "") and list(each.iter(f"{SVG}desc"))
    ]
    return Picture(
        ["".join(each.itertext()) for each in root.iter(f"{SVG}text")],
        [[each.text or "" for each in line.iter(f"{SVG}desc") if each.get("class") == "value"] for line in lines],
    )


def olm_sessions(*days: int) -> list[Record]:
    return [
        example(OlmSession, session_id=f"{day}/{number}", created_at=FIRST + timedelta(day))
        for number, day in enumerate(days)
    ]


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with five Olm sessions of three days, and a withheld key of the second one."""
    url = f"sqlite:///{tmp_path}/keys.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    withheld = example(WithheldKey, received_at=FIRST + timedelta(1))
    with open_backend(url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.apply(Changes([*olm_sessions(0, 0, 1, 3, 3), withheld]))
    return str(url)


def test_the_picture_has_what_was_counted(url: str, tmp_path: Path) -> None:
    file = tmp_path / "growth.svg"
    ended = run_process("stats", url, "--plot", file, env={"CRYPTOSTORE_PICKLE_KEY": KEY})
    assert (ended.code, ended.err) == (0, f"wrote the plot to {file}\n")
    assert "olm_session" in ended.out
    picture = read(file)
    assert picture.points == [
        ["2026-01-01: 2", "2026-01-02: 3", "2026-01-03: 3", "2026-01-04: 5"],
        ["2026-01-02: 1", "2026-01-03: 1", "2026-01-04: 1"],
    ]
    for text in ("olm_session (5)", "withheld_key (1)", "2026-01-01", "2026-01-04", "stored records"):
        assert text in picture.texts
    assert "Records of @alice:example.org <A>&\\x1b[2J" in picture.texts


def test_a_newer_picture_takes_the_place_of_an_older_one(run: Run, url: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    file = tmp_path / "growth.svg"
    file.write_text("an older one")
    words = ("stats", url, "--plot", file, "--pickle-key-file", tmp_path / "key", "--json")
    assert run(*words).document["accounts"][0]["kinds"]["olm_session"]["rows"] == 5
    assert len(read(file).points) == 2
    spoil(url, ALICE, OlmSession)
    ended = run(*words)
    assert ended.code == ExitCode.CHECK_FAILED
    assert "5 records cannot be read, and are not in the plot; `cryptostore verify` lists them" in ended.err
    assert len(read(file).points) == 1


def test_mistakes_are_named(run: Run, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", new_pickle_key())
    assert run("stats", url).code == 0
    wrong = run("stats", url, "--plot", tmp_path / "a.svg")
    assert (wrong.code, "pickle key" in wrong.err) == (ExitCode.USAGE, True)
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", KEY)
    nowhere = run("stats", url, "--plot", tmp_path / "no" / "a.svg")
    assert (nowhere.code, nowhere.err.count("\n")) == (ExitCode.USAGE, 1)
    monkeypatch.setitem(sys.modules, "pygal", None)
    missing = run("stats", url, "--plot", tmp_path / "a.svg")
    assert "--plot needs the library pygal, which is not installed: pip install pygal" in missing.err
    assert not list(tmp_path.glob("*.svg*"))


@pytest.mark.parametrize("name", ["keys.db", "pickle.key", ".svg", "", ".", "/"])
def test_what_is_no_picture_is_not_replaced(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if name and not Path(name).is_dir():
        Path(name).write_text("a secret")
    before = sorted((path, path.read_bytes()) for path in tmp_path.iterdir())
    ended = run("stats", "memory://", "--plot", name)
    assert (ended.code, "name a file that ends in .svg" in ended.err) == (ExitCode.USAGE, True)
    assert sorted((path, path.read_bytes()) for path in tmp_path.iterdir()) == before


def test_a_plot_without_room_leaves_the_last_one(tmp_path: Path) -> None:
    file = tmp_path / "a.svg"
    file.write_text("the last one")
    with limited_files(1_000), pytest.raises(ConfigurationError, match=r"plot cannot be written to .*; make room"):
        write_plot(file, "all", {"olm_session": Counter()})
    assert [(path, path.read_text()) for path in tmp_path.iterdir()] == [(file, "the last one")]


def test_years_are_drawn_with_as_many_points_as_a_page_has_room_for(tmp_path: Path) -> None:
    """A million records of one kind and a few of another are a hundred points each, on a scale that shows both."""
    first, file = date(2020, 1, 1), tmp_path / "a.svg"
    days = {"many": Counter({first + timedelta(day): 500 for day in range(2_000)}), "few": Counter({first: 2})}
    write_plot(file, "all", days)
    picture = read(file)
    assert [len(points) < 130 for points in picture.points] == [True, True]
    assert picture.points[0][-1].endswith(": 1,000,000")
    assert picture.points[1][-1].endswith(": 2")
    assert {"10", "1,000", "1,000,000"} <= set(picture.texts)


def test_nothing_that_says_when_it_came(tmp_path: Path) -> None:
    write_plot(tmp_path / "a.svg", "all", {"olm_session": Counter()})
    assert "no record says when it came" in read(tmp_path / "a.svg").texts
