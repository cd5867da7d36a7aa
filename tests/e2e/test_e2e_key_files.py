"""Files of room keys, from our command to the SDK that Element runs, and back."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Final

import pytest
from nio.crypto import OlmAccount

from command_line import run_process
from cryptostore import Account, InboundGroupSession, Mode, new_pickle_key, open_backend
from cryptostore.nio import NioStore, ProductionMatrixClient
from nio_places import Ratchet
from peer_install import PROGRAM, peer_command

pytestmark = pytest.mark.e2e

ALICE, BOB = Account("@alice:example.org", "A"), Account("@bob:example.org", "B")
KEY: Final = new_pickle_key()
PASSPHRASE: Final = "a passphrase, ünguessable"
KEYS: Final = 40


def sessions(url: str, account: Account) -> dict[object, tuple[bytes, str]]:
    with open_backend(url) as backend, backend.open_store(account, Mode.READ, pickle_key=KEY) as store:
        return {each.key: (each.session_key, each.signing_key) for each in store.scan(InboundGroupSession)}


def through_the_sdk(source: Path, destination: Path) -> dict[str, int]:
    """Let the SDK take a file in, and write another one of the same keys."""
    node, _, modules = peer_command()
    words = [node, str(PROGRAM / "key_files.mjs"), modules, str(source), str(destination)]
    done = subprocess.run(words, input=PASSPHRASE, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    answer: dict[str, int] = json.loads(done.stdout)
    return answer


def test_keys_go_to_elements_sdk_and_come_back_the_same(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/keys.db"
    # The SDK wants real keys of the sender, too.
    sender = OlmAccount().identity_keys
    for account in (ALICE, BOB):
        store = NioStore(account.user_id, account.device_id, url, KEY)
        store.save_account(OlmAccount())
        for number in range(KEYS) if account == ALICE else ():
            ratchet = Ratchet(sender["curve25519"], f"!room{number % 3}:example.org").advance(number % 4)
            store.save_inbound_group_session(ratchet.inbound(signing_key=sender["ed25519"]))
        store.close()
    environment = {"CRYPTOSTORE_PICKLE_KEY": KEY, "PASSPHRASE": PASSPHRASE}
    ours, theirs = tmp_path / "ours.txt", tmp_path / "theirs.txt"
    words = ("--passphrase-env", "PASSPHRASE", "--user-id")
    exported = run_process("export-keys", ours, url, *words, ALICE.user_id, env=environment)
    assert (exported.code, exported.err) == (0, "")
    assert through_the_sdk(ours, theirs) == {"total": KEYS, "imported": KEYS}
    imported = run_process("import-keys", theirs, url, *words, BOB.user_id, "--watch", "0", "--json", env=environment)
    assert imported.code == 0, imported
    assert (imported.document["total"], imported.document["taken_in"]) == (KEYS, KEYS)
    assert sessions(url, BOB) == sessions(url, ALICE)
    # So is what was imported, which has a forwarding chain.
    again = tmp_path / "again.txt"
    assert run_process("export-keys", again, url, *words, BOB.user_id, env=environment).code == 0
    assert through_the_sdk(again, tmp_path / "again_back.txt") == {"total": KEYS, "imported": KEYS}
    # What a running client exports is the same to it.
    asyncio.run(exported_by_a_client(url, tmp_path / "client.txt"))
    assert through_the_sdk(tmp_path / "client.txt", tmp_path / "back.txt") == {"total": KEYS, "imported": KEYS}


async def exported_by_a_client(url: str, file: Path) -> None:
    client = ProductionMatrixClient("http://nowhere", ALICE.user_id, ALICE.device_id, store=url, pickle_key=KEY)
    await client.open()
    await client.export_keys(str(file), PASSPHRASE)
    await client.close()
