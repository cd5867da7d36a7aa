"""The example bot while its database is away, and while another server takes the database over."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest

from homeserver import Homeserver
from homeserver_backlog import Backlog, backlog
from homeserver_bed import Bed
from homeserver_client import Client
from homeserver_example import ExampleBot
from postgres_server import PostgresServer
from postgres_standby import PostgresStandby

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

#: Seconds without a database: longer than the bot gives one by itself.
_OUTAGE: Final = 13


@pytest.fixture
def bed_of_two(homeserver: Homeserver, tmp_path: Path) -> Iterator[Bed]:
    """Clients on SQLite, but a bot may be given the URL with both hosts."""
    bed = Bed(homeserver, tmp_path, lambda: f"sqlite:///{tmp_path}/{uuid4()}.db")
    yield bed
    bed.close()


def test_an_outage_and_a_fail_over_lose_no_message(
    primary: PostgresServer, standby: PostgresStandby, url_of_both: str, bed_of_two: Bed, example_bot: ExampleBot
) -> None:
    questions, alice = backlog(bed_of_two, store=url_of_both)
    example_bot.start_as(questions.bot, MATRIX_PASSWORD=questions.bot.user.password)
    alice.call("sync")
    with _Asking(questions, alice):
        questions.wait_for(5)
        primary.stop()
        time.sleep(_OUTAGE)
        primary.start()
        questions.wait_for(questions.total)
        primary.kill()
        standby.promote()
        questions.wait_for(questions.total)
    questions.assert_answered(alice, lambda _, text: text)


class _Asking:
    """Alice asks all the time while the context is open."""

    def __init__(self, questions: Backlog, alice: Client) -> None:
        self._questions = questions
        self._alice = alice
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._over.wait(0.2):
            self._questions.ask(self._alice, 1, keys=1)
