"""An account that changes hands too often."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest

from cryptostore import Account, Changes, CryptoStore, Value, open_backend
from cryptostore.nio.client.takeovers import HISTORY, TakeOvers, Turn, next_turn
from cryptostore_contract.samples import KEY

BOT = Account("@bot:example.org", "BOT")

_SAY_THE_OWNER = "from cryptostore.plugins.urls import CommonOptions; print(CommonOptions.take_from({}).owner, end='')"


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


def take_over(url: str, owner: str) -> float:
    """Take the account over as another host would; returns the pause to make."""
    turn = Turn(0.0, TakeOvers())

    def look(found: CryptoStore | None) -> None:
        nonlocal turn
        if found is not None:
            turn = next_turn(found.ownership.owner, found.get(Value, [HISTORY]).get(HISTORY))

    with open_backend(url, owner=owner) as backend, backend.open_store(BOT, pickle_key=KEY, look=look) as store:
        store.apply(Changes([turn.history.record()]))
    return turn.pause


def test_the_history_is_in_the_database(url: str) -> None:
    pauses = [take_over(url, f"host{number}:1") for number in range(6)]
    assert pauses == [0, 0, 0, 0, 1, 2]


def test_a_process_of_this_container_that_has_ended_is_no_rival(memory_url: str) -> None:
    ended = subprocess.run([sys.executable, "-c", _SAY_THE_OWNER], capture_output=True, check=True).stdout.decode()
    for _ in range(8):
        assert take_over(memory_url, ended) == 0


def test_this_process_is_no_rival_of_itself(memory_url: str) -> None:
    for _ in range(8):
        assert take_over(memory_url, "") == 0


@pytest.mark.parametrize("process", ["this one's id", "nobody's id"])
@pytest.mark.parametrize("mark", ["", " [0123456789ab@0123456789ab]", " [0123456789ab]"])
def test_a_process_elsewhere_with_the_same_host_name_may_be_alive(memory_url: str, process: str, mark: str) -> None:
    pid = os.getpid() if process == "this one's id" else 999_999_999
    owners = [f"{socket.gethostname()}:{pid}{mark.replace('0', str(number))}" for number in range(6)]
    assert [take_over(memory_url, owner) for owner in owners] == [0, 0, 0, 0, 1, 2]


def test_a_damaged_history_is_begun_anew(memory_url: str) -> None:
    with open_backend(memory_url, owner="elsewhere:1") as backend, backend.open_store(BOT, pickle_key=KEY) as store:
        store.apply(Changes([Value("client", "take-overs", b"{")]))
    assert take_over(memory_url, "elsewhere:2") == 0
    assert TakeOvers().next(time.time()).pause == 0
