"""The RocksDB backend against the contract: all that a backend's author has to write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from cryptostore import Schema
from cryptostore_contract import Ability, Harness, StoreContract, limited_files, managed, not_verified
from cryptostore_rocksdb.schema import CURRENT, file_of


class RocksDBHarness(Harness):
    name = "rocksdb"
    abilities = frozenset(
        {Ability.REOPEN, Ability.OTHER_PROCESS, Ability.RAW_STORAGE, Ability.NEWER_SCHEMA, Ability.FULL_DISK}
    )

    def __init__(self, folder: Path) -> None:
        self._path = folder / "keys"

    @property
    def url(self) -> str:
        return f"rocksdb:///{self._path}"

    def raw_storage(self) -> bytes:
        return b"".join(path.read_bytes() for path in sorted(self._path.iterdir()))

    def claim_newer_schema(self) -> None:
        (self._path / file_of(CURRENT)).rename(self._path / file_of(Schema(version=99, min_compatible=99)))

    def full_disk(self) -> AbstractContextManager[None]:
        return limited_files()

    def close(self) -> None:
        """pytest removes the folder."""


class TestRocksDB(StoreContract):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[Harness]:
        yield from managed(RocksDBHarness(tmp_path))


def test_what_rocksdb_leaves_unverified() -> None:
    of_servers = {f"FAULTS-{number}" for number in range(1, 15)} | {f"SEVERING-{number}" for number in range(1, 8)}
    of_servers |= {f"SECRETS-{number}" for number in (2, 3, 4, 5, 9)}
    of_servers |= {"CAPABILITIES-4", "LIFECYCLE-8", "NUMBERING-12"}
    of_locks = {"OWNERSHIP-12"}
    of_several_processes = {"RESTART-6", "RESTART-7", "SCHEMA-5"}
    # No version but the first was ever made.
    of_older_schemas = {"SCHEMA-6", "SCHEMA-7", "SCHEMA-8"}
    # A database that is open goes on writing into a folder that was made read-only.
    of_read_only_files = {"STORAGE-3", "STORAGE-4"}
    lacking = of_servers | of_locks | of_several_processes | of_older_schemas | of_read_only_files
    assert not_verified(StoreContract, RocksDBHarness) == lacking
