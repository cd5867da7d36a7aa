"""An account that lost its Olm account is left alone: who opened it would give a known device a new identity."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import pytest
from nio.crypto import OlmAccount

from cryptostore import (
    Changes,
    Device,
    FencedOut,
    InboundGroupSession,
    OlmSession,
    Ownership,
    Record,
    SyncToken,
    UnreadableRecord,
    Value,
    open_backend,
)
from cryptostore import OlmAccount as OlmAccountRecord
from cryptostore.nio import NioStore, ProductionMatrixClient
from cryptostore.nio.client.saved_login import ACCESS_TOKEN
from cryptostore_contract.samples import ALICE, KEY
from nio_places import ROOM, Ours
from nio_sources import Client, import_all

NOW = datetime.now(UTC)
LEFT: list[Record] = [
    OlmSession("curve", "session", b"pickle", NOW, NOW),
    InboundGroupSession(ROOM, "session", "curve", b"key", "ed", (), 0, NOW),
    Device("@bob:example.org", "DEVICE"),
    SyncToken("s1"),
    Value(*ACCESS_TOKEN, b"token"),
]


def open_a_store(url: str, _folder: Path) -> None:
    NioStore(ALICE.user_id, ALICE.device_id, url, KEY)


def open_a_client(url: str, _folder: Path) -> None:
    async def scenario() -> None:
        client = ProductionMatrixClient("http://127.0.0.1:1", *ids(), store=url, pickle_key=KEY)
        try:
            await client.open()
        finally:
            await client.close()

    asyncio.run(scenario())


def import_a_file(url: str, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    source = Client(folder, ALICE, KEY)
    try:
        import_all(source.path, url, KEY)
    finally:
        source.close()


def ids() -> tuple[str, str]:
    return ALICE.user_id, ALICE.device_id


def ownership(url: str) -> Ownership:
    with open_backend(url) as backend:
        return backend.accounts()[ALICE]


@pytest.mark.parametrize("left", LEFT, ids=lambda record: record.kind_name)
@pytest.mark.parametrize("open_it", [open_a_store, open_a_client, import_a_file])
def test_an_account_without_its_olm_account_is_not_taken_over(
    memory_url: str, tmp_path: Path, open_it: Callable[[str, Path], None], left: Record
) -> None:
    with open_backend(memory_url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.apply(Changes([left]))
    before = ownership(memory_url)
    with pytest.raises(UnreadableRecord, match=r"the Olm account of .* is missing.*restore the account from a backup"):
        open_it(memory_url, tmp_path / "source")
    assert ownership(memory_url) == before


def test_every_backend_says_so(ours: Ours) -> None:
    ours.put(SyncToken("s1"))
    with ours.owned() as store:
        store.apply(Changes(deletes=[(OlmAccountRecord, ())]))
    before = ownership(ours.url)
    with pytest.raises(UnreadableRecord, match="is missing"):
        ours.open()
    assert ownership(ours.url) == before


def test_a_damaged_olm_account_is_not_taken_over_either(ours: Ours) -> None:
    ours.put(SyncToken("s1"))
    ours.spoil(OlmAccountRecord)
    before = ownership(ours.url)
    with pytest.raises(UnreadableRecord, match="olm_account"):
        ours.open()
    assert ownership(ours.url) == before


def test_a_start_that_a_crash_cut_short_begins_again(ours: Ours) -> None:
    # The account was made, and nothing written into it.
    ours.close(ours.open_new())
    store = ours.open_new()
    assert store.load_account() is None
    store.save_account(OlmAccount())
    assert ours.reopen(store).load_account() is not None


def test_a_client_that_was_first_is_not_fenced_by_an_import(
    memory_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").mkdir()
    source = Client(tmp_path / "source", ALICE, KEY)

    def meanwhile(*_: object) -> None:
        with open_backend(memory_url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
            store.apply(Changes([SyncToken("theirs")]))

    monkeypatch.setattr(import_module("cryptostore.nio.importing.transfer"), "_make_room", meanwhile)
    with pytest.raises(FencedOut, match="a client opened"):
        import_all(source.path, memory_url, KEY)
    assert ownership(memory_url).epoch == 1
    source.close()
