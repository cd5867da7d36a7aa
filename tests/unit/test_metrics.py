"""The observer `opentelemetry`: what it measures, read from the SDK's in-memory exporter."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint

from cryptostore import Account, BackendUnavailable, Changes, Mode, SyncToken, WrongPickleKey, new_pickle_key
from cryptostore.observing.metrics import Metrics
from cryptostore.plugins.observers import Observers
from cryptostore.store.backend import Backend
from cryptostore.store.interface import Connections
from cryptostore.store.memory import MemoryDatabase, MemoryHandle
from example_records import ALICE

KEY = new_pickle_key()
ANNA = {"matrix.user.id": ALICE.user_id}
BATCH = {**ANNA, "db.system.name": "postgresql", "db.operation.name": "BATCH"}


class Pooled(MemoryHandle):
    """A database with connections, and one that goes away."""

    counted = Connections(used=1, idle=2, most=5, waiting=3)
    is_away = False

    def connections(self) -> Connections | None:
        return self.counted

    def commit(self, *arguments: Any) -> Any:
        if self.is_away:
            raise BackendUnavailable("away")
        return super().commit(*arguments)


class Measured:
    """The observer, and what its metrics are now."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])
        self.observers = Observers({})
        self.observers.add("metrics", Metrics(self.provider))

    def notify(self, hook: str, **facts: Any) -> None:
        self.observers.notify(hook, facts)

    def metric(self, name: str) -> Any:
        """The metric of this name; None for one that nothing is known of."""
        data = self.reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        assert {scope.scope.name for scope in scopes} <= {"cryptostore"}
        return next((each for scope in scopes for each in scope.metrics if each.name == name), None)

    def points(self, name: str) -> list[tuple[dict[str, Any], float]]:
        """The attributes and values of a metric; of a histogram, how many were measured."""
        metric = self.metric(name)
        return [] if metric is None else [(dict(each.attributes), _value(each)) for each in metric.data.data_points]


def _value(point: NumberDataPoint | HistogramDataPoint) -> float:
    return point.count if isinstance(point, HistogramDataPoint) else point.value


@pytest.fixture
def measured() -> Iterator[Measured]:
    measured = Measured()
    yield measured
    measured.provider.shutdown()


@pytest.fixture
def database() -> Pooled:
    return Pooled(MemoryDatabase())


@pytest.fixture
def opened(measured: Measured, database: Pooled) -> Callable[[str], Backend]:
    def opened(owner: str) -> Backend:
        url = "postgresql://db/keys"
        return Backend(database, name="postgres", owner=owner, notify=measured.notify, url=url, deadline=0.2)

    return opened


def test_a_batch(measured: Measured, opened: Callable[[str], Backend]) -> None:
    store = opened("bot").open_store(ALICE, pickle_key=KEY)
    store.apply(Changes([SyncToken("s1")]))
    size = sum(len(row.key) + len(row.value) for row in store.stored_rows())
    assert measured.points("cryptostore.batch.records") == [(ANNA, 1)]
    assert measured.points("cryptostore.batch.size") == [(ANNA, size)]
    duration = measured.metric("db.client.operation.duration")
    assert (duration.unit, measured.metric("cryptostore.batch.size").unit) == ("s", "By")
    [point] = duration.data.data_points
    assert point.attributes == BATCH
    assert 0 < point.sum < 0.2
    assert point.explicit_bounds == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)


def test_an_outage_and_its_retries(measured: Measured, opened: Callable[[str], Backend], database: Pooled) -> None:
    store = opened("bot").open_store(ALICE, pickle_key=KEY)
    database.is_away = True
    for _ in range(2):
        with pytest.raises(BackendUnavailable):
            store.apply(Changes([SyncToken("s1")]))
    assert measured.points("cryptostore.outages") == [(ANNA, 1)]
    assert measured.points("db.client.operation.duration") == [({**BATCH, "error.type": "BackendUnavailable"}, 2)]
    [(attributes, retries)] = measured.points("cryptostore.retries")
    assert attributes == ANNA
    assert retries >= 2


@pytest.mark.parametrize(
    ("owner", "command"),
    [
        ("cryptostore rekey on host:12 [ab@cd]", "rekey"),
        ("cryptostore export-keys on host:12 [ab@cd]", "export-keys"),
        ("host:12 [ab@cd]", "none"),
        ("cryptostore <script> on host", "none"),
    ],
)
def test_a_fencing_names_the_command_and_never_the_process(
    owner: str, command: str, measured: Measured, opened: Callable[[str], Backend]
) -> None:
    store = opened("bot").open_store(ALICE, pickle_key=KEY)
    opened(owner).open_store(ALICE, pickle_key=KEY)
    with pytest.raises(Exception, match="was taken over"):
        store.check_ownership()
    assert measured.points("cryptostore.fencings") == [({**ANNA, "cryptostore.command": command}, 1)]


def test_openings(measured: Measured, opened: Callable[[str], Backend]) -> None:
    opened("bot").open_store(ALICE, pickle_key=KEY).apply(Changes([SyncToken("s1")]))
    with pytest.raises(WrongPickleKey):
        opened("cryptostore show on here").open_store(ALICE, Mode.READ, pickle_key=new_pickle_key())
    own = {**ANNA, "cryptostore.mode": "own", "cryptostore.command": "none"}
    assert measured.points("cryptostore.opened") == [(own, 1)]
    assert measured.points("cryptostore.open.failures") == [({**ANNA, "error.type": "WrongPickleKey"}, 1)]


@pytest.mark.parametrize(
    ("hook", "facts", "name", "attributes", "value"),
    [
        (
            "unreadable_row",
            {"kind": "value", "key": None, "reason": ""},
            "unreadable",
            {"cryptostore.kind": "value"},
            1,
        ),
        (
            "keys_exported",
            {"records": 7, "way": "copy", "destination": "d", "owner": "o"},
            "keys.exported",
            {"cryptostore.way": "copy"},
            7,
        ),
        (
            "secret_exported",
            {
                "secret_name": "recovery key",
                "way": "identity recovery-key",
                "destination": "standard output",
                "owner": "o",
            },
            "keys.exported",
            {"cryptostore.way": "identity recovery-key"},
            1,
        ),
        (
            "keys_imported",
            {"records": 7, "way": "restore", "source": "s", "owner": "o"},
            "keys.imported",
            {"cryptostore.way": "restore"},
            7,
        ),
        ("pruned", {"deleted": {"value": 3}, "owner": "o"}, "pruned", {"cryptostore.kind": "value"}, 3),
        ("gap_found", {"room_id": "!a:x"}, "gaps.found", {}, 1),
        ("gap_filled", {"room_id": "!a:x", "events": 12}, "gaps.filled", {}, 1),
        ("gap_filled", {"room_id": "!a:x", "events": 12}, "gaps.events", {}, 12),
        (
            "events_missed",
            {"room_id": "!a:x", "cause": "age", "count": 0},
            "gaps.missed",
            {"cryptostore.cause": "age"},
            1,
        ),
        (
            "identity_changed",
            {"identity_of": "@b:x", "previous": "p", "present": "q"},
            "identity.changes",
            {"cryptostore.whose": "other"},
            1,
        ),
        (
            "identity_changed",
            {"identity_of": ALICE.user_id, "previous": "p", "present": "q"},
            "identity.changes",
            {"cryptostore.whose": "own"},
            1,
        ),
        ("identity_settled", {"state": "signed", "reason": ""}, "identity.signed", {}, 1),
        ("identity_settled", {"state": "signed elsewhere", "reason": ""}, "identity.signed", {}, 1),
        ("identity_settled", {"state": "refused", "reason": "why"}, "identity.signed", {}, 0),
    ],
)
def test_what_is_counted(
    hook: str, facts: dict[str, Any], name: str, attributes: dict[str, Any], value: int, measured: Measured
) -> None:
    measured.notify(f"cryptostore_{hook}", account=ALICE, **facts)
    assert measured.points(f"cryptostore.{name}") == [({**ANNA, **attributes}, value)]


def test_how_long_changes_have_waited_grows_until_they_are_saved(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert measured.points("cryptostore.flush.waiting") == []
    measured.notify("cryptostore_flush_failed", account=ALICE, age=15.0, error="BackendUnavailable")
    now += 10
    assert measured.points("cryptostore.flush.waiting") == [(ANNA, 25.0)]
    assert measured.points("cryptostore.flush.failures") == [({**ANNA, "error.type": "BackendUnavailable"}, 1)]
    measured.notify("cryptostore_flushed", account=ALICE, records=1, age=25.0)
    assert measured.points("cryptostore.flush.waiting") == []
    assert measured.points("cryptostore.flush.age") == [(ANNA, 1)]


def test_nobody_waits_for_what_was_given_up(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def failed(error: str = "StorageFull") -> None:
        measured.notify("cryptostore_flush_failed", account=ALICE, age=1.0, error=error)
        assert measured.points("cryptostore.flush.waiting") or error != "StorageFull"

    failed()
    failed("FencedOut")
    assert measured.points("cryptostore.flush.waiting") == []
    failed()
    facts = {"mode": "own", "epoch": 2, "owner": "o", "previous_owner": "", "has_pickle_key": True, "backend": "memory"}
    measured.notify("cryptostore_store_opened", account=ALICE, **{**facts, "mode": "read"})
    assert measured.points("cryptostore.flush.waiting")
    measured.notify("cryptostore_store_opened", account=ALICE, **facts)
    assert measured.points("cryptostore.flush.waiting") == []
    failed()
    # The client was closed while the database was away.
    now += 1000
    assert measured.points("cryptostore.flush.waiting") == []


def test_connections_are_counted_when_they_are_asked_for(
    measured: Measured, opened: Callable[[str], Backend], database: Pooled
) -> None:
    pool = {"db.client.connection.pool.name": "postgresql://db/keys"}
    first = opened("bot")
    second = Backend(Pooled(MemoryDatabase()), name="postgres", notify=measured.notify, url="postgresql://db/keys")
    assert measured.points("db.client.connection.count") == [
        ({**pool, "db.client.connection.state": "used"}, 2),
        ({**pool, "db.client.connection.state": "idle"}, 4),
    ]
    second.close()
    assert measured.points("db.client.connection.max") == [(pool, 5)]
    assert measured.points("db.client.connection.pending_requests") == [(pool, 3)]
    first.close()
    assert measured.points("db.client.connection.max") == []


def test_a_database_that_nobody_closed_is_not_kept(measured: Measured) -> None:
    databases = [Pooled(MemoryDatabase()), MemoryHandle(MemoryDatabase())]
    for database in databases:
        Backend(database, name="memory", notify=measured.notify, url="memory://")
    assert len(measured.points("db.client.connection.max")) == 1
    del database
    databases.clear()
    gc.collect()
    assert measured.points("db.client.connection.max") == []


def test_no_more_series_for_more_devices_rooms_and_processes(measured: Measured) -> None:
    for number in range(50):
        account = Account(ALICE.user_id, f"DEVICE{number}")
        facts = {"mode": "own", "epoch": 1, "previous_owner": "", "has_pickle_key": True, "backend": "memory"}
        measured.notify("cryptostore_store_opened", account=account, owner=f"host:{number}", **facts)
        measured.notify("cryptostore_gap_filled", account=account, room_id=f"!{number}:x", events=1)
        measured.notify("cryptostore_flushed", account=account, records=1, age=0.1)
    for name in ("opened", "gaps.filled", "gaps.events", "flush.age"):
        assert [value for _, value in measured.points(f"cryptostore.{name}")] == [50]
