"""What observers cost a batch: our own, beside none, in turns.

In memory there is nothing but the core, so that the cost is seen at its largest; SQLite flushes its file. The SDK of
OpenTelemetry is one that keeps what it gets in memory, as a program's exporter would until it sends it.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from rich.console import Console
from rich.table import Table

from cryptostore import Account, Changes, SyncToken, TrackedUser, new_pickle_key, open_backend
from cryptostore.observing import log_lines
from cryptostore.observing.metrics import Metrics
from cryptostore.observing.spans import Spans
from cryptostore.plugins.observers import observers

ACCOUNT: Final = Account("@bot:example.org", "BOTDEVICE")
KEY: Final = new_pickle_key()
#: Records of a batch.
RECORDS: Final = 10


def _traces() -> Spans:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    return Spans(provider)


#: By what they are called here, what makes the plugins that are tried.
TRIED: Final[dict[str, Callable[[], list[Any]]]] = {
    "none": list,
    "logging": lambda: [log_lines],
    "metrics": lambda: [Metrics(MeterProvider([InMemoryMetricReader()]))],
    "metrics and traces": lambda: [Metrics(MeterProvider([InMemoryMetricReader()])), _traces()],
}


def seconds_for_a_batch(url: str, plugins: list[Any], batches: int) -> float:
    """The median of so many batches, each of an account that is written to all the time."""
    for plugin in plugins:
        observers().add(str(id(plugin)), plugin)
    taken = []
    try:
        with open_backend(url) as backend, backend.open_store(ACCOUNT, pickle_key=KEY) as store:
            for number in range(batches):
                users = [TrackedUser(f"@user{each}:example.org", generation=number) for each in range(RECORDS - 1)]
                changes = Changes([SyncToken(f"s{number}"), *users])
                began = time.perf_counter()
                store.apply(changes)
                taken.append(time.perf_counter() - began)
    finally:
        for plugin in plugins:
            observers().remove(str(id(plugin)))
    return statistics.median(taken)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # Lines of each batch go to a file, as a program's would.
        logging.basicConfig(filename=Path(folder) / "log", level=logging.DEBUG)
        table = Table("database", "observers", "µs a batch", "beside none")
        for name, place in (("memory", "memory://"), ("SQLite", f"sqlite:///{folder}/")):
            taken: dict[str, list[float]] = {tried: [] for tried in TRIED}
            for _ in range(arguments.rounds):
                for tried, make in TRIED.items():
                    taken[tried].append(seconds_for_a_batch(f"{place}{uuid4()}", make(), arguments.batches))
            none = statistics.median(taken["none"])
            for tried, seconds in taken.items():
                median = statistics.median(seconds)
                table.add_row(name, tried, f"{median * 1e6:,.0f}", f"{median / none:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
