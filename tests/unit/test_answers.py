"""What look-ups answer, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cryptostore import (
    Backend,
    BackendInvalid,
    Device,
    EncryptedRoom,
    Mode,
    OlmSession,
    Record,
    Row,
    SyncToken,
    TrackedUser,
    record_kind,
)
from cryptostore.records import record
from cryptostore.records.fields import Identifier, Text
from cryptostore.store.keys import encode_key
from cryptostore.store.memory import MemoryDatabase, MemoryHandle
from example_records import ALICE, example
from sealed_database import KEY, backend, saved

__all__ = ["backend"]


class Untrustworthy(MemoryHandle):
    """Answers what was not asked for."""

    extra: Row | None = None

    def get(self, account_id: int, keys: Any, timeout: float) -> list[Row]:
        return [*super().get(account_id, keys, timeout), *([self.extra] if self.extra else [])]

    def ranges(self, account_id: int, ranges: Any, timeout: float) -> list[Row]:
        return [*super().ranges(account_id, ranges, timeout), *([self.extra] if self.extra else [])]

    def page(self, account_id: int, within: Any, size: int, timeout: float) -> list[Row]:
        return [*super().page(account_id, within, size, timeout), *([self.extra] if self.extra else [])]


def test_an_answer_with_foreign_rows_is_not_used() -> None:
    database = Untrustworthy(MemoryDatabase())
    with Backend(database, name="untrustworthy") as backend:
        saved(backend, TrackedUser("@a:x"), TrackedUser("@b:x"))
        store = backend.open_store(ALICE, Mode.READ, pickle_key=KEY)
        database.extra = Row(encode_key(TrackedUser, ("@a:x",)), b"")
        for read in (
            lambda: store.get(TrackedUser, [("@a:x",)]),
            lambda: store.select(TrackedUser, [()]),
            lambda: list(store.scan(TrackedUser)),
        ):
            with pytest.raises(BackendInvalid, match="nothing of the answer was used"):
                read()


def test_prefixes_within_each_other_answer_each_for_itself(backend: Backend) -> None:
    one, two, other = (
        OlmSession(sender, session, b"", example(OlmSession).created_at, example(OlmSession).last_used_at)
        for sender, session in (("sender", "1"), ("sender", "2"), ("other", "1"))
    )
    saved(backend, one, two, other)
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        selected = store.select(OlmSession, [("sender", "2"), (), ("sender",), ("nobody",)])
    assert selected == {
        ("sender", "2"): [two],
        (): [other, one, two],
        ("sender",): [one, two],
        ("nobody",): [],
    }


def test_several_kinds_are_selected_in_one_round_trip(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = example(OlmSession, sender_key="sender", session_id="1"), example(OlmSession, session_id="2")
    saved(backend, one, two, SyncToken("s1"))
    calls: list[int] = []
    ranges = MemoryHandle.ranges

    def counted(self: MemoryHandle, account_id: int, wanted: Any, timeout: float) -> list[Row]:
        calls.append(len(wanted))
        return ranges(self, account_id, wanted, timeout)

    monkeypatch.setattr(MemoryHandle, "ranges", counted)
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        together = store.select_together([(SyncToken, ()), (OlmSession, one.key), (OlmSession, ("no",)), (Device, ())])
    assert calls == [4]
    assert together.of(SyncToken) == {(): [SyncToken("s1")]}
    assert together.of(OlmSession) == {one.key: [one], ("no",): []}
    assert together.of(Device) == {(): []}
    assert together.of(EncryptedRoom) == {}


def test_what_cannot_be_read_is_told_by_kind(backend: Backend) -> None:
    room, user = EncryptedRoom("!room"), TrackedUser("@user", False, 0)
    saved(backend, room, user)
    assert isinstance(backend.database, MemoryHandle)
    (rows,) = backend.database.shared.records.values()
    rows.put(Row(encode_key(EncryptedRoom, room.key), b"damaged"))
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        together = store.select_together([(EncryptedRoom, ()), (TrackedUser, ())])
    assert together.of(EncryptedRoom).unreadable.keys() == {room.key}
    assert together.of(TrackedUser) == {(): [user]}
    assert together.of(TrackedUser).unreadable == {}


def test_no_keys_and_no_prefixes_cost_no_round_trip(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    with backend.open_store(ALICE, pickle_key=KEY) as store:
        for name in ("get", "ranges"):
            monkeypatch.setattr(MemoryHandle, name, lambda *_: pytest.fail("asked"))
        assert store.get(SyncToken, []) == {}
        assert store.select(SyncToken, []) == {}


@pytest.fixture
def _forget_new_kinds() -> Iterator[None]:
    """Other tests of this process know the kinds that there are, and no others."""
    known = dict(record._kinds)
    yield
    record._kinds.clear()
    record._kinds.update(known)


@pytest.mark.usefixtures("_forget_new_kinds")
def test_a_new_kind_is_one_class(backend: Backend) -> None:
    @record_kind
    class Gap(Record):
        """What a later version may keep."""

        kind_number = 200
        kind_name = "gap"
        key_fields = ("room_id",)
        room_id: Identifier
        cursor: Text

    saved(backend, Gap("!r:x", "t1"), SyncToken("s"))
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        assert store.select(Gap, [("!r:x",)]) == {("!r:x",): [Gap("!r:x", "t1")]}
