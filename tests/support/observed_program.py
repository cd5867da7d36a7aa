"""A program that is watched: clients to which everything happens that is measured, and a Prometheus endpoint.

`python observed_program.py URL FOLDER` prints the endpoint's port when all has happened, and ends with its input.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import start_http_server

from client_gaps import fault, numbered, refuse, write
from client_pairs import ALICE, BOB, lockable, locked, people
from cross_signed import CrossSigned
from cryptostore import (
    BackendUnavailable,
    FencedOut,
    Mode,
    TrackedUser,
    WrongPickleKey,
    new_pickle_key,
    open_backend,
)
from cryptostore.plugins.observers import notify
from cryptostore.store.copying import How, Place, copy
from cryptostore.store.prunable import Rules
from cryptostore.store.pruning import prune
from cryptostore_contract.samples import KEY
from own_identities import client_at
from own_identities import identities as own_identities
from spoiling import spoil


async def _converse(url: str) -> None:
    """Messages, gaps, and an identity that changes."""
    async with people(url) as (server, alice, bob):
        crossed = CrossSigned(server)
        await alice.say("hello")
        await bob.round()
        write(server, numbered(30))
        await bob.round()
        fault(server, refuse(403, "M_FORBIDDEN"))
        write(server, numbered(30, 30))
        for _ in range(2):
            crossed.make(BOB.user_id)
            await alice.round()
        await bob.client.sync()
        with open_backend(url, owner="cryptostore rekey on here") as backend:
            backend.open_store(ALICE, pickle_key=KEY).close()
        with suppress(FencedOut):
            await alice.say("too late")


async def _sign(url: str) -> None:
    async with own_identities() as (server, _known), client_at(server, url) as client:
        await client.login_or_restore("password")


async def _wait(folder: Path) -> None:
    """Changes that wait for a database that is away, when the program is looked at."""
    async with people(lockable(folder), "memory://") as (_server, alice, _bob):
        with locked(folder), suppress(BackendUnavailable):
            await alice.say("while away")
        await alice.say("after")
        with locked(folder), suppress(BackendUnavailable):
            await alice.say("away again")
        await asyncio.to_thread(_serve)


def _administer(url: str, folder: Path) -> None:
    with open_backend(url) as backend, open_backend(f"sqlite:///{folder}/copy.db") as other:
        with suppress(WrongPickleKey):
            backend.open_store(BOB, Mode.READ, pickle_key=new_pickle_key())
        with backend.open_store(ALICE, pickle_key=KEY) as store:
            prune(store, Rules(received_before=datetime.now(UTC) + timedelta(days=1)))
        copy(Place(backend, url), Place(other, "sqlite:///copy.db"), ALICE, How(leave_source=True))
        notify("cryptostore_keys_imported", account=BOB, records=1, way="import-keys", source="keys.txt", owner="here")
    spoil(url, ALICE, TrackedUser)
    with open_backend(url) as backend, backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        store.select(TrackedUser, [()])


def _serve() -> None:
    server, _thread = start_http_server(0, "127.0.0.1")
    print(server.server_port, flush=True)  # noqa: T201  # for the test
    sys.stdin.read()
    server.shutdown()


def _main(url: str, folder: str) -> None:
    metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()]))
    asyncio.run(_converse(url))
    asyncio.run(_sign(url))
    _administer(url, Path(folder))
    with open_backend(url):
        asyncio.run(_wait(Path(folder)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
