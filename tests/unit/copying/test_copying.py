"""Copying an account between two databases: it moves, comes back, and is replaced nowhere."""

from __future__ import annotations

import pytest

from copied import OPENED, PLAIN, contents, place, refuses, save, token
from cryptostore import (
    AccountElsewhere,
    AccountNotFound,
    Changes,
    ConfigurationError,
    Mode,
    ReadOnlyStore,
    Row,
    SyncToken,
    TrackedUser,
    UnreadableRecord,
    WrongPickleKey,
)
from cryptostore.store import sealed_account
from cryptostore.store.copying import Beginning, How, Place, copy
from cryptostore.store.keys import encode_key
from cryptostore.store.marks import MARK_KEY
from cryptostore.store.ring import RING_KEYS
from example_records import ALICE
from sealed_database import BOB, KEY, OTHER_KEY, plant, rows_of


@pytest.mark.parametrize("how", [PLAIN, OPENED])
def test_an_account_moves(source: Place, destination: Place, how: How) -> None:
    before = contents(source)
    copied = copy(source, destination, ALICE, how)
    assert copied.beginning is Beginning.NEW
    assert copied.rows == {0: 1, 2: 1, 4: 30, 255: 1}
    assert copied.size == sum(len(key) + len(value) for key, value in before.items())
    assert (copied.different, copied.unreadable) == ([], [])
    assert contents(destination) == before
    assert token(destination) == "s1"
    refuses(source, "was moved to memory://destination on ")
    save(destination, SyncToken("s2"))


def test_what_is_left_of_a_moved_account_is_counted_and_copied_by_commands(source: Place, destination: Place) -> None:
    before = contents(source)
    copy(source, destination, ALICE, PLAIN)
    with source.backend.open_store(ALICE, Mode.READ) as store:
        assert {key: value for key, value in store.stored_rows() if key != MARK_KEY} == before


def test_a_second_call_changes_nothing(source: Place, destination: Place) -> None:
    copy(source, destination, ALICE, PLAIN)
    before = contents(source), contents(destination), destination.backend.accounts()
    assert copy(source, destination, ALICE, PLAIN).beginning is Beginning.DONE
    assert (contents(source), contents(destination), destination.backend.accounts()) == before


def test_an_account_comes_back_with_what_was_written_since(source: Place, destination: Place) -> None:
    copy(source, destination, ALICE, PLAIN)
    with destination.backend.open_store(ALICE, pickle_key=KEY) as store:
        store.apply(Changes([SyncToken("s2")], deletes=[(TrackedUser, ("@7:x",))]))
    before = contents(destination)
    assert copy(destination, source, ALICE, OPENED).beginning is Beginning.BACK
    assert contents(source) == before
    assert token(source) == "s2"
    refuses(destination, "was moved to memory://source")


def test_it_comes_back_from_nowhere_else(source: Place, destination: Place) -> None:
    copy(source, destination, ALICE, PLAIN)
    other = place("other")
    save(other, SyncToken("another identity"))
    with pytest.raises(
        ConfigurationError, match=r"memory://source cannot take another copy: .* was moved to memory://d"
    ):
        copy(other, source, ALICE, PLAIN)


def test_a_source_that_is_left_opens_and_can_be_written_to(source: Place, destination: Place) -> None:
    before = contents(source), source.backend.accounts()
    copy(source, destination, ALICE, How(leave_source=True))
    assert (contents(source), source.backend.accounts()) == before
    assert contents(destination) == before[0]
    save(source, SyncToken("s2"))
    with pytest.raises(ConfigurationError, match="is in memory://destination already, and nothing of it is replaced"):
        copy(source, destination, ALICE, PLAIN)


def test_a_moved_account_goes_nowhere_else_unless_told(source: Place, destination: Place) -> None:
    copy(source, destination, ALICE, PLAIN)
    third = place("third")
    with pytest.raises(AccountElsewhere, match="was moved to memory://destination"):
        copy(source, third, ALICE, PLAIN)
    copied = copy(source, third, ALICE, How(pickle_key=KEY, even_if_moved=True))
    assert (copied.different, copied.unreadable) == ([], [])
    assert token(third) == "s1"
    refuses(source, "was moved to memory://destination")


def test_where_a_moved_account_went_on_from(source: Place, destination: Place) -> None:
    third = place("third")
    copy(source, destination, ALICE, PLAIN)
    copy(destination, third, ALICE, PLAIN)
    with pytest.raises(AccountElsewhere, match="was moved to memory://third"):
        copy(source, destination, ALICE, PLAIN)


def test_a_destination_that_has_the_account(source: Place, destination: Place) -> None:
    save(destination, SyncToken("its own"))
    before = contents(destination), destination.backend.accounts()
    with pytest.raises(ConfigurationError, match="is in memory://destination already"):
        copy(source, destination, ALICE, PLAIN)
    assert (contents(destination), destination.backend.accounts()) == before


def test_a_destination_where_the_account_was_only_opened(source: Place, destination: Place) -> None:
    destination.backend.open_store(ALICE, pickle_key=KEY).close()
    assert copy(source, destination, ALICE, PLAIN).beginning is Beginning.NEW
    assert token(destination) == "s1"


def test_an_account_that_is_not_there(source: Place, destination: Place) -> None:
    with pytest.raises(AccountNotFound):
        copy(source, destination, BOB, PLAIN)


def test_an_account_without_keys(source: Place, destination: Place) -> None:
    source.backend.open_store(BOB, pickle_key=KEY).close()
    assert copy(source, destination, BOB, OPENED).beginning is Beginning.EMPTY
    assert destination.backend.accounts() == {}


def test_an_account_without_a_ring(source: Place, destination: Place) -> None:
    for key in RING_KEYS:
        del rows_of(source.backend, ALICE)[key]
    with pytest.raises(UnreadableRecord, match=r"the key ring of .* is missing"):
        copy(source, destination, ALICE, PLAIN)
    assert destination.backend.accounts() == {}


def test_a_wrong_pickle_key_writes_nothing(source: Place, destination: Place) -> None:
    with pytest.raises(WrongPickleKey):
        copy(source, destination, ALICE, How(pickle_key=OTHER_KEY))
    assert destination.backend.accounts() == {}


def test_a_record_that_cannot_be_opened_is_copied_and_named(source: Place, destination: Place) -> None:
    key = encode_key(TrackedUser, ("@7:x",))
    plant(source.backend, ALICE, key, b"damaged")
    assert copy(source, destination, ALICE, How(leave_source=True)).unreadable == []
    assert [each.key for each in copy(source, place("third"), ALICE, OPENED).unreadable] == [key]
    assert contents(destination)[key] == b"damaged"


def test_large_rows_come_in_small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_account, "_PAGE_BYTES", 1_000)
    where = place("large")
    save(where, SyncToken("s1"))
    with where.backend.open_store(ALICE, pickle_key=KEY) as store:
        store.put_rows([Row(b"\xc8%03d" % number, bytes(400)) for number in range(20)])
    sealed = where.backend.sealed(ALICE)
    sealed.find()
    sizes = [len(page) for page in sealed.pages()]
    assert sum(sizes) == 23
    assert max(sizes[2:]) <= 3


def test_what_was_not_taken_over_is_not_written(source: Place) -> None:
    sealed = source.backend.sealed(ALICE)
    sealed.find()
    with pytest.raises(ReadOnlyStore, match="was not taken over"):
        sealed.write([Row(b"\xc8", b"x")])


def test_a_database_is_not_copied_onto_itself() -> None:
    """What is there is the only copy: nobody may be told to delete it."""
    source = place("source")
    save(source, SyncToken("s1"))
    before = contents(source)
    with pytest.raises(
        ConfigurationError, match=r"memory://source and memory://again are one database.*delete nothing"
    ):
        copy(source, Place(source.backend, "memory://again"), ALICE, PLAIN)
    assert contents(source) == before
