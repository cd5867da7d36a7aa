"""Metrics, by OpenTelemetry's API alone: what becomes of them is the program's to say.

Names follow OpenTelemetry's conventions for database clients where there is one. No metric names a device, a room or
the name of an owner, so that the number of its series stays that of the users.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from cryptostore.plugins.hookspecs import hookimpl
from cryptostore.records.record import Account

from .attributes import command_of, of_batch, of_user
from .pools import Count, Pools
from .versions import NAME, version
from .waiting import Waiting

#: By their names, the units and the descriptions of what is counted.
_COUNTERS: Final = {
    "batch.records": ("{record}", "Records that were saved or deleted."),
    "batch.size": ("By", "Bytes of keys and sealed values that were saved."),
    "retries": ("{retry}", "Attempts in vain that were followed by another."),
    "outages": ("{outage}", "Times that a batch found no database inside its deadline, only the first of a row."),
    "opened": ("{store}", "Accounts that were opened."),
    "open.failures": ("{failure}", "Accounts that could not be opened."),
    "fencings": ("{fencing}", "Stores that found their account taken over."),
    "unreadable": ("{row}", "Stored rows that could not be read, each time that they were met."),
    "flush.failures": ("{failure}", "Flushes of a client that failed; what they had waits."),
    "gaps.found": ("{gap}", "Timelines that the homeserver cut short."),
    "gaps.filled": ("{gap}", "Timelines of which all was fetched that had been left out."),
    "gaps.events": ("{event}", "Events that were fetched because they had been left out."),
    "gaps.missed": ("{gap}", "Times that events of a room were missed for good."),
    "keys.exported": ("{record}", "Records that left the database for an export, a copy or a backup."),
    "keys.imported": ("{record}", "Records that came in from a file or another database."),
    "pruned": ("{record}", "Records that were deleted because they were not needed any more."),
    "identity.changes": ("{change}", "Cross-signing identities that changed."),
}
#: As the conventions advise.
_OPERATION_SECONDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
_AGES: Final = (0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 1800)
_POOL: Final = "db.client.connection.pool.name"
_STATE: Final = "db.client.connection.state"
#: After these errors a store writes no more, so that nothing waits for it.
_FINAL: Final = frozenset({"FencedOut", "DatabaseWentBack", "AccountNotFound", "StoreClosed"})
_SIGNED: Final = frozenset({"signed", "signed elsewhere"})


class Metrics:
    """Counts and measures what happens, and tells what waits when it is asked: `provider`, or the process's own."""

    def __init__(self, provider: metrics.MeterProvider | None = None) -> None:
        meter = metrics.get_meter(NAME, version(), provider)
        self._counters: Final = {
            name: meter.create_counter(f"cryptostore.{name}", *described) for name, described in _COUNTERS.items()
        }
        self._duration: Final = meter.create_histogram(
            "db.client.operation.duration",
            "s",
            "Duration of database client operations: each is a batch, its retries included.",
            explicit_bucket_boundaries_advisory=_OPERATION_SECONDS,
        )
        self._age: Final = meter.create_histogram(
            "cryptostore.flush.age",
            "s",
            "How long the oldest change of a flush had waited when it was saved.",
            explicit_bucket_boundaries_advisory=_AGES,
        )
        self._signed: Final = meter.create_gauge(
            "cryptostore.identity.signed", "1", "Whether the account's identity has signed this device: 1 or 0."
        )
        self._waiting: Final = Waiting()
        self._pools: Final = Pools()
        self._create_gauges(meter)

    def _create_gauges(self, meter: metrics.Meter) -> None:
        meter.create_observable_gauge(
            "cryptostore.flush.waiting",
            [self._ages],
            "s",
            "How long the oldest change has waited that could not be saved; not there while all is well.",
        )
        meter.create_observable_up_down_counter(
            "db.client.connection.count",
            [self._connections],
            "{connection}",
            "The number of connections that are currently in the state described by the state attribute.",
        )
        meter.create_observable_up_down_counter(
            "db.client.connection.max", [self._most], "{connection}", "The maximum number of open connections allowed."
        )
        meter.create_observable_up_down_counter(
            "db.client.connection.pending_requests",
            [self._pending],
            "{request}",
            "The number of current pending requests for an open connection.",
        )

    def _add(self, name: str, number: int, account: Account, **attributes: str) -> None:
        self._counters[name].add(number, of_user(account, **attributes))

    @hookimpl
    def cryptostore_batch_applied(
        self, account: Account, records: int, size: int, seconds: float, backend: str
    ) -> None:
        """Count a batch."""
        self._duration.record(seconds, of_batch(account, backend))
        self._add("batch.records", records, account)
        self._add("batch.size", size, account)

    @hookimpl
    def cryptostore_batch_failed(self, account: Account, error: str, seconds: float, backend: str) -> None:
        """Count a batch that ended in an error."""
        self._duration.record(seconds, {**of_batch(account, backend), "error.type": error})

    @hookimpl
    def cryptostore_retried(self, account: Account) -> None:
        """Count a retry."""
        self._add("retries", 1, account)

    @hookimpl
    def cryptostore_unavailable(self, account: Account) -> None:
        """Count an outage."""
        self._add("outages", 1, account)

    @hookimpl
    def cryptostore_store_opened(self, account: Account, mode: str, owner: str) -> None:
        """Count an opening. Whoever owns the account now has written nothing yet."""
        if mode == "own":
            self._waiting.over(account)
        self._add("opened", 1, account, cryptostore__mode=mode, cryptostore__command=command_of(owner))

    @hookimpl
    def cryptostore_open_failed(self, account: Account, error: str) -> None:
        """Count an opening that failed."""
        self._add("open.failures", 1, account, error__type=error)

    @hookimpl
    def cryptostore_fenced(self, account: Account, owner: str) -> None:
        """Count a fencing, by a command or by another client."""
        self._add("fencings", 1, account, cryptostore__command=command_of(owner))

    @hookimpl
    def cryptostore_unreadable_row(self, account: Account, kind: str) -> None:
        """Count a row that cannot be read."""
        self._add("unreadable", 1, account, cryptostore__kind=kind)

    @hookimpl
    def cryptostore_keys_exported(self, account: Account, records: int, way: str) -> None:
        """Count what left."""
        self._add("keys.exported", records, account, cryptostore__way=way)

    @hookimpl
    def cryptostore_secret_exported(self, account: Account, way: str) -> None:
        """Count a secret that left, as a record."""
        self._add("keys.exported", 1, account, cryptostore__way=way)

    @hookimpl
    def cryptostore_keys_imported(self, account: Account, records: int, way: str) -> None:
        """Count what came in."""
        self._add("keys.imported", records, account, cryptostore__way=way)

    @hookimpl
    def cryptostore_pruned(self, account: Account, deleted: Mapping[str, int]) -> None:
        """Count what was deleted."""
        for kind, number in deleted.items():
            self._add("pruned", number, account, cryptostore__kind=kind)

    @hookimpl
    def cryptostore_flushed(self, account: Account, age: float) -> None:
        """Measure how long changes waited."""
        self._waiting.over(account)
        self._age.record(age, of_user(account))

    @hookimpl
    def cryptostore_flush_failed(self, account: Account, age: float, error: str) -> None:
        """Remember since when changes wait."""
        self._add("flush.failures", 1, account, error__type=error)
        if error in _FINAL:
            self._waiting.over(account)
        else:
            self._waiting.failed(account, age)

    @hookimpl
    def cryptostore_gap_found(self, account: Account) -> None:
        """Count a gap."""
        self._add("gaps.found", 1, account)

    @hookimpl
    def cryptostore_gap_filled(self, account: Account, events: int) -> None:
        """Count a gap that was filled, and its events."""
        self._add("gaps.filled", 1, account)
        self._add("gaps.events", events, account)

    @hookimpl
    def cryptostore_events_missed(self, account: Account, cause: str) -> None:
        """Count events that are missed for good, as one."""
        self._add("gaps.missed", 1, account, cryptostore__cause=cause)

    @hookimpl
    def cryptostore_identity_changed(self, account: Account, identity_of: str) -> None:
        """Count a change of somebody's identity."""
        whose = "own" if identity_of == account.user_id else "other"
        self._add("identity.changes", 1, account, cryptostore__whose=whose)

    @hookimpl
    def cryptostore_identity_settled(self, account: Account, state: str) -> None:
        """Remember whether the device is signed."""
        self._signed.set(int(state in _SIGNED), of_user(account))

    @hookimpl
    def cryptostore_database_opened(self, database: str, connections: Count) -> None:
        """Count these connections, too."""
        self._pools.opened(database, connections)

    @hookimpl
    def cryptostore_database_closed(self, connections: Count) -> None:
        """Count these connections no more."""
        self._pools.closed(connections)

    def _ages(self, _options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(age, of_user(account)) for account, age in self._waiting.ages()]

    def _connections(self, _options: CallbackOptions) -> Iterable[Observation]:
        for pool, counted in self._pools.counts():
            yield Observation(counted.used, {_POOL: pool, _STATE: "used"})
            yield Observation(counted.idle, {_POOL: pool, _STATE: "idle"})

    def _most(self, _options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(counted.most, {_POOL: pool}) for pool, counted in self._pools.counts()]

    def _pending(self, _options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(counted.waiting, {_POOL: pool}) for pool, counted in self._pools.counts()]
