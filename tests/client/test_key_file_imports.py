"""Files of room keys that others made, taken in piece by piece."""

from __future__ import annotations

import asyncio
import base64
import json
import os
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
from cryptostore import Mode, open_backend
from cryptostore.nio import ProductionMatrixClient, bounds
from cryptostore.nio.cache import LiveCache
from cryptostore.nio.client.store import ProductionStore
from cryptostore.trust.key_backup import UNKNOWN_KEY
from cryptostore_contract.samples import KEY
from leaks import shown
from nio_places import Ratchet
from told import Told

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
        "session_id": session.id,
        "session_key": session.export_session(0),
        **changes,
    }


def a_client(url: str) -> ProductionMatrixClient:
    return ProductionMatrixClient("http://nowhere", ALICE.user_id, ALICE.device_id, store=url, pickle_key=KEY)


def imported(url: str, file: Path | str, passphrase: str = "passphrase") -> list[Stored]:
    """Import a file, and return what is stored then."""

    async def scenario() -> None:
        client = a_client(url)
        await client.open()
        try:
            await client.import_keys(str(file), passphrase)
            assert client.statistics.loop_reads == 0
        finally:
            await client.close()

    asyncio.run(scenario())
    with open_backend(url) as backend, backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        return list(store.scan(Stored))


def refused(url: str, file: Path | str, passphrase: str = "passphrase") -> str:
    """Import a file that is refused. Returns all that the error shows."""
    with pytest.raises(EncryptionError) as caught:
        imported(url, file, passphrase)
    return shown(caught.value)


def test_sessions_are_taken_in_as_forwarded(memory_url: str, tmp_path: Path) -> None:
    sessions = [Ratchet().inbound(), Ratchet().inbound("forwarded", "twice")]
    found = {each.session_id: each for each in imported(memory_url, exported(tmp_path / "keys", *sessions))}
    for session, chain in zip(sessions, [(SENDER,), ("forwarded", "twice")], strict=True):
        kept = found.pop(session.id)
        assert (kept.sender_key, kept.signing_key, kept.room_id) == (SENDER, session.ed25519, session.room_id)
        assert (kept.forwarding_chain, kept.from_backup) == (chain, False)
    assert found == {}


def test_an_import_that_is_repeated_changes_nothing(memory_url: str, tmp_path: Path, told: Told) -> None:
    file = exported(tmp_path / "keys", Ratchet().inbound())
    assert imported(memory_url, file) == imported(memory_url, file)
    assert told.of("keys_imported", "records") == [(1,), (0,)]


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_files_of_other_clients_have_lines_and_padding(memory_url: str, tmp_path: Path, line_break: str) -> None:
    for size in range(3):
        file = Path(file_of(tmp_path / f"keys {size}", json.dumps([item()], indent=2).encode() + b" " * size))
        payload = file.read_text().replace("\n", "").removeprefix(HEADER).removesuffix(FOOTER)
        lines = [HEADER, *wrap(payload + "=" * (-len(payload) % 4), 77), FOOTER, ""]
        file.write_bytes(line_break.join(lines).encode())
        assert len(imported(memory_url, file)) == size + 1


def test_entries_that_do_not_say_what_only_their_maker_claims_are_taken_in(memory_url: str, tmp_path: Path) -> None:
    bare = item()
    del bare["sender_claimed_keys"], bare["forwarding_curve25519_key_chain"]
    items = [bare, item(sender_claimed_keys={}), item(forwarding_curve25519_key_chain=None)]
    stored = imported(memory_url, file_of(tmp_path / "keys", json.dumps(items).encode()))
    assert sorted(each.signing_key for each in stored) == ["ed", UNKNOWN_KEY, UNKNOWN_KEY]
    assert {each.forwarding_chain for each in stored} == {(SENDER,)}


def test_entries_that_are_of_no_use_are_left_out_and_counted(
    memory_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = [
        1,
        "text",
        item(algorithm="m.other"),
        item(session_key="none"),
        item(session_id="that of another"),
        item(room_id=1),
        item(room_id="!" * 300),
        item(sender_claimed_keys={"ed25519": ""}),
        item(sender_claimed_keys={"ed25519": "e" * 300}),
        item(sender_claimed_keys=None),
        item(forwarding_curve25519_key_chain=[1]),
        item(forwarding_curve25519_key_chain=["a\0"]),
        item(forwarding_curve25519_key_chain=["k"] * (bounds.FORWARDERS + 1)),
    ]
    items = [item(), *odd * 20, item()]
    assert len(imported(memory_url, file_of(tmp_path / "keys", json.dumps(items).encode()))) == 2
    assert f"left out {len(odd) * 20} entries" in caplog.text


def test_an_import_that_is_cancelled_after_its_client_was_closed_is_cancelled(
    memory_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        client, begun = a_client(memory_url), asyncio.Event()
        await client.open()

        async def never(_sessions: object) -> int:
            begun.set()
            return int(await asyncio.Future())

        monkeypatch.setattr(client._key_files, "_take_in_piece", never)
        file = file_of(tmp_path / "keys", json.dumps([item()]).encode())
        importing = asyncio.create_task(client.import_keys(file, "passphrase"))
        await begun.wait()
        await client.close()
        importing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await importing

    asyncio.run(scenario())


@pytest.mark.parametrize("content", [b"", b"{}", b"[", b"[" * 100_000, b"\xff"], ids=range(5))
def test_what_is_no_list_of_keys_is_refused(memory_url: str, tmp_path: Path, content: bytes) -> None:
    refused(memory_url, file_of(tmp_path / "keys", content))


@pytest.mark.parametrize("spelt", [PASSPHRASE, PASSPHRASE.encode().decode("latin-1")], ids=["of nio", "of others"])
def test_a_passphrase_that_is_not_ascii(memory_url: str, tmp_path: Path, spelt: str) -> None:
    file = tmp_path / "keys"
    # nio takes a text for Latin-1, so the second one is what everybody else makes of the passphrase.
    encrypt_and_save(json.dumps([item()]).encode(), str(file), spelt, 1)
    assert len(imported(memory_url, file, PASSPHRASE)) == 1


def test_a_passphrase_that_is_no_text_is_not_shown(memory_url: str, tmp_path: Path) -> None:
    found = refused(memory_url, file_of(tmp_path / "keys", b"[]"), "a secret \udcff")
    assert "the passphrase is not UTF-8 text" in found
    assert "a secret" not in found


@pytest.mark.parametrize("rounds", [0, 2**31 - 1, 2**32 - 1])
def test_a_file_that_would_keep_a_processor_busy_for_ever_is_refused(
    memory_url: str, tmp_path: Path, rounds: int
) -> None:
    payload = b"\x01" + os.urandom(32) + rounds.to_bytes(4, "big") + os.urandom(64)
    file = tmp_path / "keys"
    file.write_text(f"{HEADER}\n{base64.b64encode(payload).decode()}\n{FOOTER}\n")
    assert "a number of rounds that no client writes" in refused(memory_url, file)


def test_a_damaged_file_or_another_passphrase_is_refused(memory_url: str, tmp_path: Path, told: Told) -> None:
    file = Path(file_of(tmp_path / "keys", json.dumps([item()]).encode()))
    assert "the passphrase is not the one that" in refused(memory_url, file, "another")
    text = file.read_text()
    for damaged in (text[1:], text[:-1], HEADER + FOOTER, f"{HEADER}a{FOOTER}", text.replace(HEADER, HEADER + "AAAA")):
        file.write_text(damaged)
        refused(memory_url, file)
    with pytest.raises(FileNotFoundError):
        imported(memory_url, tmp_path / "none")
    assert "keys_imported" not in told.names


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
