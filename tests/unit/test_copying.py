"""Copying an account between two databases: whole or not at all, wherever it is interrupted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from cryptostore import (
    Account,
    AccountElsewhere,
    AccountNotFound,
    AccountRow,
    Backend,
    Batch,
    Changes,
    ConfigurationError,
    FencedOut,
    Mode,
    ReadOnlyStore,
    Record,
    Row,
    StorageFull,
    SyncToken,
    TrackedUser,
    UnreadableRecord,
    WrongPickleKey,
)
from cryptostore.store import copying, sealed_account
from cryptostore.store.copying import Beginning, How, Place, Watching, beginning_of, copy
from cryptostore.store.keys import encode_key
from cryptostore.store.marks import MARK_KEY, decode_mark, encode_mark
from cryptostore.store.memory import MemoryDatabase, MemoryHandle
from cryptostore.store.rekeying import rekey
from cryptostore.store.ring import RING_KEYS
from example_records import ALICE
from sealed_database import BOB, KEY, OTHER_KEY, plant, rows_of

RECORDS: list[Record] = [SyncToken("s1"), *[TrackedUser(f"@{number}:x") for number in range(30)]]
PLAIN, OPENED = How(), How(pickle_key=KEY)


class Killed(BaseException):
    """What ends a process that is killed, as far as this process can show it."""


class Handle(MemoryHandle):
    """A database that something is done to before or after each of its commits."""

    def __init__(self, shared: MemoryDatabase) -> None:
        super().__init__(shared)
        self.before: Callable[[int], None] = lambda _number: None
        self.after: Callable[[int], None] = lambda _number: None
        self.commits = 0

    def commit(self, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        self.before(self.commits)
        row = super().commit(account_id, batch, timeout)
        self.after(self.commits)
        self.commits += 1
        return row


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of 30 rows takes some batches."""
    monkeypatch.setattr(sealed_account, "_FIRST_PAGE_ROWS", 3)
    monkeypatch.setattr(sealed_account, "_PAGE_ROWS", 10)


def place(name: str) -> Place:
    return Place(Backend(Handle(MemoryDatabase()), name=name, owner=name), f"memory://{name}")


@pytest.fixture
def source() -> Place:
    found = place("source")
    save(found, *RECORDS)
    return found


@pytest.fixture
def destination() -> Place:
    return place("destination")


def handle(where: Place) -> Handle:
    assert isinstance(where.backend.database, Handle)
    return where.backend.database


def save(where: Place, *records: Record, account: Account = ALICE) -> None:
    with where.backend.open_store(account, pickle_key=KEY) as store:
        store.apply(Changes(records))


def contents(where: Place) -> dict[bytes, bytes]:
    return dict(rows_of(where.backend, ALICE))


def token(where: Place) -> str:
    with where.backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        return store.get(SyncToken, [()])[()].token


def refuses(where: Place, words: str) -> None:
    """Nobody opens the account here, and nothing is taken over."""
    before = where.backend.accounts()
    for mode in Mode:
        with pytest.raises(AccountElsewhere, match=words):
            where.backend.open_store(ALICE, mode, pickle_key=KEY)
    with pytest.raises(AccountElsewhere, match=words):
        rekey(where.backend, ALICE, KEY, OTHER_KEY)
    assert where.backend.accounts() == before


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


def kill_at(killed: Handle, moment: str, number: int, source: Place, destination: Place, how: How) -> bool:
    """Whether a copy came to this commit, at which it is killed."""

    def kill(at: int) -> None:
        if at == number:
            raise Killed

    setattr(killed, moment, kill)
    try:
        copy(source, destination, ALICE, how)
    except Killed:
        setattr(killed, moment, lambda _number: None)
        killed.commits += 1
        return True
    return False


def is_opened(where: Place) -> bool:
    """Whether a client finds the account's records here."""
    try:
        with where.backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
            return bool(store.get(SyncToken, [()]))
    except (AccountElsewhere, AccountNotFound):
        return False


def interrupted(source: Place, destination: Place, commits: int = 3) -> None:
    assert kill_at(handle(destination), "before", handle(destination).commits + commits, source, destination, PLAIN)


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


def test_a_source_that_is_written_to_while_it_is_copied(source: Place, destination: Place) -> None:
    handle(destination).after = lambda number: save(source, SyncToken("s2")) if number == 2 else None
    with pytest.raises(ConfigurationError, match="was written to while it was copied"):
        copy(source, destination, ALICE, PLAIN)
    assert token(source) == "s2"
    refuses(destination, "is not complete")
    handle(destination).after = lambda _number: None
    assert copy(source, destination, ALICE, PLAIN).beginning is Beginning.ANEW
    assert token(destination) == "s2"


def test_a_source_that_is_written_to_in_the_last_moment(source: Place, destination: Place) -> None:
    compared = Watching(lambda _number: None, lambda _number: save(source, SyncToken("s2")))
    with pytest.raises(ConfigurationError, match="was written to while it was copied"):
        copy(source, destination, ALICE, PLAIN, compared)
    assert token(source) == "s2"


def test_a_source_that_is_deleted_while_it_is_copied(source: Place, destination: Place) -> None:
    handle(destination).after = lambda number: source.backend.delete_account(ALICE) if number == 2 else None
    with pytest.raises(ConfigurationError, match="was written to while it was copied"):
        copy(source, destination, ALICE, PLAIN)
    assert not is_opened(destination)


def test_taking_over_fences_the_sources_owner_before_the_first_row(source: Place, destination: Place) -> None:
    fenced: list[FencedOut] = []
    owner = source.backend.open_store(ALICE, pickle_key=KEY)

    def write(number: int) -> None:
        if number == 2:
            with pytest.raises(FencedOut) as caught:
                owner.apply(Changes([SyncToken("s2")]))
            fenced.append(caught.value)

    handle(destination).after = write
    copy(source, destination, ALICE, How(take_over=True))
    assert "was taken over by source" in str(fenced[0])
    assert token(destination) == "s1"


def test_taking_over_begins_with_what_the_owner_wrote_until_then(source: Place, destination: Place) -> None:
    interrupted(source, destination)
    begun = copying._Copy(source, destination, ALICE, How(take_over=True))
    assert begun.beginning is Beginning.RESUMED
    save(source, SyncToken("s2"))
    assert begun.run(copying.UNWATCHED).beginning is Beginning.ANEW
    assert token(destination) == "s2"


def test_an_idle_owner_is_fenced_at_the_end(source: Place, destination: Place) -> None:
    owner = source.backend.open_store(ALICE, pickle_key=KEY)
    copy(source, destination, ALICE, PLAIN)
    with pytest.raises(FencedOut):
        owner.apply(Changes([SyncToken("s2")]))


def test_two_copies_at_once(source: Place, destination: Place) -> None:
    def rival(number: int) -> None:
        if number == 2:
            handle(destination).after = lambda _number: None
            copy(source, destination, ALICE, PLAIN)

    handle(destination).after = rival
    with pytest.raises(FencedOut):
        copy(source, destination, ALICE, PLAIN)
    assert token(destination) == "s1"


def test_a_client_that_opens_the_destination_before_the_first_row(source: Place, destination: Place) -> None:
    def open_it(number: int) -> None:
        if number == 0:
            handle(destination).before = lambda _number: None
            save(destination, SyncToken("a new identity"))

    handle(destination).before = open_it
    with pytest.raises(FencedOut):
        copy(source, destination, ALICE, PLAIN)
    assert (token(source), token(destination)) == ("s1", "a new identity")


def test_a_destination_that_is_deleted_in_the_last_moment_does_not_take_the_source_with_it(
    source: Place, destination: Place
) -> None:
    take_over = handle(source).take_over

    def take_over_and_delete(user_id: str, device_id: str, claim: object, timeout: float) -> AccountRow:
        destination.backend.delete_account(ALICE)
        return take_over(user_id, device_id, claim, timeout)  # type: ignore[arg-type]  # handed on as it came

    handle(source).take_over = take_over_and_delete  # type: ignore[method-assign]
    with pytest.raises(ConfigurationError, match="another program opened, copied or deleted"):
        copy(source, destination, ALICE, PLAIN)
    assert token(source) == "s1"


def test_another_program_between_the_look_and_the_first_batch(source: Place, destination: Place) -> None:
    begun = copying._Copy(source, destination, ALICE, PLAIN)
    save(destination, SyncToken("its own"))
    with pytest.raises(ConfigurationError, match="another program opened, copied or deleted"):
        begun.run(copying.UNWATCHED)
    assert token(destination) == "its own"


def test_another_program_between_the_look_and_going_on(source: Place, destination: Place) -> None:
    interrupted(source, destination)
    begun = copying._Copy(source, destination, ALICE, PLAIN)
    copy(source, destination, ALICE, How(leave_source=True))
    with pytest.raises(ConfigurationError, match="another program opened, copied or deleted"):
        begun.run(copying.UNWATCHED)
    assert token(destination) == "s1"


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


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda rows, key: rows.update({key: b"other"}), "is not the same at the destination"),
        (lambda rows, key: rows.pop(key), "is missing at the destination"),
        (lambda rows, key: rows.update({key + b"\0": b"more"}), "is at the destination alone"),
    ],
)
def test_a_destination_that_keeps_something_else(
    source: Place, destination: Place, spoil: Callable[[dict[bytes, bytes], bytes], object], reason: str
) -> None:
    key = encode_key(TrackedUser, ("@9:x",))

    def spoiled(_number: int) -> None:
        records = handle(destination).shared.records[next(iter(handle(destination).shared.accounts.values())).id]
        if key in records.values:
            handle(destination).after = lambda _number: None
            spoil(records.values, key)
            records.order[:] = sorted(records.values)

    handle(destination).after = spoiled
    copied = copy(source, destination, ALICE, PLAIN)
    assert [each.reason for each in copied.different] == [reason]
    assert token(source) == "s1"
    refuses(destination, "is not complete")


def test_a_ring_that_is_kept_as_something_else(source: Place, destination: Place) -> None:
    def spoiled(_number: int) -> None:
        rows = rows_of(destination.backend, ALICE)
        if RING_KEYS[1] in rows:
            rows[RING_KEYS[1]] = b"other"

    handle(destination).after = spoiled
    copied = copy(source, destination, ALICE, How(leave_source=True))
    assert [each.key for each in copied.different] == [RING_KEYS[1]]


def test_no_more_differences_are_named_than_fit_into_memory(
    source: Place, destination: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_MOST_NAMED", 5)

    def spoiled(_number: int) -> None:
        rows = rows_of(destination.backend, ALICE)
        rows.update({key: b"other" for key in rows if key[0] == TrackedUser.kind_number})

    handle(destination).after = spoiled
    assert len(copy(source, destination, ALICE, PLAIN).different) == 5


def test_a_mark_that_does_not_fit_the_source_is_believed_by_nobody(source: Place, destination: Place) -> None:
    copy(source, destination, ALICE, PLAIN)
    mark = decode_mark(ALICE, contents(source)[MARK_KEY])
    plant(destination.backend, ALICE, MARK_KEY, encode_mark(ALICE, replace(mark, other_id=3)))
    with pytest.raises(AccountElsewhere):
        copy(source, destination, ALICE, PLAIN)


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
