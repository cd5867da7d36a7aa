"""Batches before they are sent."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptostore import KINDS, Changes, InvalidRecord, OlmAccount, Record, RecordKey, SyncToken, TrackedUser, Value
from example_records import SECRET, example

ALICE, BOB = TrackedUser("@alice:x"), TrackedUser("@bob:x")


def test_an_empty_batch_is_false() -> None:
    assert not Changes()
    assert len(Changes()) == 0
    assert Changes().kinds() == []


def test_puts_and_deletes_by_kind() -> None:
    changes = Changes([ALICE, BOB, SyncToken("s1")], [(Value, ("n", "v"))])
    assert changes.puts(TrackedUser) == [ALICE, BOB]
    assert changes.puts(SyncToken) == [SyncToken("s1")]
    assert changes.deletes(Value) == [("n", "v")]
    assert not changes.puts(Value)
    assert not changes.deletes(TrackedUser)
    assert len(changes) == 4
    assert set(changes.keys()) == {
        RecordKey(TrackedUser, ("@alice:x",)),
        RecordKey(TrackedUser, ("@bob:x",)),
        RecordKey(SyncToken, ()),
        RecordKey(Value, ("n", "v")),
    }


def test_it_tells_which_kinds_it_touches() -> None:
    assert Changes([example(kind) for kind in KINDS]).kinds() == list(KINDS)
    assert set(Changes([SyncToken("s")], [(OlmAccount, ())]).kinds()) == {OlmAccount, SyncToken}


@pytest.mark.parametrize(
    ("puts", "deletes"),
    [
        ([ALICE, TrackedUser("@alice:x", outdated=True)], []),
        ([ALICE], [(TrackedUser, ALICE.key)]),
        ([], [(TrackedUser, ALICE.key), (TrackedUser, ALICE.key)]),
    ],
)
def test_a_key_takes_one_operation(puts: list[Record], deletes: list[Any]) -> None:
    with pytest.raises(InvalidRecord, match=r"^tracked_user\.key has two operations in one batch"):
        Changes(puts, deletes)


class Cousin(TrackedUser):
    """Looks like a record, but is no kind."""


@pytest.mark.parametrize(
    ("puts", "deletes", "name"),
    [
        ([Cousin("@alice:x")], [], "Cousin"),
        (["secret"], [], "str"),
        ([], [(Record, ())], "Record"),
        ([], [("secret", ())], "str"),
    ],
)
def test_what_is_no_kind_is_refused(puts: list[Any], deletes: list[Any], name: str) -> None:
    with pytest.raises(InvalidRecord, match="is not a kind of record") as caught:
        Changes(puts, deletes)
    assert caught.value.kind == name
    assert "secret" not in str(caught.value)


def test_a_key_to_delete_is_checked() -> None:
    with pytest.raises(InvalidRecord, match="has 0 values"):
        Changes(deletes=[(TrackedUser, ())])


def test_equal_by_content() -> None:
    assert Changes([ALICE, BOB]) == Changes([BOB, ALICE])
    assert Changes([ALICE]) != Changes([TrackedUser("@alice:x", generation=1)])
    assert Changes([ALICE]) != Changes(deletes=[(TrackedUser, ALICE.key)])
    assert Changes() != 0


def test_not_hashable() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(Changes())


def test_survives_pickling() -> None:
    changes = Changes([example(kind) for kind in KINDS[1:]], [(OlmAccount, ())])
    assert pickle.loads(pickle.dumps(changes)) == changes


def test_repr_only_counts() -> None:
    changes = Changes([Value("n", SECRET, b""), ALICE], [(SyncToken, ())])
    assert repr(changes) == "<Changes: 2 puts, 1 deletes>"


def applied(changes: Changes, to: dict[RecordKey, Record]) -> dict[RecordKey, Record]:
    puts = {RecordKey(kind, record.key): record for kind in changes.kinds() for record in changes.puts(kind)}
    deletes = {RecordKey(kind, key) for kind in changes.kinds() for key in changes.deletes(kind)}
    return {name: record for name, record in (to | puts).items() if name not in deletes}


names = st.sampled_from(["a", "b", "c", "d"])
records = st.builds(TrackedUser, names, generation=st.integers(0, 3)) | st.builds(SyncToken, names)


@st.composite
def batches(draw: st.DrawFn) -> Changes:
    touched = draw(st.lists(records, unique_by=lambda record: RecordKey(type(record), record.key)))
    is_put = draw(st.lists(st.booleans(), min_size=len(touched), max_size=len(touched)))
    return Changes(
        [record for record, put in zip(touched, is_put, strict=True) if put],
        [(type(record), record.key) for record, put in zip(touched, is_put, strict=True) if not put],
    )


@given(batches(), batches(), batches())
def test_followed_by_has_the_effect_of_both(before: Changes, first: Changes, second: Changes) -> None:
    stored = applied(before, {})
    merged = first.followed_by(second)
    assert applied(merged, stored) == applied(second, applied(first, stored))
    assert set(merged.keys()) == set(first.keys()) | set(second.keys())
    assert applied(first.followed_by(second, before, first), {}) == applied(
        first, applied(before, applied(second, applied(first, {})))
    )


def test_merging_with_nothing_copies_nothing() -> None:
    changes = Changes([ALICE])
    assert changes.followed_by(Changes(), Changes()) is Changes().followed_by(changes) is changes
    assert Changes().followed_by(Changes()) == Changes()


def test_merging_leaves_the_parts_as_they_are() -> None:
    first, second = Changes([ALICE]), Changes([BOB], [(Value, ("n", "v"))])
    assert len(first.followed_by(second)) == 3
    assert (first, second) == (Changes([ALICE]), Changes([BOB], [(Value, ("n", "v"))]))


def test_operations_by_key() -> None:
    changes = Changes([ALICE], [(TrackedUser, BOB.key)])
    assert changes.operations(TrackedUser) == {ALICE.key: ALICE, BOB.key: None}
    assert changes.operations(Value) == {}
