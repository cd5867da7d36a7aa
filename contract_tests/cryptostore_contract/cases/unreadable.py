"""Rows that cannot be read: reported, kept, and in nobody's way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cryptostore import (
    KINDS,
    Changes,
    CryptoStore,
    FieldType,
    InboundGroupSession,
    OlmAccount,
    Record,
    SyncToken,
    UnreadableRecord,
    fields_of,
    hookimpl,
)
from cryptostore.observers import observers
from cryptostore_contract.cases.base import CaseGroup
from cryptostore_contract.handles import Handles, put
from cryptostore_contract.harness import Ability, Harness
from cryptostore_contract.manifest import case
from cryptostore_contract.samples import ALICE, BOB, changed, sample, samples

_DAMAGE = (Ability.DAMAGE,)

#: Those with a field that a database may hold in a wrong form: all bytes are good bytes, and a damaged key is
#: another key.
_DAMAGED_KINDS = [
    kind
    for kind in KINDS
    if kind.key_fields
    and any(name not in kind.key_fields and declared is not FieldType.BYTES for name, declared in fields_of(kind))
]


class Witness:
    """An observer that remembers which rows were reported."""

    def __init__(self) -> None:
        self.unreadable: list[tuple[object, str]] = []

    @hookimpl
    def cryptostore_unreadable_row(self, account: object, kind: str) -> None:
        """A row was skipped."""
        self.unreadable.append((account, kind))


class UnreadableCases(CaseGroup):
    """One unreadable row blocks nothing."""

    @pytest.fixture
    def witness(self) -> Iterator[Witness]:
        """An observer of this case."""
        witness = Witness()
        observers().add("contract witness", witness)
        yield witness
        observers().remove("contract witness")

    @case("UNREADABLE-1", checks=("GET-5", "SELECT-5", "SCAN-3"), needs=_DAMAGE)
    @pytest.mark.parametrize("kind", _DAMAGED_KINDS, ids=lambda kind: kind.kind_name)
    def test_an_unreadable_row_is_reported_and_left_out(
        self, store: CryptoStore, handles: Handles, harness: Harness, witness: Witness, kind: type[Record]
    ) -> None:
        first, damaged, last = samples(kind, 3)
        put(store, first, damaged, last)
        harness.damage(ALICE, kind, damaged.key)
        reader = handles.read()
        looks: list[Callable[[], list[Any]]] = [
            lambda: list(reader.get(kind, [record.key for record in (first, damaged, last)]).values()),
            lambda: reader.select(kind, [()])[()],
            lambda: list(reader.scan(kind)),
        ]
        for reported, look in enumerate(looks, 1):
            assert sorted(look(), key=lambda record: record.key) == [first, last]
            assert witness.unreadable == [(ALICE, kind.kind_name)] * reported

    @case("UNREADABLE-2", checks=("GET-5", "SELECT-5", "SCAN-3"), needs=_DAMAGE)
    @pytest.mark.parametrize("kind", [OlmAccount, SyncToken], ids=lambda kind: kind.kind_name)
    def test_an_unreadable_only_record_is_an_error_and_never_absent(
        self, store: CryptoStore, handles: Handles, harness: Harness, witness: Witness, kind: type[Record]
    ) -> None:
        put(store, sample(kind))
        harness.damage(ALICE, kind, ())
        reader = handles.read()
        looks: list[Callable[[], object]] = [
            lambda: reader.get(kind, [()]),
            lambda: reader.select(kind, [()]),
            lambda: list(reader.scan(kind)),
        ]
        for look in looks:
            with pytest.raises(UnreadableRecord, match=kind.kind_name):
                look()
        assert witness.unreadable == [(ALICE, kind.kind_name)] * len(looks)

    @case("UNREADABLE-3", checks=("GET-5", "COMMIT-8"), needs=_DAMAGE)
    def test_an_unreadable_row_stands_in_no_batchs_way_and_is_kept(
        self, store: CryptoStore, handles: Handles, harness: Harness, witness: Witness
    ) -> None:
        damaged, other = samples(InboundGroupSession, 2)
        put(store, damaged)
        harness.damage(ALICE, InboundGroupSession, damaged.key)
        put(store, other, sample(SyncToken))
        store.apply(Changes(deletes=[(InboundGroupSession, other.key)]))
        put(handles.own(), sample(SyncToken, 2))
        for times in (1, 2):
            assert handles.stored(InboundGroupSession) == []
            # It is still reported: it is still there.
            assert witness.unreadable == [(ALICE, InboundGroupSession.kind_name)] * times

    @case("UNREADABLE-4", checks=("COMMIT-8",), needs=_DAMAGE)
    def test_an_unreadable_row_is_replaced_or_deleted_as_any_other(
        self, store: CryptoStore, handles: Handles, harness: Harness, witness: Witness
    ) -> None:
        replaced, deleted = samples(InboundGroupSession, 2)
        put(store, replaced, deleted)
        for session in (replaced, deleted):
            harness.damage(ALICE, InboundGroupSession, session.key)
        healed = changed(replaced, 3)
        store.apply(Changes([healed], [(InboundGroupSession, deleted.key)]))
        assert handles.stored(InboundGroupSession) == [healed]
        assert witness.unreadable == []

    @case("UNREADABLE-5", checks=("GET-5",), needs=_DAMAGE)
    def test_an_unreadable_row_concerns_its_own_account_only(
        self, store: CryptoStore, handles: Handles, harness: Harness, witness: Witness
    ) -> None:
        put(store, sample(OlmAccount))
        put(handles.own(BOB), sample(OlmAccount))
        harness.damage(ALICE, OlmAccount, ())
        assert handles.stored(OlmAccount, BOB) == [sample(OlmAccount)]
        assert witness.unreadable == []

    @case("UNREADABLE-6", checks=("GET-5", "BACKEND-4"), needs=_DAMAGE)
    def test_the_report_of_an_unreadable_row_does_not_quote_it(
        self, store: CryptoStore, handles: Handles, harness: Harness, caplog: pytest.LogCaptureFixture
    ) -> None:
        canary = "canary-in-a-damaged-row"
        put(store, sample(InboundGroupSession, pickle=canary.encode(), signing_key=canary, room_id=f"!{canary}"))
        harness.damage(ALICE, InboundGroupSession, sample(InboundGroupSession, room_id=f"!{canary}").key)
        with caplog.at_level(logging.DEBUG):
            assert handles.stored(InboundGroupSession) == []
        assert InboundGroupSession.kind_name in caplog.text
        assert canary not in caplog.text
