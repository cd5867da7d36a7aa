"""Files of room keys that a client writes: whole, or not at all."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from nio import LocalProtocolError
from nio.crypto.key_export import decrypt_and_read

from client_pairs import ALICE
from cryptostore import ConfigurationError, Row, StorageFull, hookimpl, open_backend
from cryptostore import InboundGroupSession as Stored
from cryptostore.nio import ProductionMatrixClient
from cryptostore.plugins.observers import observers
from cryptostore.store.keys import encode_key
from cryptostore.trust.key_file import KeyFile, KeyFileWriter
from cryptostore_contract.limits import limited_files
from cryptostore_contract.samples import KEY
from leaks import shown
from nio_places import Ratchet
from patience import wait_until

PASSPHRASE = "a passphrase, ünguessable"


def a_client(url: str) -> ProductionMatrixClient:
    return ProductionMatrixClient("http://nowhere", ALICE.user_id, ALICE.device_id, store=url, pickle_key=KEY)


def exporting(client: ProductionMatrixClient, *ratchets: Ratchet) -> None:
    """Keys that wait for the next flush."""
    store = client.production_store
    for ratchet in ratchets:
        session = ratchet.inbound("forwarded")
        store.load_inbound_group_sessions().add(session)
        store.save_inbound_group_session(session)


def items_of(file: Path) -> list[Any]:
    """What is in a file, of any number of rounds; nio would take 10 seconds for those of Element."""
    return list(KeyFile(file, PASSPHRASE).items())


def nios_items_of(file: Path) -> list[Any]:
    """What nio reads, which takes a passphrase for Latin-1."""
    found: list[Any] = json.loads(decrypt_and_read(str(file), PASSPHRASE.encode().decode("latin-1")))
    return found


def opened(url: str, scenario: Callable[[ProductionMatrixClient], Awaitable[None]]) -> None:
    async def run() -> None:
        client = a_client(url)
        await client.open()
        try:
            await scenario(client)
        finally:
            await client.close()

    asyncio.run(run())


def test_all_keys_are_exported_as_other_clients_read_them(memory_url: str, tmp_path: Path) -> None:
    file, ratchets = tmp_path / "keys.txt", [Ratchet(room=f"!{number}:x") for number in range(30)]

    async def scenario(client: ProductionMatrixClient) -> None:
        exporting(client, *ratchets[:20])
        await client.flush()
        exporting(client, *ratchets[20:])
        await client.export_keys(str(file), PASSPHRASE)
        assert not client.production_store.is_dirty
        assert client.statistics.loop_reads == 0
        await client.export_keys(f"{file}.nio", PASSPHRASE, count=10)

    opened(memory_url, scenario)
    assert nios_items_of(Path(f"{file}.nio")) == items_of(file)
    assert file.stat().st_mode & 0o777 == 0o600
    rounds = base64.b64decode(file.read_text().split("\n")[1])[33:37]
    assert int.from_bytes(rounds, "big") == 500_000
    items = {each["session_id"]: each for each in items_of(file)}
    assert items.keys() == {ratchet.id for ratchet in ratchets}
    for ratchet in ratchets:
        session, found = ratchet.inbound("forwarded"), items[ratchet.id]
        assert found["session_key"] == session.export_session(session.first_known_index)
        assert (found["room_id"], found["sender_key"]) == (session.room_id, session.sender_key)
        assert found["forwarding_curve25519_key_chain"] == ["forwarded"]
        assert found["sender_claimed_keys"] == {"ed25519": session.ed25519}


def test_keys_that_are_on_their_way_to_the_database_are_exported(memory_url: str, tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    async def scenario(client: ProductionMatrixClient) -> None:
        storage = client.production_store.storage
        apply = storage.apply_taken

        def slow() -> None:
            begun.set()
            assert go_on.wait(30)
            apply()

        storage.apply_taken = slow  # type: ignore[method-assign]
        exporting(client, Ratchet())
        flush = asyncio.create_task(client.flush())
        assert await asyncio.to_thread(begun.wait, 30)
        export = asyncio.create_task(client.export_keys(str(tmp_path / "keys.txt"), PASSPHRASE, count=10))
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(flush, export)

    opened(memory_url, scenario)
    assert len(items_of(tmp_path / "keys.txt")) == 1


def test_the_loop_turns_while_keys_are_exported(memory_url: str, tmp_path: Path) -> None:
    turns = [0]

    async def turn() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    async def scenario(client: ProductionMatrixClient) -> None:
        exporting(client, *[Ratchet() for _ in range(200)])
        await client.flush()
        turning = asyncio.create_task(turn())
        await client.export_keys(str(tmp_path / "keys.txt"), PASSPHRASE)
        turning.cancel()

    opened(memory_url, scenario)
    # All of it on the loop would be one turn.
    assert turns[0] > 100
    assert len(items_of(tmp_path / "keys.txt")) == 200


def test_an_export_that_fails_leaves_nothing(memory_url: str, tmp_path: Path) -> None:
    file, other = tmp_path / "keys.txt", tmp_path / "other.txt"
    other.write_text("that of yesterday")

    async def scenario(client: ProductionMatrixClient) -> None:
        exporting(client, *[Ratchet() for _ in range(50)])
        with pytest.raises(ConfigurationError, match=r"the passphrase is not UTF-8 text$") as caught:
            await client.export_keys(str(file), "\udcff and a secret")
        assert "secret" not in shown(caught.value)
        with limited_files(1_000), pytest.raises(StorageFull, match="make room"):
            await client.export_keys(str(file), PASSPHRASE, count=10)
        with pytest.raises(ConfigurationError, match="File exists; name a new file"):
            await client.export_keys(str(other), PASSPHRASE, count=10)
        with pytest.raises(ConfigurationError, match="No such file or directory"):
            await client.export_keys(str(tmp_path / "none" / "keys.txt"), PASSPHRASE, count=10)

    opened(memory_url, scenario)
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("other.txt", "that of yesterday")]


def test_an_export_that_is_given_up_leaves_nothing(
    memory_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended, go_on = threading.Event(), threading.Event(), threading.Event()
    write_all = KeyFileWriter.write_all

    def slow(self: KeyFileWriter, sessions: Iterable[Any]) -> int:
        begun.set()
        assert go_on.wait(30)
        try:
            return write_all(self, sessions)
        finally:
            ended.set()

    monkeypatch.setattr(KeyFileWriter, "write_all", slow)

    async def scenario(client: ProductionMatrixClient) -> None:
        exporting(client, Ratchet())
        export = asyncio.create_task(client.export_keys(str(tmp_path / "keys.txt"), PASSPHRASE, count=10))
        assert await asyncio.to_thread(begun.wait, 30)
        export.cancel()
        with pytest.raises(asyncio.CancelledError):
            await export
        go_on.set()
        assert await asyncio.to_thread(ended.wait, 30)

    opened(memory_url, scenario)
    wait_until(lambda: list(tmp_path.iterdir()) == [])


def test_keys_that_cannot_be_read_are_left_out_and_told(
    memory_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[int, str, str]] = []

    class Audit:
        @hookimpl
        def cryptostore_keys_exported(self, records: int, way: str, destination: str) -> None:
            told.append((records, way, destination))

    ratchets = [Ratchet() for _ in range(3)]

    async def fill(client: ProductionMatrixClient) -> None:
        exporting(client, *ratchets)
        await client.flush()

    async def scenario(client: ProductionMatrixClient) -> None:
        await client.export_keys(str(tmp_path / "keys.txt"), PASSPHRASE, count=10)

    opened(memory_url, fill)
    with open_backend(memory_url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        key = next(store.keys(Stored))
        store.put_rows([Row(encode_key(Stored, key), b"damaged")])
    observers().add("audit", Audit())
    try:
        opened(memory_url, scenario)
    finally:
        observers().remove("audit")
    assert len(items_of(tmp_path / "keys.txt")) == 2
    assert "left out 1 room keys that cannot be read" in caplog.text
    assert told == [(2, "client.export_keys", str(tmp_path / "keys.txt"))]


def test_a_client_that_is_not_open_exports_nothing(memory_url: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        client = a_client(memory_url)
        with pytest.raises(LocalProtocolError):
            await client.export_keys(str(tmp_path / "keys"), "passphrase")
        await client.close()

    asyncio.run(scenario())
    assert list(tmp_path.iterdir()) == []
