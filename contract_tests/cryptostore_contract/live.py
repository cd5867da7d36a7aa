"""The contract on a live database, as `cryptostore contract URL` runs it; the URL comes in the environment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import ClassVar, Final

import pytest

from cryptostore import Capability, CryptoStoreError

from .harness import Ability, Harness, claims, managed
from .places import Place, place_for
from .presence import attend
from .suite import StoreContract

URL_VARIABLE: Final = "CRYPTOSTORE_CONTRACT_LIVE_URL"
RUN_VARIABLE: Final = "CRYPTOSTORE_CONTRACT_LIVE_RUN"


class LiveHarness(Harness):
    """What a URL alone allows; the server is not ours to break."""

    name: ClassVar[str] = "live"
    abilities: ClassVar[frozenset[Ability]] = frozenset({Ability.REOPEN})

    def __init__(self, place: Place) -> None:
        self._place = place
        self._url = place.new_url()

    @property
    def url(self) -> str:
        return self._url

    def close(self) -> None:
        # What cannot be removed now is no failure of the case: all is removed at the end, and that is told.
        with contextlib.suppress(CryptoStoreError):
            self._place.remove(self._url)


class OneProcessHarness(LiveHarness):
    """For databases that outlive a process, and that one process may have open."""

    abilities = LiveHarness.abilities | {Ability.OTHER_PROCESS}


class ProcessesHarness(LiveHarness):
    """For databases that several processes may have open."""

    abilities = OneProcessHarness.abilities | {Ability.PROCESSES_AT_ONCE}


def live_harness(place: Place) -> Harness:
    """The harness that can do what the backend declares."""
    harness = LiveHarness(place)
    if claims(harness, Capability.SEVERAL_PROCESSES):
        return ProcessesHarness(place)
    return OneProcessHarness(place) if claims(harness, Capability.SURVIVES_PROCESS_KILL) else harness


class TestLive(StoreContract):
    """The suite, on the database that the environment names."""

    @pytest.fixture
    def harness(self, pytestconfig: pytest.Config) -> Iterator[Harness]:
        # The command's own process would wait for itself.
        if hasattr(pytestconfig, "workerinput"):
            attend()
        yield from managed(live_harness(place_for(os.environ[URL_VARIABLE], os.environ[RUN_VARIABLE])))
