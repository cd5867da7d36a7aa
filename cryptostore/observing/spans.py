"""Traces: a span for each batch, and one from a client's oldest change until it is saved."""

from __future__ import annotations

import time
from typing import Final

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from cryptostore.plugins.hookspecs import hookimpl
from cryptostore.records.record import Account

from .attributes import DEVICE, ERROR, Attributes, of_batch, of_user
from .versions import NAME, version

_NANOSECONDS: Final = 1_000_000_000


class Spans:
    """Makes spans when what they tell of is over, for `provider` or the process's own.

    Their parent is the span in whose context it was done, if there is one, be it in another thread.
    """

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        self._tracer: Final = trace.get_tracer(NAME, version(), provider)

    @hookimpl
    def cryptostore_batch_applied(
        self, account: Account, records: int, size: int, seconds: float, retries: int, backend: str
    ) -> None:
        """A span of a batch that is durable."""
        attributes = {
            **of_batch(account, backend),
            "db.operation.batch.size": records,
            "cryptostore.batch.size": size,
            "cryptostore.retries": retries,
        }
        self._make("BATCH cryptostore", SpanKind.CLIENT, account, seconds, attributes)

    @hookimpl
    def cryptostore_batch_failed(
        self, account: Account, error: str, reason: str, seconds: float, retries: int, backend: str
    ) -> None:
        """A span of a batch that ended in an error."""
        attributes = {**of_batch(account, backend), "cryptostore.retries": retries, ERROR: error}
        self._make("BATCH cryptostore", SpanKind.CLIENT, account, seconds, attributes, reason)

    @hookimpl
    def cryptostore_flushed(self, account: Account, records: int, age: float) -> None:
        """A span from the oldest change until it was saved."""
        attributes = {**of_user(account), "db.operation.batch.size": records}
        self._make("flush cryptostore", SpanKind.INTERNAL, account, age, attributes)

    @hookimpl
    def cryptostore_flush_failed(self, account: Account, age: float, error: str) -> None:
        """A span from the oldest change until it was not saved."""
        self._make("flush cryptostore", SpanKind.INTERNAL, account, age, of_user(account, error__type=error), error)

    def _make(
        self, name: str, kind: SpanKind, account: Account, seconds: float, attributes: Attributes, failure: str = ""
    ) -> None:
        now = time.time_ns()
        began = now - round(seconds * _NANOSECONDS)
        span = self._tracer.start_span(
            name, kind=kind, start_time=began, attributes={**attributes, DEVICE: account.device_id}
        )
        if failure:
            span.set_status(Status(StatusCode.ERROR, failure))
        span.end(now)
