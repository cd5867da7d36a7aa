"""Rows that cannot be read: reported and kept, while the other rows are read as before."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import pytest

from cryptostore import (
    KINDS,
    Account,
    Changes,
    CryptoStore,
    CryptoStoreError,
    InboundGroupSession,
    Key,
    OlmAccount,
    Record,
    SyncToken,
    Unreadable,
    UnreadableRecord,
    Value,
    hookimpl,
)
from cryptostore.plugins.observers import observers
from cryptostore.store.keys import encode_own_key
from cryptostore_contract.cases.base import CaseGroup
from cryptostore_contract.cases.records import every_kind
from cryptostore_contract.handles import Handles, put
from cryptostore_contract.manifest import case
from cryptostore_contract.raw import found, overwrite, rows_of
from cryptostore_contract.samples import ALICE, BOB, changed, sample, samples

#: What a damaged row may hold.
_GARBAGE: Final = b"\xffgarbage"

#: Kinds whose rows are left out of an answer, and kinds of which one that cannot be read is an error.
LEFT_OUT: Final = [kind for kind in KINDS if kind.when_unreadable is not Unreadable.ERROR]
NEVER_ABSENT: Final = [kind for kind in KINDS if kind.when_unreadable is Unreadable.ERROR]


class Witness:
    """An observer that remembers which rows were reported: account, kind, key and why."""

    def __init__(self) -> None:
        self.unreadable: list[tuple[Account, str, Key | None, str]] = []

    @hookimpl
    def cryptostore_unreadable_row(self, account: Account, kind: str, key: Key | None, reason: str) -> None:
        """A row was left out, or raised for."""
        self.unreadable.append((account, kind, key, reason))

    def told_of(self) -> list[tuple[Account, str, Key | None]]:
        """What was reported, without the reasons."""
        return [report[:3] for report in self.unreadable]


class WitnessedCases(CaseGroup):
    """Cases with an observer."""

    @pytest.fixture
    def witness(self) -> Iterator[Witness]:
        """An observer of this case."""
        witness = Witness()
        observers().add("contract witness", witness)
        yield witness
        observers().remove("contract witness")


class UnreadableCases(WitnessedCases):
    """One unreadable row blocks nothing."""

    @case("UNREADABLE-1", checks=("GET-5", "SELECT-5", "SCAN-3"))
    @pytest.mark.parametrize("kind", LEFT_OUT, ids=lambda kind: kind.kind_name)
    def test_an_unreadable_row_is_reported_and_left_out(
        self, store: CryptoStore, handles: Handles, witness: Witness, kind: type[Record]
    ) -> None:
        # Of some kinds an account has one record.
        several = samples(kind, 3) if kind.key_fields else [sample(kind)]
        damaged = several[len(several) // 2]
        kept = [record for record in several if record is not damaged]
        put(store, damaged, *kept)
        damage(handles, damaged)
        reader = handles.read()
        got = reader.get(kind, [record.key for record in (damaged, *kept)])
        selected = reader.select(kind, [(), damaged.key])
        assert got == {record.key: record for record in kept}
        assert selected == {(): kept, damaged.key: []}
        assert list(reader.scan(kind)) == kept
        assert got.unreadable.keys() == selected.unreadable.keys() == {damaged.key}
        assert witness.told_of() == [(ALICE, kind.kind_name, damaged.key)] * 3
        [reason] = {*got.unreadable.values(), *selected.unreadable.values(), *(told[3] for told in witness.unreadable)}
        assert reason

    @case("UNREADABLE-2", checks=("GET-5", "SELECT-5", "SCAN-3"))
    @pytest.mark.parametrize("kind", NEVER_ABSENT, ids=lambda kind: kind.kind_name)
    def test_an_unreadable_only_record_is_an_error_and_never_absent(
        self, store: CryptoStore, handles: Handles, witness: Witness, kind: type[Record]
    ) -> None:
        put(store, sample(kind))
        damage(handles, sample(kind))
        error_of_every_look(handles.read(), sample(kind), UnreadableRecord)
        assert witness.told_of() == [(ALICE, kind.kind_name, sample(kind).key)] * 3

    @case("UNREADABLE-3", checks=("GET-5", "COMMIT-1"))
    def test_an_unreadable_row_stands_in_no_batchs_way_and_is_kept(
        self, store: CryptoStore, handles: Handles, witness: Witness
    ) -> None:
        damaged, other = samples(InboundGroupSession, 2)
        put(store, damaged)
        damage(handles, damaged)
        newer = handles.own()
        put(newer, other, sample(SyncToken))
        newer.apply(Changes(deletes=[(InboundGroupSession, other.key)]))
        put(handles.own(), sample(SyncToken, 2))
        for times in (1, 2):
            assert handles.stored(InboundGroupSession) == []
            # It is still reported: it is still there.
            assert witness.told_of() == [(ALICE, InboundGroupSession.kind_name, damaged.key)] * times
        assert stored_rows(handles)[encode_own_key(damaged)] == _GARBAGE

    @case("UNREADABLE-4", checks=("COMMIT-1",))
    def test_an_unreadable_row_is_replaced_or_deleted_as_any_other(
        self, store: CryptoStore, handles: Handles, witness: Witness
    ) -> None:
        replaced, deleted = samples(InboundGroupSession, 2)
        put(store, replaced, deleted)
        damage(handles, replaced, deleted)
        healed = changed(replaced, 3)
        handles.own().apply(Changes([healed], [(InboundGroupSession, deleted.key)]))
        assert handles.stored(InboundGroupSession) == [healed]
        assert witness.unreadable == []

    @case("UNREADABLE-5", checks=("GET-5",))
    def test_an_unreadable_row_concerns_its_own_account_only(
        self, store: CryptoStore, handles: Handles, witness: Witness
    ) -> None:
        put(store, sample(OlmAccount))
        put(handles.own(BOB), sample(OlmAccount))
        damage(handles, sample(OlmAccount))
        assert handles.stored(OlmAccount, BOB) == [sample(OlmAccount)]
        assert witness.unreadable == []

    @case("UNREADABLE-6", checks=("GET-5", "DATABASE-4"))
    def test_the_report_of_an_unreadable_row_does_not_quote_it(
        self, store: CryptoStore, handles: Handles, caplog: pytest.LogCaptureFixture
    ) -> None:
        canary = b"canary-in-a-damaged-row"
        session = sample(InboundGroupSession)
        put(store, session)
        overwrite(handles.open().database, {encode_own_key(session): canary * 3})
        with caplog.at_level(logging.DEBUG):
            assert handles.stored(InboundGroupSession) == []
        assert InboundGroupSession.kind_name in caplog.text
        assert [word for word in (canary.decode(), canary.hex()) if word in caplog.text] == []

    @case("UNREADABLE-7", checks=("SELECT-5", "SCAN-3"))
    def test_a_row_whose_key_cannot_be_read_is_reported_and_left_out(
        self, store: CryptoStore, handles: Handles, witness: Witness
    ) -> None:
        put(store, sample(Value))
        number = bytes([Value.kind_number])
        # Half a key, one that is too long, and a text that is none.
        strays = (number + b"half", encode_own_key(sample(Value)) + b"x", number + b"\xff\0name\0")
        overwrite(handles.open().database, dict.fromkeys(strays, _GARBAGE))
        reader = handles.read()
        selected = reader.select(Value, [()])
        assert selected == {(): [sample(Value)]}
        assert selected.unreadable.keys() == {None}
        assert list(reader.scan(Value)) == [sample(Value)]
        assert witness.told_of() == [(ALICE, Value.kind_name, None)] * 2 * len(strays)

    @case("UNREADABLE-8", checks=("GET-5", "SELECT-5", "SCAN-3"))
    @every_kind
    @pytest.mark.parametrize("length", [0, 1, 17, 33])
    def test_values_that_are_cut_short_are_unreadable(
        self, store: CryptoStore, handles: Handles, witness: Witness, kind: type[Record], length: int
    ) -> None:
        put(store, sample(kind))
        key = encode_own_key(sample(kind))
        overwrite(handles.open().database, {key: stored_rows(handles)[key][:length]})
        assert_unreadable(handles.read(), sample(kind))
        assert {told[:2] for told in witness.unreadable} == {(ALICE, kind.kind_name)}


def damage(handles: Handles, *records: Record) -> None:
    """Store garbage in the place of Alice's records, under their owner."""
    overwrite(handles.open().database, {encode_own_key(record): _GARBAGE for record in records})


def stored_rows(handles: Handles, account: Account = ALICE) -> Mapping[bytes, bytes]:
    """All rows of an account as they are stored."""
    with handles.open() as backend:
        return rows_of(backend.database, found(backend.database, account).id)


def assert_unreadable(reader: CryptoStore, record: Record) -> str:
    """Whatever way the record is looked up, it is unreadable; returns the reason, which is one and the same."""
    kind, key = type(record), record.key
    if kind.when_unreadable is Unreadable.ERROR:
        return str(error_of_every_look(reader, record, UnreadableRecord))
    got, selected = reader.get(kind, [key]), reader.select(kind, [key])
    assert (got, selected) == ({}, {key: []})
    assert list(reader.scan(kind, key)) == []
    assert got.unreadable == selected.unreadable
    assert got.unreadable.keys() == {key}
    return got.unreadable[key]


def error_of_every_look(reader: CryptoStore, record: Record, expected: type[CryptoStoreError]) -> CryptoStoreError:
    """Whatever way the record is looked up, this is raised, and names the kind; returns the last error."""
    kind = type(record)
    looks: list[Callable[[], object]] = [
        lambda: reader.get(kind, [record.key]),
        lambda: reader.select(kind, [()]),
        lambda: list(reader.scan(kind)),
    ]
    for look in looks:
        with pytest.raises(expected, match=kind.kind_name) as refused:
            look()
    return refused.value
