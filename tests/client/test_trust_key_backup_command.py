"""`cryptostore restore-backup`, on a database that a client has logged in with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from backed_up import PRIVATE_KEY, backed_up
from client_pairs import BOB, CONFIG, ROOM, say_in_new_sessions
from command_line import Ended, run_process
from cryptostore import Account, Changes, InboundGroupSession, Mode, Value, open_backend
from cryptostore.cli.exits import ExitCode
from cryptostore.nio import ProductionMatrixClient
from cryptostore.trust.recovery_key import encode
from cryptostore_contract.samples import KEY
from small_room_keys import RoomKeys

LAPTOP = Account(BOB.user_id, "BOBLAPTOP")


@asynccontextmanager
async def logged_in(folder: Path) -> AsyncIterator[tuple[RoomKeys, str]]:
    """A new device of Bob's has logged in; his old one has backed three sessions up."""
    url = f"sqlite:///{folder}/keys.db"
    async with backed_up("memory://restore-backup") as (keys, alice, bob):
        await alice.say("one")
        say_in_new_sessions(alice, ["two", "three"])
        await bob.round()
        await bob.client.back_up()
        client = ProductionMatrixClient(
            keys.server.url,
            *(LAPTOP.user_id, LAPTOP.device_id),
            store=url,
            pickle_key=KEY,
            config=CONFIG,
            cross_signing=False,
        )
        async with client:
            await client.login_or_restore(password="password")
        yield keys, url


async def run(url: str, *words: str, **variables: str) -> Ended:
    environment = {"CRYPTOSTORE_PICKLE_KEY": KEY, **variables}
    # The client that has logged in was this process's, which goes on.
    words = ("--watch", "0", *words)
    return await asyncio.to_thread(partial(run_process, "restore-backup", url, *words, env=environment))


def test_the_backup_comes_into_the_database(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with logged_in(tmp_path) as (_keys, url):
            # As the bot itself has it.
            ended = await run(f"{url}?owner=the%20bot", CRYPTOSTORE_RECOVERY_KEY=encode(PRIVATE_KEY))
            assert ended.code == ExitCode.DONE, ended.err
            assert "Restored the key backup 1 of @bob:small BOBLAPTOP" in ended.out
            with open_backend(url) as backend:
                assert "cryptostore restore-backup on " in backend.accounts()[LAPTOP].owner
                with backend.open_store(LAPTOP, Mode.READ, pickle_key=KEY) as store:
                    rows = store.select(InboundGroupSession, [()])[()]
            assert [row.from_backup for row in rows] == [True, True, True]
            (tmp_path / "recovery key").write_text(encode(PRIVATE_KEY) + "\n")
            ended = await run(url, "--json", "--recovery-key-file", str(tmp_path / "recovery key"))
            assert ended.code == ExitCode.DONE
            assert ended.document == {
                "database": url,
                "user_id": LAPTOP.user_id,
                "device_id": LAPTOP.device_id,
                "version": "1",
                "total": 3,
                "taken_in": 0,
                "skipped": 0,
            }

    asyncio.run(scenario())


def test_what_is_wrong_is_named_and_a_script_can_tell(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with logged_in(tmp_path) as (keys, url):
            assert "give the recovery key" in (await run(url)).err
            ended = await run(url, CRYPTOSTORE_RECOVERY_KEY="a passphrase")
            assert (ended.code, "does not open" in ended.err) == (ExitCode.USAGE, True)
            entries = keys.current(BOB.user_id).entries[ROOM]
            entries[next(iter(entries))] = {"session_data": {}}
            ended = await run(url, CRYPTOSTORE_RECOVERY_KEY=encode(PRIVATE_KEY))
            assert ended.code == ExitCode.CHECK_FAILED
            assert "left out 1 entries of the key backup: its ciphertext is no base64" in ended.err
            keys.server.tokens.clear()
            ended = await run(url, CRYPTOSTORE_RECOVERY_KEY=encode(PRIVATE_KEY))
            assert (ended.code, "access token" in ended.err) == (ExitCode.REFUSED, True)

    asyncio.run(scenario())


def test_an_account_that_no_client_has_logged_in_has_no_homeserver(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/keys.db"

    async def scenario() -> None:
        async with backed_up(url):
            pass
        ended = await run(url, "--user-id", BOB.user_id)
        assert (ended.code, "has no login of @bob:small" in ended.err) == (ExitCode.USAGE, True)

    asyncio.run(scenario())


def test_an_account_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with logged_in(tmp_path) as (_keys, url):
            recovery_key = encode(PRIVATE_KEY)
            with open_backend(url) as backend, backend.open_store(LAPTOP, pickle_key=KEY) as store:
                owner = backend.accounts()[LAPTOP].owner
                command = asyncio.create_task(run(url, "--watch", "60", CRYPTOSTORE_RECOVERY_KEY=recovery_key))
                while not command.done():
                    store.apply(Changes([Value("a client", "writes", b"")]))
                    await asyncio.sleep(0.05)
                assert backend.accounts()[LAPTOP].owner == owner
                assert (command.result().code, "--even-if-used" in command.result().err) == (ExitCode.USAGE, True)
                assert not store.select(InboundGroupSession, [()])[()]
                ended = await run(url, "--even-if-used", CRYPTOSTORE_RECOVERY_KEY=recovery_key)
                assert ended.code == ExitCode.DONE, ended.err
                assert len(store.select(InboundGroupSession, [()])[()]) == 3

    asyncio.run(scenario())
