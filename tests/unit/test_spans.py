"""The observer `opentelemetry`: its traces, read from the SDK's in-memory exporter."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from cryptostore import BackendUnavailable, Changes, SyncToken, new_pickle_key
from cryptostore.nio.client.threads import in_thread, threads_of
from cryptostore.observing.spans import Spans
from cryptostore.plugins.observers import Observers
from cryptostore.store.backend import Backend
from cryptostore.store.crypto_store import CryptoStore
from cryptostore.store.memory import MemoryDatabase, MemoryHandle
from example_records import ALICE

KEY = new_pickle_key()
TOKEN = Changes([SyncToken("s1")])


class Traced:
    """The observer, and the spans that it has made."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("a program")
        self.observers = Observers({})
        self.observers.add("spans", Spans(self.provider))

    def notify(self, hook: str, **facts: Any) -> None:
        self.observers.notify(hook, facts)

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


@pytest.fixture
def traced() -> Traced:
    return Traced()


@pytest.fixture
def store(traced: Traced) -> CryptoStore:
    database = MemoryHandle(MemoryDatabase())
    backend = Backend(database, name="sqlite", notify=traced.notify, deadline=0.05)
    return backend.open_store(ALICE, pickle_key=KEY)


def seconds_of(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def test_a_batch_is_a_span_with_its_beginning_and_end(traced: Traced, store: CryptoStore) -> None:
    store.apply(TOKEN)
    size = sum(len(row.key) + len(row.value) for row in store.stored_rows())
    [span] = traced.spans("BATCH cryptostore")
    assert 0 < seconds_of(span) < 0.05
    assert span.kind is SpanKind.CLIENT
    assert span.parent is None
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes or {}) == {
        "matrix.user.id": ALICE.user_id,
        "matrix.device.id": ALICE.device_id,
        "db.system.name": "sqlite",
        "db.operation.name": "BATCH",
        "db.operation.batch.size": 1,
        "cryptostore.batch.size": size,
        "cryptostore.retries": 0,
    }


def test_a_batch_that_failed(traced: Traced, store: CryptoStore) -> None:
    database = store._database
    assert isinstance(database, MemoryHandle)
    with database.shared.lock, pytest.raises(BackendUnavailable) as caught:
        store.apply(TOKEN)
    [span] = traced.spans("BATCH cryptostore")
    assert seconds_of(span) >= 0.02
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, str(caught.value))
    assert (span.attributes or {})["error.type"] == "BackendUnavailable"


@pytest.mark.parametrize("error", ["", "StorageFull"])
def test_a_flush_is_a_span_from_the_oldest_change(error: str, traced: Traced) -> None:
    if error:
        traced.notify("cryptostore_flush_failed", account=ALICE, age=2.5, error=error)
    else:
        traced.notify("cryptostore_flushed", account=ALICE, age=2.5, records=4)
    [span] = traced.spans("flush cryptostore")
    assert seconds_of(span) == 2.5
    assert (span.attributes or {}).get("error.type", "") == error
    assert span.status.is_ok is not bool(error)


def test_the_parent_is_what_the_caller_does_also_over_a_thread(traced: Traced, store: CryptoStore) -> None:
    async def scenario() -> None:
        with traced.tracer.start_as_current_span("answering"):
            await in_thread(threads_of("memory://"), store.apply, TOKEN)

    asyncio.run(scenario())
    with traced.tracer.start_as_current_span("asking"):
        store.apply(Changes([SyncToken("s2")]))
    parents = {span.context.span_id: span.name for span in traced.exporter.get_finished_spans() if span.context}
    batches = traced.spans("BATCH cryptostore")
    assert [parents[span.parent.span_id] for span in batches if span.parent] == ["answering", "asking"]
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_without_an_sdk_nothing_happens_and_nothing_fails(caplog: pytest.LogCaptureFixture) -> None:
    observers = Observers({"CRYPTOSTORE_OBSERVERS": "opentelemetry"})
    notify: Callable[..., None] = lambda hook, **facts: observers.notify(hook, facts)  # noqa: E731  # one line
    with Backend(MemoryHandle(MemoryDatabase()), name="memory", notify=notify) as backend:
        backend.open_store(ALICE, pickle_key=KEY).apply(TOKEN)
    assert caplog.records == []
