"""The example bot, run as its page says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homeserver_bed import Bed, Talk
from homeserver_client import Client

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

_BOT = Path(__file__).parents[2] / "examples" / "bot.py"
_SECONDS = 60

Run = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Start the bot with some environment variables, in a folder without an `.env` file."""
    running: list[subprocess.Popen[bytes]] = []
    ours = ("MATRIX_", "CRYPTOSTORE_", "POSTGRES_", "USE_POSTGRES")

    def start(**variables: str) -> subprocess.Popen[bytes]:
        env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        with (tmp_path / "bot.log").open("ab") as log:
            running.append(
                subprocess.Popen([sys.executable, str(_BOT)], env={**env, **variables}, cwd=tmp_path, stderr=log)
            )
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def test_the_example_bot_lives_through_its_page(bed: Bed, tmp_path: Path, run: Run) -> None:
    owner, account = bed.device("alice"), bed.device("bot")
    (tmp_path / "pickle-key").write_text("a secret of this bot\n")
    variables = {
        "MATRIX_HOMESERVER": bed.server.url,
        "MATRIX_USER_ID": account.user.user_id,
        "CRYPTOSTORE_URL": account.config.store,
        "CRYPTOSTORE_PICKLE_KEY_FILE": str(tmp_path / "pickle-key"),
    }
    alice = bed.start(owner)
    alice.call("sync")
    first = run(**variables, MATRIX_PASSWORD=account.user.password)
    _until(lambda: "ready as" in _log(tmp_path), first, tmp_path)
    room = bed.api.inviting_room(owner.user, account.user)
    talk = Talk(bed, owner, account, room, {})
    _until(lambda: bed.api.is_joined(owner.user, room, account.user), first, tmp_path)
    alice.call("sync")
    _is_repeated(talk, alice, account.user.user_id, "hello")

    first.kill()
    assert first.wait() == -signal.SIGKILL
    asked = talk.say(alice, "are you there?")
    # No password any more.
    second = run(**variables)
    _hears(talk, alice, account.user.user_id, "are you there?")
    _is_repeated(talk, alice, account.user.user_id, "welcome back")

    third = run(**variables)
    _until(lambda: _log(tmp_path).count("ready as") == 3, third, tmp_path)
    # The second has nothing to write, and so learns nothing, until something happens.
    _is_repeated(talk, alice, account.user.user_id, "who are you?")
    assert second.wait(timeout=_SECONDS) == 10, _log(tmp_path)
    third.terminate()
    assert third.wait(timeout=_SECONDS) == 0, _log(tmp_path)

    texts = alice.call("history", room=room)
    assert asked in texts
    assert sorted(texts.values()) == sorted(2 * ["hello", "are you there?", "welcome back", "who are you?"])
    assert talk.indices_used_twice() == 0


def test_without_its_settings_the_example_bot_says_what_is_missing(tmp_path: Path, run: Run) -> None:
    process = run()
    assert process.wait(timeout=_SECONDS) == 2
    assert "MATRIX_HOMESERVER" in _log(tmp_path)


def _is_repeated(talk: Talk, alice: Client, bot: str, text: str) -> None:
    talk.say(alice, text)
    _hears(talk, alice, bot, text)


def _hears(talk: Talk, alice: Client, bot: str, text: str) -> None:
    ends = time.monotonic() + _SECONDS
    while time.monotonic() < ends:
        alice.call("sync", wait=1)
        if any(each.get("text") == text and each["sender"] == bot for each in alice.told):
            return
    raise AssertionError(f"nobody repeated {text!r} in {talk.room}; Alice was told {alice.told[-3:]}")


def _until(wanted: Callable[[], bool], bot: subprocess.Popen[bytes], folder: Path) -> None:
    ends = time.monotonic() + _SECONDS
    while not wanted():
        assert bot.poll() is None, _log(folder)
        assert time.monotonic() < ends, _log(folder)
        time.sleep(0.1)


def _log(folder: Path) -> str:
    log = folder / "bot.log"
    return log.read_text() if log.exists() else ""
