"""One database that is away holds up no user of another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from socket import create_server

import pytest

from cryptostore import BackendUnavailable
from cryptostore.nio import NioStore
from cryptostore.nio.storage import Backends, backends
from cryptostore.plugins.loading import open_backend
from cryptostore.store.backend import Backend
from cryptostore_contract.samples import ALICE, KEY

OPENERS = 4


@contextmanager
def silent_server() -> Iterator[str]:
    """A server that accepts connections and never says a word."""
    with closing(create_server(("127.0.0.1", 0), backlog=64)) as listening:
        yield f"postgresql://bot@127.0.0.1:{listening.getsockname()[1]}/keys?deadline=3"


def opened(url: str) -> NioStore:
    return NioStore(ALICE.user_id, ALICE.device_id, url, KEY)


def test_who_opens_and_closes_another_database_does_not_wait(memory_url: str) -> None:
    healthy = opened(memory_url)
    with silent_server() as silent, ThreadPoolExecutor(OPENERS) as threads:
        waiting = [threads.submit(opened, silent) for _ in range(OPENERS)]
        healthy.close()
        opened(memory_url).close()
        assert not any(future.done() for future in waiting)
        for future in waiting:
            assert isinstance(future.exception(), BackendUnavailable)


def test_all_who_wait_for_a_silent_server_fail_with_one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[str] = []

    def counted(url: str) -> Backend:
        attempts.append(url)
        return open_backend(url)

    monkeypatch.setattr("cryptostore.nio.storage.open_backend", counted)
    with silent_server() as silent, ThreadPoolExecutor(OPENERS) as threads:
        waiting = [threads.submit(opened, silent) for _ in range(OPENERS)]
        assert all(isinstance(future.exception(), BackendUnavailable) for future in waiting)
        assert attempts == [silent]
        # What failed is not remembered.
        assert isinstance(threads.submit(opened, silent).exception(), BackendUnavailable)
        assert attempts == [silent, silent]
    assert not backends._shared


def test_an_interrupted_opening_leaves_its_place_to_who_waits(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first_is_in, go_on, shared = threading.Event(), threading.Event(), Backends()

    def interrupted_once(url: str) -> Backend:
        if first_is_in.is_set():
            return open_backend(url)
        first_is_in.set()
        assert go_on.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr("cryptostore.nio.storage.open_backend", interrupted_once)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(shared.acquire, memory_url)
        assert first_is_in.wait(10)
        second = threads.submit(shared.acquire, memory_url)
        go_on.set()
        assert isinstance(first.exception(10), KeyboardInterrupt)
        _, release = second.result(10)
        release()
    assert not shared._shared


def test_a_database_that_is_being_closed_is_opened_again_after_that(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = Backends()
    backend, release = shared.acquire(memory_url)
    closes, go_on, close = threading.Event(), threading.Event(), Backend.close

    def slow(self: Backend) -> None:
        closes.set()
        assert go_on.wait(10)
        close(self)

    monkeypatch.setattr(Backend, "close", slow)
    with ThreadPoolExecutor(2) as threads:
        closing_it: Future[None] = threads.submit(release)
        assert closes.wait(10)
        again = threads.submit(shared.acquire, memory_url)
        assert not again.done()
        go_on.set()
        closing_it.result(10)
        other, release_other = again.result(10)
        assert other is not backend
        release_other()
