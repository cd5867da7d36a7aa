"""Files of room keys: read whole or not at all, and taken in piece by piece."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from textwrap import wrap
from typing import Any

import pytest
from nio import EncryptionError, LocalProtocolError
from nio.crypto import InboundGroupSession, Olm
from nio.crypto.key_export import FOOTER, HEADER, encrypt_and_save

from client_pairs import ALICE, ROOM
from cryptostore import InboundGroupSession as Stored
from cryptostore.nio import ProductionMatrixClient
from cryptostore.nio.cache import LiveCache
from cryptostore.nio.client.store import ProductionStore
from cryptostore.nio.exported_keys import ExportedKeys
from cryptostore_contract.samples import KEY
from nio_places import Ratchet

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
