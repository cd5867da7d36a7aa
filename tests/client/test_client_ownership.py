"""A process that has nothing to write notices all the same that it lost its account."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from client_pairs import BOB, Person, people
from cryptostore import AccountNotFound, BackendUnavailable, DatabaseWentBack, FencedOut, Value, open_backend
from cryptostore.nio import ProductionMatrixClient
from cryptostore.nio.client.takeovers import HISTORY
from cryptostore.store.memory import MemoryHandle
from cryptostore_contract.samples import KEY

#: A client that has nothing to write asks after each sync, so that these tests need not wait.
ASKING: Final[Any] = {"ownership_check_interval": 0.0}


def owned_by(url: str, owner: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}owner={owner}"


def test_an_idle_process_ends_when_another_takes_over(url: str) -> None:
    async def scenario() -> None:
        async with people(url, **ASKING) as (server, _alice, bob):
            await bob.client.sync()
            forever = asyncio.create_task(bob.client.sync_forever(timeout=50))
            await bob.client.synced.wait()
            newer = Person(server, BOB, owned_by(url, "the-newer-process"))
            await newer.start()
            flushes = bob.client.statistics.flushes
            # Nothing is said, and no key is used up: bob has nothing to write.
            with pytest.raises(FencedOut, match="the-newer-process") as error:
                await forever
            assert error.value.owner == "the-newer-process"
            assert bob.client.statistics.flushes == flushes
            assert bob.client.statistics.ownership_checks > 0
            assert bob.client.statistics.loop_reads == 0
            asked = len(server.requests)
            with pytest.raises(FencedOut, match="the-newer-process"):
                await bob.client.whoami()
            assert len(server.requests) == asked
            await newer.client.close()

    asyncio.run(scenario())


async def template(client: ProductionMatrixClient) -> None:
    """The loop of nio's template: whatever goes wrong, it tries again."""
    for _ in range(3):
        client.restore_login(BOB.user_id, BOB.device_id, f"token of {BOB.device_id}")
        with pytest.raises(FencedOut, match="the-newer-process"):
            await client.sync_forever(timeout=50)
        await client.close()


@pytest.mark.parametrize("is_idle", [True, False])
def test_a_program_that_catches_everything_does_not_take_its_account_back(url: str, *, is_idle: bool) -> None:
    async def scenario() -> None:
        async with people(url, **ASKING) as (server, _alice, bob):
            newer = await Person(server, BOB, owned_by(url, "the-newer-process")).start()
            if not is_idle:
                bob.client.machine.save_account()
            await template(bob.client)
            for opening in (bob.client.open, bob.client.login_or_restore):
                with pytest.raises(FencedOut, match=r"the-newer-process.*does not take it back.*take_over=True"):
                    await opening()
            await newer.client.sync()
            await newer.client.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("is_closed", [True, False])
@pytest.mark.parametrize("how", ["open", "login_or_restore"])
def test_an_account_is_taken_back_by_a_program_that_says_so(memory_url: str, how: str, *, is_closed: bool) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            newer = await Person(server, BOB, owned_by(memory_url, "the-newer-process")).start()
            with pytest.raises(FencedOut):
                await bob.client.check_ownership()
            if is_closed:
                await bob.client.close()
            asked = len(server.requests)
            with pytest.raises(FencedOut, match=r"the-newer-process.*does not take it back.*take_over=True"):
                await getattr(bob.client, how)()
            assert len(server.requests) == asked
            await getattr(bob.client, how)(take_over=True)
            await bob.client.sync()
            with pytest.raises(FencedOut):
                await newer.client.sync()
            await newer.client.close()

    asyncio.run(scenario())


def test_an_idle_process_ends_when_its_account_is_deleted_and_made_anew(url: str) -> None:
    async def scenario() -> None:
        async with people(url, **ASKING) as (_, alice, bob):
            for person in (alice, bob):
                await person.client.sync()
            with open_backend(url) as backend:
                for person in (alice, bob):
                    backend.delete_account(person.account)
                backend.open_store(BOB, pickle_key=KEY).close()
            for person in (alice, bob):
                with pytest.raises(AccountNotFound):
                    await person.client.sync()

    asyncio.run(scenario())


def test_a_client_that_writes_nothing_asks_the_database_no_more_often_than_it_is_told(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(MemoryHandle, "find", _noting(asked, MemoryHandle.find))

    async def scenario(interval: float) -> int:
        asked.clear()
        async with people(memory_url, ownership_check_interval=interval) as (_, _alice, bob):
            await bob.client.sync()
            before = len(asked)
            for _ in range(5):
                await bob.client.sync()
            return len(asked) - before

    assert asyncio.run(scenario(3600)) == 0
    assert asyncio.run(scenario(0)) == 5


def _noting(asked: list[object], find: Callable[..., Any]) -> Callable[..., Any]:
    def noted(handle: MemoryHandle, *arguments: Any) -> Any:
        asked.append(handle)
        return find(handle, *arguments)

    return noted


def test_an_idle_process_does_not_care_whether_the_database_is_there(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with people(memory_url, **ASKING) as (_, alice, bob):
            await bob.client.sync()
            with monkeypatch.context() as away:
                # A database in memory is never away by itself.
                away.setattr(MemoryHandle, "find", _refuse)
                await bob.client.sync()
            assert bob.client.statistics.ownership_checks > 0
            await alice.say("one")
            await bob.client.sync()
            assert bob.read == ["one"]

    asyncio.run(scenario())


def _refuse(*_: object) -> None:
    raise BackendUnavailable("away")


def test_clients_that_take_an_account_from_each_other_write_it_down_and_wait(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            await bob.client.close()
            histories: list[dict[str, Any]] = []
            for number in range(5):
                # An owner with another host's name may be alive.
                rival = Person(server, BOB, owned_by(memory_url, f"host{number}:1"))
                await rival.start()
                await rival.client.flush()
                histories += [json.loads(row.value) for row in rival.stored(Value) if row.key == HISTORY]
                await rival.client.close()
            # The first took it from this very process, which is no rival.
            assert [len(history["times"]) for history in histories] == [0, 1, 2, 3, 4]
            assert [history["pause"] for history in histories] == [0, 0, 0, 0, 1.0]

    asyncio.run(scenario())


@pytest.mark.parametrize("is_from_before_the_opening", [False, True])
@pytest.mark.parametrize("is_idle", [False, True])
def test_a_backup_that_is_put_back_under_a_client_ends_it(
    tmp_path: Path, *, is_idle: bool, is_from_before_the_opening: bool
) -> None:
    file, backup = tmp_path / "keys.db", tmp_path / "backup.db"

    async def scenario() -> None:
        async with people(f"sqlite:///{file}") as (server, alice, _bob):
            if is_from_before_the_opening:
                copy(file, backup)
                await alice.restart()
            await alice.client.sync()
            if not is_from_before_the_opening:
                copy(file, backup)
            await alice.say("one")
            copy(backup, file)
            asked = len(server.requests)
            with pytest.raises(DatabaseWentBack, match="older than what it acknowledged"):
                await (alice.client.check_ownership() if is_idle else alice.say("two"))
            with pytest.raises(DatabaseWentBack):
                await alice.client.whoami()
            # Not even to a program that tries again: only a new process may begin anew, after `cryptostore restored`.
            for again in (alice.client.open, alice.client.login_or_restore):
                with pytest.raises(DatabaseWentBack):
                    await again()
            # Its ratchets are those of the lost batches: nothing of them leaves any more.
            assert len(server.requests) == asked

    asyncio.run(scenario())


def copy(one: Path, other: Path) -> None:
    """Copy a database over another one that may be in use."""
    with closing(sqlite3.connect(one)) as source, closing(sqlite3.connect(other)) as target:
        source.backup(target)
