"""`cryptostore identity`, on a database that a client has made an identity in."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path

import pytest

from backed_up import backed_up
from command_line import Ended, run_process
from cryptostore.trust import recovery_key
from cryptostore_contract.samples import KEY
from own_identities import USER, client_at, identities, kept_seeds, opened


async def run(audit: Path, *words: str) -> Ended:
    environment = {"CRYPTOSTORE_PICKLE_KEY": KEY, "CRYPTOSTORE_AUDIT_LOG": str(audit)}
    return await asyncio.to_thread(partial(run_process, "identity", *words, env=environment))


def test_a_new_identity_is_shown_and_its_recovery_key_opens_the_secret_storage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        url, audit = f"sqlite:///{tmp_path}/keys.db", tmp_path / "audit.jsonl"
        async with identities() as (server, known):
            async with client_at(server, url) as client:
                await client.login_or_restore("password")
                assert "`cryptostore identity recovery-key` shows it" in caplog.text
                seeds, device = kept_seeds(client), client.machine.account.identity_keys["ed25519"]
                assert seeds is not None
            (account,) = (await run(audit, url, "--json")).document["accounts"]
            assert (account["signing_key"], account["signed"], account["private_keys"]) == (device, True, True)
            assert account["identity"]["master_key"] == seeds.public.master == known.master_key(USER)
            assert account["recovery_key"]["shown_at"] is None

            ended = await run(audit, "recovery-key", url, "--even-if-used")
            assert opened(known, recovery_key.decode(ended.out)).items() >= seeds.by_name().items()
            [shown] = [each for line in audit.read_text().splitlines() if "secret_name" in (each := json.loads(line))]
            assert (shown["event"], shown["secret_name"], shown["user_id"]) == ("secret_exported", "recovery key", USER)
            assert (shown["way"], shown["destination"]) == ("identity recovery-key", "standard output")
            assert shown["owner"].startswith("cryptostore identity recovery-key on ")
            assert ended.out.strip() not in audit.read_text()

            caplog.clear()
            async with client_at(server, url) as client:
                await client.login_or_restore()
            assert "was not shown to anybody yet" not in caplog.text

    asyncio.run(scenario())


def test_the_backup_is_shown_when_all_is_in_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        url = f"sqlite:///{tmp_path}/keys.db"
        async with backed_up("memory://", url) as (_, alice, bob):
            await alice.say("one")
            await bob.round()
            await bob.client.back_up()
            await bob.client.flush()
            (account,) = (await run(tmp_path / "audit.jsonl", url, "--json")).document["accounts"]
            assert (account["backup"]["version"], account["backup"]["private_key"]) == ("1", True)
            assert (account["backup"]["all_sessions_seen"], account["sessions_waiting"]) == (True, 0)

    asyncio.run(scenario())
