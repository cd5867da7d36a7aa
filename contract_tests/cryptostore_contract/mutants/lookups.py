"""Mutants that answer something else than what was asked for: look-ups, prefixes, order and scans."""

from __future__ import annotations

import copy
import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import pytest

from cryptostore import BackendUnavailable, Changes, CryptoStore, InboundGroupSession, Key, MessageIndex, Record, memory
from cryptostore.lifecycle import OpenFlag
from cryptostore.memory import MemoryStore, Table

from .registry import mutant

R = TypeVar("R", bound=Record)

#: As many connections as a pool of the mutants has.
_POOL = 10


@mutant("READING-2")
def absent_keys_answered(patch: pytest.MonkeyPatch) -> None:
    """A key without a record is answered with the last one that was found."""
    original = MemoryStore.get

    def get(store: MemoryStore, kind: type[R], keys: Iterable[Key]) -> dict[Key, R]:
        asked = list(keys)
        found: dict[Key, R] = original(store, kind, asked)
        return {key: found.get(key, next(iter(found.values()))) for key in asked} if found else {}

    patch.setattr(MemoryStore, "get", get)


@mutant("READING-3")
def many_keys_cut_off(patch: pytest.MonkeyPatch) -> None:
    """A statement takes 1,000 parameters, and the rest is dropped."""
    original = MemoryStore.get

    def get(store: MemoryStore, kind: type[R], keys: Iterable[Key]) -> dict[Key, R]:
        return original(store, kind, list(keys)[:1_000])

    patch.setattr(MemoryStore, "get", get)


@mutant("READING-10")
def many_prefixes_cut_off(patch: pytest.MonkeyPatch) -> None:
    """The same with prefixes, whose answer then looks complete."""
    original = MemoryStore.select

    def select(store: MemoryStore, kind: type[R], prefixes: Iterable[Key]) -> dict[Key, list[R]]:
        asked = list(prefixes)
        return {prefix: [] for prefix in asked} | original(store, kind, asked[:1_000])

    patch.setattr(MemoryStore, "select", select)


@mutant("READING-4")
def asked_twice_answered_twice(patch: pytest.MonkeyPatch) -> None:
    """A join with the prefixes gives a record for each time that its prefix was named."""
    original = MemoryStore.select

    def select(store: MemoryStore, kind: type[R], prefixes: Iterable[Key]) -> dict[Key, list[R]]:
        asked = list(prefixes)
        return {prefix: found * asked.count(prefix) for prefix, found in original(store, kind, asked).items()}

    patch.setattr(MemoryStore, "select", select)


@mutant("READING-12")
def prefixes_without_a_record_left_out(patch: pytest.MonkeyPatch) -> None:
    """A prefix under which nothing is has no list."""
    original = MemoryStore.select

    def select(store: MemoryStore, kind: type[R], prefixes: Iterable[Key]) -> dict[Key, list[R]]:
        return {prefix: found for prefix, found in original(store, kind, prefixes).items() if found}

    patch.setattr(MemoryStore, "select", select)


@mutant("READING-8", "READING-9")
def prefix_leaks_a_neighbour(patch: pytest.MonkeyPatch) -> None:
    """The prefix ("!a",) selects the room "!ab" as well."""

    def page(table: Table, prefix: Key, after: Key | None = None, size: int | None = None) -> list[Any]:
        keys = sorted(key for key in table.records if after is None or key > after)
        found = [key for key in keys if all(str(one).startswith(str(two)) for one, two in zip(key, prefix))]  # noqa: B905  # a prefix is shorter
        return [table.records[key] for key in found[:size]]

    patch.setattr(Table, "page", page)


@mutant("READING-7")
def integers_ordered_as_text(patch: pytest.MonkeyPatch) -> None:
    """10 comes before 2."""
    patch.setattr(memory, "sort_key", lambda key: tuple(str(value).encode() for value in key))


@mutant("READING-6")
def keys_ordered_by_utf_16(patch: pytest.MonkeyPatch) -> None:
    """An astral character comes before a private one."""
    patch.setattr(
        memory,
        "sort_key",
        lambda key: tuple(value.encode("utf-16-be") if isinstance(value, str) else value for value in key),
    )


@mutant("READING-13")
def indices_of_another_session_deleted(patch: pytest.MonkeyPatch) -> None:
    """Anyone can claim a session's id: its indices are looked for without the sender's key."""

    def session_deletion(store: CryptoStore, session: InboundGroupSession) -> Changes:
        indices = store.select(MessageIndex, [(session.session_id,)])[session.session_id,]
        return Changes(deletes=[(type(session), session.key), *((MessageIndex, index.key) for index in indices)])

    patch.setattr(CryptoStore, "session_deletion", session_deletion)


@mutant("SCANNING-1")
def page_begins_with_the_last_ones_end(patch: pytest.MonkeyPatch) -> None:
    """>= where > is meant."""
    patch.setattr(memory, "bisect_right", bisect_left)


@mutant("SCANNING-3")
def page_begins_after_a_field(patch: pytest.MonkeyPatch) -> None:
    """The next page begins above the first field of the last key, not above the key."""
    original = Table.page

    def page(table: Table, prefix: Key, after: Key | None = None, size: int | None = None) -> list[Any]:
        records = original(table, prefix, after, None)
        return [record for record in records if after is None or record.key[0] != after[0]][:size]

    patch.setattr(Table, "page", page)


@mutant("SCANNING-5")
def pages_counted_by_position(patch: pytest.MonkeyPatch) -> None:
    """LIMIT and OFFSET: what is put before a page shifts it."""

    def pages(store: MemoryStore, kind: type[Record], prefix: Key) -> Iterator[Record]:
        offset = 0
        while page := store._row.table(kind).page(prefix)[offset : offset + 1_000]:
            yield from page
            offset += len(page)

    patch.setattr(MemoryStore, "_pages", pages)


@mutant("SCANNING-6")
def scan_loads_everything(patch: pytest.MonkeyPatch) -> None:
    """A scan is a select."""
    patch.setattr(MemoryStore, "scan", lambda store, kind, prefix=(): iter(store.select(kind, [prefix])[prefix]))


@mutant("SCANNING-8")
def scans_share_a_cursor(patch: pytest.MonkeyPatch) -> None:
    """A second scan goes on where the first one is."""

    def pages(store: MemoryStore, kind: type[Record], prefix: Key) -> Iterator[Record]:
        while page := store._row.table(kind).page(prefix, store.__dict__.get("after"), 1_000):
            store.__dict__["after"] = page[-1].key
            yield from page

    patch.setattr(MemoryStore, "_pages", pages)


@mutant("SCANNING-4")
def scan_holds_its_connection(patch: pytest.MonkeyPatch) -> None:
    """A scan keeps its connection until it ends, and a pool has ten."""
    original = MemoryStore._pages

    def pages(store: MemoryStore, kind: type[Record], prefix: Key) -> Iterator[Record]:
        connections = store.__dict__.setdefault("connections", [])
        if len(connections) == _POOL:
            raise BackendUnavailable("no connection is free")
        connections.append(kind)
        yield from original(store, kind, prefix)
        connections.pop()

    patch.setattr(MemoryStore, "_pages", pages)


@mutant("LIFECYCLE-3")
def scan_goes_on_after_close(patch: pytest.MonkeyPatch) -> None:
    """A page is fetched without a look at whether the store is open."""
    original = MemoryStore._pages

    def pages(store: MemoryStore, kind: type[Record], prefix: Key) -> Iterator[Record]:
        unchecked = copy.copy(store)
        unchecked.__dict__["_is_open"] = OpenFlag("a store that nobody closes")
        yield from original(unchecked, kind, prefix)

    patch.setattr(MemoryStore, "_pages", pages)


@mutant("CONCURRENCY-1")
def answers_of_threads_mixed(patch: pytest.MonkeyPatch) -> None:
    """A store keeps its last answer where any thread may take it for its own."""
    original = MemoryStore.get
    lock = threading.Lock()

    def get(store: MemoryStore, kind: type[R], keys: Iterable[Key]) -> dict[Key, R]:
        with lock:
            store.__dict__["answer"] = original(store, kind, keys)
        time.sleep(0.001)
        answer: dict[Key, R] = store.__dict__["answer"]
        return answer

    patch.setattr(MemoryStore, "get", get)
