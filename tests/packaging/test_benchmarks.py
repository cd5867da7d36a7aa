"""Measurements can be believed: what they count is there, and a figure is called worse only where it is."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from measuring.environments import NoEnvironment, checkout_python
from measuring.figures import OTHER, THIS, Figure, Figures, Missing, Unit, Verdict
from measuring.network import Network
from measuring.rows import ROWS

AGAINST = Path(__file__).parents[2] / "benchmarks" / "against.py"


def against(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(AGAINST), *arguments], capture_output=True, text=True, check=False)


def figure(**samples: list[float]) -> Figure:
    return Figure("a row", "a figure", "a place", Unit.SECONDS, samples)


@pytest.mark.parametrize(
    ("this", "other", "verdict"),
    [
        ([1.0, 1.1, 1.2], [1.0, 1.1, 1.2], Verdict.SAME),
        ([1.2, 1.3, 1.4], [1.0, 1.1, 1.2], Verdict.SAME),
        ([1.4, 1.5, 1.6], [1.0, 1.1, 1.2], Verdict.WORSE),
        ([1.0, 1.1, 1.2], [1.4, 1.5, 1.6], Verdict.BETTER),
        # The larger spread is that of the other.
        ([1.5, 1.5, 1.5], [1.0, 1.1, 1.6], Verdict.SAME),
        # What was measured without a spread, such as bytes, may differ by a page.
        ([1.02], [1.0], Verdict.SAME),
        ([1.04], [1.0], Verdict.WORSE),
        ([2.0], [1.0], Verdict.WORSE),
    ],
)
def test_a_figure_is_worse_by_more_than_its_spread(this: list[float], other: list[float], verdict: Verdict) -> None:
    assert figure(this=this, other=other).verdict is verdict


def test_without_the_other_there_is_nothing_to_be_worse_than() -> None:
    assert figure(this=[1.0], mautrix=[0.1]).verdict is Verdict.NONE


def test_one_worse_figure_makes_the_run_fail() -> None:
    figures = Figures()
    for subject, label, value in ((THIS, "a", 1.0), (OTHER, "a", 1.0), (THIS, "b", 2.0), (OTHER, "b", 1.0)):
        assert not figures.is_worse
        figures.add("row", label, "place", Unit.SECONDS, subject, value)
    assert figures.is_worse
    assert figures.is_worse_in("row")
    assert not figures.is_worse_in("another row")


@pytest.mark.parametrize(("subject", "fails"), [(THIS, True), (OTHER, False), ("mautrix", False)])
def test_what_only_others_cannot_do_is_no_failure(subject: str, fails: bool) -> None:
    figures = Figures()
    figures.missing.append(Missing(subject, "row", "place", "the reason"))
    assert figures.is_worse is fails


@contextmanager
def echo(delay: float = 0.0) -> Iterator[tuple[Network, socket.socket]]:
    """A connection through the network to a server that sends back what it gets."""

    def answer(server: socket.socket) -> None:
        with server.accept()[0] as accepted:
            while data := accepted.recv(65_536):
                accepted.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=[server], daemon=True).start()
        with (
            closing(Network(server.getsockname(), delay)) as network,
            socket.create_connection(("127.0.0.1", network.port)) as client,
        ):
            yield network, client


def read(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += client.recv(size - len(data))
    return data


def test_a_question_after_an_answer_is_another_round_trip() -> None:
    with echo() as (network, client):
        began = time.monotonic()
        for _ in range(3):
            client.sendall(b"question")
            read(client, 8)
        assert network.round_trips(began, time.monotonic()) == 3
        assert network.round_trips(time.monotonic(), time.monotonic() + 60) == 0


def test_what_is_under_way_is_late_in_both_directions_and_one_round_trip() -> None:
    # The answers are under way for longer than the questions take.
    with echo(delay=0.2) as (network, client):
        began = time.monotonic()
        for _ in range(3):
            client.sendall(b"question")
            time.sleep(0.01)
        read(client, 24)
        assert time.monotonic() - began >= 0.4
        assert network.round_trips(began, time.monotonic()) == 1


def test_the_network_loses_nothing() -> None:
    with echo() as (_network, client):
        sent = os.urandom(1_000_000)
        threading.Thread(target=client.sendall, args=[sent]).start()
        assert read(client, len(sent)) == sent


def test_a_folder_that_is_no_checkout_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoEnvironment, match=f"{tmp_path}.*name the folder of a checkout"):
        checkout_python(tmp_path, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_help_names_every_row() -> None:
    shown = against("--help")
    assert shown.returncode == 0, shown.stderr
    assert all(row in shown.stdout for row in ROWS)


def test_one_run_is_refused() -> None:
    shown = against("--runs", "1")
    assert shown.returncode == 2
    assert "one run has no spread" in shown.stderr


def test_what_is_installed_is_measured_beside_others(tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    shown = against("--quick", "--runs", "2", "--only", "save", "--mautrix", "none", "--json", str(written))
    assert shown.returncode == 0, shown.stdout + shown.stderr
    told = json.loads(written.read_text())
    assert told["missing"] == []

    def of(place: str, unit: str) -> dict[str, Any]:
        (found,) = (
            each["subjects"]
            for each in told["figures"]
            if (each["figure"], each["place"], each["unit"]) == ("save a room key", place, unit)
        )
        return dict(found)

    assert set(of("PostgreSQL", "s")) == {"this", "upsert, this"}
    assert set(of("SQLite", "s")) == {"this", "nio"}
    trips = of("PostgreSQL + network", "round trips")
    assert trips["upsert, this"]["median"] == 1
    assert trips["this"]["median"] >= 1
    assert "save a room key: known to be new" in shown.stdout
