"""What a client tells observers: how long changes wait, what was left out and filled, and whose identity changed."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from client_gaps import causes, fault, numbered, refuse, write
from client_pairs import ALICE, BOB, ROOM, lockable, locked, people
from cross_signed import identities
from cryptostore import Account, BackendUnavailable, hookimpl
from cryptostore.plugins.observers import observers
from own_identities import client_at, kept_seeds
from own_identities import identities as own_identities
from patience import PATIENCE
from told import Told


def test_how_long_the_oldest_change_waited(tmp_path: Path, told: Told) -> None:
    async def scenario() -> None:
        async with people(lockable(tmp_path), "memory://") as (_server, alice, _bob):
            told.clear()
            with locked(tmp_path), pytest.raises(BackendUnavailable):
                await alice.say("while away")
            await asyncio.sleep(0.2)
            await alice.say("after")

    asyncio.run(scenario())
    of_alice = [(name, facts) for name, facts in told if facts.get("account") == ALICE]
    failed = [facts for name, facts in of_alice if name == "flush_failed"]
    flushed = [facts for name, facts in of_alice if name == "flushed"]
    # The deadline is a second, and the first attempt has a half of it. What was not written went on waiting.
    assert failed[0]["age"] > 0.3
    assert failed[0]["error"] == "BackendUnavailable"
    assert flushed[0]["age"] > failed[-1]["age"]
    assert flushed[0]["records"] > 0


def test_hooks_of_a_flush_are_called_in_a_thread(memory_url: str) -> None:
    threads: set[bool] = set()

    class Watching:
        @hookimpl
        def cryptostore_flushed(self) -> None:
            threads.add(threading.current_thread() is threading.main_thread())

        @hookimpl
        def cryptostore_batch_applied(self) -> None:
            threads.add(threading.current_thread() is threading.main_thread())

    async def scenario() -> None:
        async with people(memory_url) as (_server, alice, _bob):
            await alice.say("hello")

    observers().add("watching", Watching())
    try:
        asyncio.run(scenario())
    finally:
        observers().remove("watching")
    assert threads == {False}


def test_an_observer_that_is_slow_holds_up_neither_the_loop_nor_another_client(memory_url: str) -> None:
    entered, leave = threading.Event(), threading.Event()

    class Slow:
        @hookimpl
        def cryptostore_batch_applied(self, account: Account) -> None:
            if account == ALICE:
                entered.set()
                assert leave.wait(PATIENCE)

    async def scenario() -> None:
        async with people(memory_url) as (_server, alice, bob):
            observers().add("slow", Slow())
            slowly = asyncio.create_task(alice.say("hello"))
            assert await asyncio.to_thread(entered.wait, PATIENCE)
            await bob.say("I am not held up")
            assert not slowly.done()
            leave.set()
            await slowly

    try:
        asyncio.run(scenario())
    finally:
        observers().remove("slow")


def test_gaps_that_are_found_and_filled(memory_url: str, told: Told) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            write(server, numbered(68))
            await bob.client.sync()
            assert bob.read == numbered(68)

    asyncio.run(scenario())
    assert told.of("gap_found", "account", "room_id") == [(BOB, ROOM)]
    assert told.of("gap_filled", "account", "room_id", "events") == [(BOB, ROOM, 68)]
    assert not told.of("events_missed")


def test_events_that_are_missed_for_good(memory_url: str, told: Told) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            fault(server, refuse(403, "M_FORBIDDEN"))
            write(server, numbered(30))
            await bob.client.sync()
            assert causes(bob) == ["refused"]

    asyncio.run(scenario())
    assert told.of("events_missed", "account", "room_id", "cause", "count") == [(BOB, ROOM, "refused", 0)]
    assert not told.of("gap_filled")


def test_the_identity_of_another_user(memory_url: str, told: Told) -> None:
    keys: list[str] = []

    async def scenario() -> None:
        async with identities(memory_url) as (_server, crossed, alice, _bob):
            keys.append(crossed.make(BOB.user_id).public.master)
            await alice.round()
            keys.append(crossed.make(BOB.user_id).public.master)
            await alice.round()

    asyncio.run(scenario())
    facts: list[Any] = told.of("identity_changed", "account", "identity_of", "previous", "present")
    assert (ALICE, BOB.user_id, *keys) in facts


def test_the_accounts_own_identity(memory_url: str, told: Told) -> None:
    keys: list[str] = []

    async def scenario() -> None:
        async with own_identities() as (server, _known), client_at(server, memory_url) as client:
            for change in (client.login_or_restore, client.reset_identity):
                await change("password")
                seeds = kept_seeds(client)
                assert seeds is not None
                keys.append(seeds.public.master)

    asyncio.run(scenario())
    first, second = keys
    assert told.of("identity_changed", "previous", "present") == [("", first), (first, second)]
    assert told.of("identity_settled", "state", "reason") == [("signed", "")]
