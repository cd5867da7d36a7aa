"""Copies that are interrupted: nothing is lost, and they go on."""

from __future__ import annotations

import pytest

from copied import PLAIN, RECORDS, contents, handle, interrupted, is_opened, kill_at, place, refuses, save, token
from cryptostore import (
    AccountElsewhere,
    ConfigurationError,
    StorageFull,
    SyncToken,
)
from cryptostore.store.copying import Beginning, How, Place, Watching, beginning_of, copy
from cryptostore.store.marks import MARK_KEY
from example_records import ALICE
from sealed_database import KEY


@pytest.mark.parametrize("leave_source", [False, True])
@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_at_any_commit_loses_nothing(leave_source: bool, side: str, moment: str) -> None:
    kills = 0
    while True:
        source, destination = place("source"), place("destination")
        save(source, *RECORDS)
        before = contents(source)
        killed = handle(source if side == "source" else destination)
        if not kill_at(killed, moment, killed.commits + kills, source, destination, How(leave_source=leave_source)):
            break
        kills += 1
        assert is_opened(source) or not leave_source
        assert not (is_opened(source) and is_opened(destination)) or leave_source
        # Killed after its last batch, a second copy is complete, and looks like any account that is there.
        if not (leave_source and is_opened(destination)):
            ended = copy(source, destination, ALICE, How(pickle_key=KEY, leave_source=leave_source))
            assert ended.different == []
        assert contents(destination) == before
        assert token(destination) == "s1"
        assert is_opened(source) == leave_source
    # The source is written to once, if at all; the destination for its mark, for each page, and for the ring.
    assert kills == (1 - leave_source if side == "source" else 6)


def test_an_interrupted_copy_cannot_be_opened_and_goes_on_where_it_was(source: Place, destination: Place) -> None:
    interrupted(source, destination)
    refuses(destination, "from memory://source is not complete here: run the same `cryptostore copy` again")
    assert token(source) == "s1"
    assert beginning_of(source, destination, ALICE, PLAIN) is Beginning.RESUMED
    passed: list[int] = []
    copy(source, destination, ALICE, PLAIN, Watching(passed.append, lambda _number: None))
    # The rows of the two batches that had come are not copied again.
    assert 0 < sum(passed) < len(RECORDS)
    assert contents(destination).keys() == contents(source).keys() - {MARK_KEY}


def test_a_source_that_was_written_to_since_is_copied_again(source: Place, destination: Place) -> None:
    interrupted(source, destination)
    save(source, SyncToken("s2"))
    assert copy(source, destination, ALICE, PLAIN).beginning is Beginning.ANEW
    assert token(destination) == "s2"


def test_an_incomplete_copy_is_no_source(source: Place, destination: Place) -> None:
    interrupted(source, destination)
    with pytest.raises(AccountElsewhere, match="is not complete here"):
        copy(destination, place("third"), ALICE, PLAIN)


def test_an_incomplete_copy_of_another_source_is_kept(source: Place, destination: Place) -> None:
    interrupted(source, destination)
    other = place("other")
    save(other, SyncToken("another identity"))
    with pytest.raises(ConfigurationError, match=r"cannot take another copy: a copy of .* from memory://source is not"):
        copy(other, destination, ALICE, PLAIN)


def test_a_full_destination(source: Place, destination: Place) -> None:
    def full(number: int) -> None:
        if number >= 2:
            raise StorageFull("no room")

    handle(destination).before = full
    with pytest.raises(StorageFull):
        copy(source, destination, ALICE, PLAIN)
    assert token(source) == "s1"
    handle(destination).before = lambda _number: None
    assert copy(source, destination, ALICE, PLAIN).beginning is Beginning.RESUMED
