"""What the interface does for every backend."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

from cryptostore import AccountRow, Batch, Schema, SchemaTooNew, TakeOver
from cryptostore.plugins.folders import flush_folder

CLAIM: Final = TakeOver(new_id=7, incarnation=8, owner="me", since=9)
ROW: Final = AccountRow(3, "@alice:example.org", "A", epoch=4, incarnation=5, sequence=6, owner="other", since=1)


def test_a_new_account_has_the_drawn_id_and_no_batches() -> None:
    assert CLAIM.row_after(None, "@bob:example.org", "B") == AccountRow(7, "@bob:example.org", "B", 1, 8, 0, "me", 9)


def test_an_account_keeps_its_id_and_sequence() -> None:
    expected = ROW._replace(epoch=5, incarnation=8, owner="me", since=9)
    assert CLAIM.row_after(ROW, ROW.user_id, ROW.device_id) == expected


def test_a_batch_follows_the_last_one_of_its_own_owner() -> None:
    assert Batch(4, 5, 7, (), ()).follows(ROW)


@pytest.mark.parametrize(("epoch", "incarnation", "number"), [(4, 5, 6), (4, 5, 8), (3, 5, 7), (4, 4, 7)])
def test_another_batch_does_not(epoch: int, incarnation: int, number: int) -> None:
    assert not Batch(epoch, incarnation, number, (), ()).follows(ROW)


def test_a_schema_is_refused_by_programs_that_it_is_too_new_for() -> None:
    found = Schema(version=9, min_compatible=3)
    found.refuse_if_newer(3, "/keys", "some-backend")
    with pytest.raises(SchemaTooNew, match=r"/keys has .* 9, .* before 3 .* knows 2: upgrade some-backend"):
        found.refuse_if_newer(2, "/keys", "some-backend")


def test_the_folder_itself_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_ino))
    flush_folder(tmp_path)
    assert flushed == [tmp_path.stat().st_ino]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        flush_folder(tmp_path / "missing")
