"""A bot whose account comes back from a file of `cryptostore backup`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from client_pairs import BOB
from cryptostore import open_backend
from cryptostore.store import backup_file
from cryptostore.store.backup_file import BackupFile
from cryptostore.store.backups import back_up, check, restore
from cryptostore_contract.samples import KEY
from restored_devices import talking

PASSPHRASE = "a passphrase"


@pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
def test_it_reads_and_is_read_and_uses_no_key_twice(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_file, "COST", 10)
    path = tmp_path / "bob.backup"

    async def scenario() -> None:
        async with talking(url) as talk:
            await talk.bob.client.flush()
            with path.open("xb") as opened, open_backend(url) as backend:
                assert back_up(backend, BOB, KEY, PASSPHRASE, opened).wrong == []
            # Others see newer keys than those in the file.
            await talk.both_ways("since")
            await talk.bob.killed()
            with open_backend(url) as backend:
                backend.delete_account(BOB)
                file = BackupFile(path, PASSPHRASE)
                assert restore(file, check(file), backend, url, KEY).is_complete
            await talk.bob.begin_again()
            await talk.bob.is_whole()
            await talk.both_ways("after")
            assert talk.used_twice() == []
            assert talk.lost_keys() == []

    asyncio.run(scenario())
