"""An account that changes hands too often."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

from cryptostore import Account, Changes, Mode, Value, open_backend
from cryptostore.nio.client.takeovers import TakeOvers, wait_for_turn

BOT = Account("@bot:example.org", "BOT")


def test_the_fourth_take_over_in_a_minute_waits_and_later_ones_longer() -> None:
    now, history, pauses = 1_000.0, TakeOvers(), []
    for _ in range(9):
        history = history.next(now)
        pauses.append(history.pause)
        now += history.pause + 1
    assert pauses == [0, 0, 0, 1, 2, 4, 8, 16, 32]


def test_a_quiet_minute_ends_the_pauses() -> None:
    history = TakeOvers([1_000.0, 1_001.0, 1_002.0, 1_003.0], 8.0)
    assert history.next(1_030.0).pause == 16.0
    assert history.next(1_080.0) == TakeOvers([1_080.0])


def take_over(url: str, owner: str) -> list[float]:
    """Take the account over as another host would; returns the pauses made."""
    slept: list[float] = []
    with open_backend(url, owner=owner) as backend:
        history = wait_for_turn(backend, BOT, slept.append)
        with backend.open_store(BOT, Mode.OWN) as store:
            store.apply(Changes([history.record()]))
    return slept


def test_the_history_is_in_the_database(url: str) -> None:
    pauses = [take_over(url, f"host{number}:1") for number in range(6)]
    assert pauses == [[], [], [], [], [1.0], [2.0]]


def test_a_process_of_this_host_that_has_ended_is_no_rival(memory_url: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    for _ in range(8):
        assert take_over(memory_url, f"{socket.gethostname()}:{child.pid}") == []


def test_a_damaged_history_is_begun_anew(memory_url: str) -> None:
    with open_backend(memory_url, owner="elsewhere:1") as backend, backend.open_store(BOT) as store:
        store.apply(Changes([Value("client", "take-overs", b"{")]))
    assert take_over(memory_url, "elsewhere:2") == []
    assert TakeOvers().next(time.time()).pause == 0
