"""Files of room keys: read whole or not at all, and taken in piece by piece."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from textwrap import wrap
from typing import Any

import pytest
from nio import EncryptionError, LocalProtocolError
from nio.crypto import InboundGroupSession, Olm
from nio.crypto.key_export import FOOTER, HEADER, decrypt_and_read, encrypt_and_save

from client_pairs import ALICE, ROOM
from cryptostore import ConfigurationError, Row, StorageFull, hookimpl, open_backend
from cryptostore import InboundGroupSession as Stored
from cryptostore.nio import ProductionMatrixClient
from cryptostore.nio.cache import LiveCache
from cryptostore.nio.client.store import ProductionStore
from cryptostore.nio.exported_keys import ExportedKeys
from cryptostore.plugins.observers import observers
from cryptostore.store.keys import encode_key
from cryptostore.trust.key_file import KeyFile, KeyFileWriter
from cryptostore_contract.limits import limited_files
from cryptostore_contract.samples import KEY
from leaks import shown
from nio_places import Ratchet
from patience import wait_until

SENDER = "curve-of-sender"
PASSPHRASE = "a passphrase, ünguessable"


def exported(path: Path, *sessions: InboundGroupSession) -> str:
    """A file as nio writes it."""
    Olm.export_keys_static(list(sessions), str(path), "passphrase", 1)
    return str(path)


def file_of(path: Path, content: bytes) -> str:
    """A file with any content."""
    encrypt_and_save(content, str(path), "passphrase", 1)
    return str(path)


def item(**changes: Any) -> dict[str, Any]:
    """A key as clients export it."""
    session = Ratchet().inbound()
    return {
        "algorithm": "m.megolm.v1.aes-sha2",
        "sender_claimed_keys": {"ed25519": "ed"},
        "forwarding_curve25519_key_chain": [],
        "sender_key": SENDER,
        "room_id": ROOM,
        "session_key": session.export_session(0),
        **changes,
    }


def a_client(url: str) -> ProductionMatrixClient:
    return ProductionMatrixClient("http://nowhere", ALICE.user_id, ALICE.device_id, store=url, pickle_key=KEY)


def read(file: str, size: int = 10) -> list[list[InboundGroupSession]]:
    return list(ExportedKeys(file, "passphrase").pieces(size))


@pytest.mark.parametrize("count", [0, 1, 20, 25])
def test_sessions_come_in_pieces(tmp_path: Path, count: int) -> None:
    sessions = [Ratchet().inbound("forwarded") for _ in range(count)]
    pieces = read(exported(tmp_path / "keys", *sessions))
    assert [len(piece) for piece in pieces] == [10] * (count // 10) + ([count % 10] if count % 10 else [])
    found = [session for piece in pieces for session in piece]
    assert [(one.id, one.sender_key, one.ed25519, one.forwarding_chain, one.room_id) for one in found] == [
        (one.id, one.sender_key, one.ed25519, one.forwarding_chain, one.room_id) for one in sessions
    ]


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_files_of_other_clients_have_lines_and_padding(tmp_path: Path, line_break: str) -> None:
    for size in range(3):
        file = Path(file_of(tmp_path / f"keys {size}", json.dumps([item()], indent=2).encode() + b" " * size))
        payload = file.read_text().replace("\n", "").removeprefix(HEADER).removesuffix(FOOTER)
        lines = [HEADER, *wrap(payload + "=" * (-len(payload) % 4), 77), FOOTER, ""]
        file.write_bytes(line_break.join(lines).encode())
        assert [len(piece) for piece in read(str(file))] == [1]


def test_a_large_file_is_decoded_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = exported(tmp_path / "keys", *(Ratchet().inbound() for _ in range(20)))
    for step in (1, 7, 100):
        monkeypatch.setattr("cryptostore.nio.exported_keys._STEP", step)
        assert sum(map(len, read(file))) == 20


def test_what_cannot_be_used_is_left_out(tmp_path: Path) -> None:
    without_sender = item()
    del without_sender["sender_claimed_keys"]
    items = [item(), without_sender, item(algorithm="m.other"), item(session_key="none"), item()]
    file = file_of(tmp_path / "keys", json.dumps(items).encode())
    assert [len(piece) for piece in read(file)] == [2]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[",
        b"[1, 2]",
        b"[" * 100_000,
        b"\xff",
        json.dumps([item(), "text"]).encode(),
        json.dumps([item(), item(room_id=1)]).encode(),
        json.dumps([item(), item(sender_claimed_keys={})]).encode(),
        json.dumps([item(), item(forwarding_curve25519_key_chain=None)]).encode(),
        json.dumps([item(), item(forwarding_curve25519_key_chain=[1])]).encode(),
        json.dumps([item()]).encode()[:-1],
    ],
    # The keys are random, and each worker of a run must find the same tests.
    ids=[f"content {number}" for number in range(12)],
)
def test_what_is_no_list_of_keys_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(EncryptionError):
        ExportedKeys(file_of(tmp_path / "keys", content), "passphrase")


@pytest.mark.parametrize("spelt", [PASSPHRASE, PASSPHRASE.encode().decode("latin-1")], ids=["of nio", "of others"])
def test_a_passphrase_that_is_not_ascii(tmp_path: Path, spelt: str) -> None:
    file = tmp_path / "keys"
    # nio takes a text for Latin-1, so the second one is what everybody else makes of the passphrase.
    encrypt_and_save(b"[]", str(file), spelt, 1)
    assert list(ExportedKeys(str(file), PASSPHRASE).pieces(10)) == []


def test_a_damaged_file_or_another_passphrase_is_refused(tmp_path: Path) -> None:
    file = Path(file_of(tmp_path / "keys", json.dumps([item()]).encode()))
    with pytest.raises(EncryptionError, match="HMAC"):
        ExportedKeys(str(file), "another")
    text = file.read_text()
    for damaged in (text[1:], text[:-1], HEADER + FOOTER, f"{HEADER}a{FOOTER}", text.replace(HEADER, HEADER + "AAAA")):
        file.write_text(damaged)
        with pytest.raises(EncryptionError):
            ExportedKeys(str(file), "passphrase")
    with pytest.raises(FileNotFoundError):
        ExportedKeys(str(tmp_path / "none"), "passphrase")


def test_an_import_lets_the_loop_go_between_its_pieces(
    memory_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = exported(tmp_path / "keys", *(Ratchet().inbound() for _ in range(1_000)))
    monkeypatch.setattr(LiveCache, "pinned", lambda _: pytest.fail("copied everything that is not durable"))
    turns, taken, collected = [0], Counter[int](), Counter[int]()
    save, collect = ProductionStore.save_inbound_group_session, ProductionStore.collect

    def saved(store: ProductionStore, session: InboundGroupSession) -> None:
        taken[turns[0]] += 1
        save(store, session)

    def collected_in_a_turn(store: ProductionStore) -> Any:
        changes = collect(store)
        collected[turns[0]] += len(changes.puts(Stored))
        return changes

    async def turn() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    async def scenario() -> None:
        monkeypatch.setattr(ProductionStore, "save_inbound_group_session", saved)
        monkeypatch.setattr(ProductionStore, "collect", collected_in_a_turn)
        client = a_client(memory_url)
        await client.open()
        turning = asyncio.create_task(turn())
        await client.import_keys(file, "passphrase")
        turning.cancel()
        assert not client.production_store.is_dirty
        await client.close()
        assert taken.total() == collected.total() == 1_000
        assert max(taken.values()) <= 100
        assert max(collected.values()) <= 100

    asyncio.run(scenario())


def test_a_client_that_is_not_open_imports_nothing(memory_url: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        client = a_client(memory_url)
        with pytest.raises(LocalProtocolError):
            await client.import_keys(exported(tmp_path / "keys"), "passphrase")
        await client.close()

    asyncio.run(scenario())


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
