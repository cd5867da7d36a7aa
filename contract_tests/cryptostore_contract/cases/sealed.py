"""Sealed rows: what is written into the database without the pickle key is never taken for a record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import pytest

from cryptostore import (
    KINDS,
    Account,
    ConfigurationError,
    CryptoStore,
    CryptoStoreError,
    InboundGroupSession,
    Mode,
    OlmAccount,
    Record,
    SchemaTooNew,
    SyncToken,
    UnreadableRecord,
    Value,
    WrongPickleKey,
    new_pickle_key,
)
from cryptostore.store.keys import encode_own_key
from cryptostore.store.ring import RING_KEYS, STORE_FORMAT, Ring, find_ring, wrap
from cryptostore.store.seal import Reason, Seal
from cryptostore.store.values import encode_value
from cryptostore_contract.cases.records import every_kind, keyed_kinds
from cryptostore_contract.cases.unreadable import (
    Witness,
    WitnessedCases,
    assert_unreadable,
    error_of_every_look,
    stored_rows,
)
from cryptostore_contract.handles import Handles, by_kind, put
from cryptostore_contract.manifest import case
from cryptostore_contract.raw import overwrite
from cryptostore_contract.samples import ALICE, BOB, KEY, changed, one_of_each, sample, samples

#: A bit of each part of a sealed value: where it is, and what is said of a value in which it is another.
_BITS: Final = {
    "version": (0, Reason.UNKNOWN_VERSION),
    "data key": (2, Reason.UNKNOWN_DATA_KEY),
    "nonce": (5, Reason.TAMPERED),
    "first byte of the text": (17, Reason.TAMPERED),
    "last byte of the tag": (-1, Reason.TAMPERED),
}

_LOST: Final = {"both copies": RING_KEYS, "both copies and all records": ()}


class SealedCases(WitnessedCases):
    """Rows that were edited or moved, and key rings."""

    @case("SEALED-1", checks=("GET-5", "SELECT-5", "SCAN-3"))
    @every_kind
    @pytest.mark.parametrize("part", _BITS)
    def test_a_row_with_one_other_bit_is_unreadable(
        self, store: CryptoStore, handles: Handles, witness: Witness, kind: type[Record], part: str
    ) -> None:
        record = sample(kind)
        put(store, record)
        position, reason = _BITS[part]
        edited = bytearray(stored_rows(handles)[encode_own_key(record)])
        edited[position] ^= 0x40
        plant(handles, witness, record, bytes(edited), reason)

    @case("SEALED-2", checks=("GET-5", "SELECT-5", "SCAN-3"))
    @keyed_kinds
    def test_rows_that_were_swapped_are_unreadable(
        self, store: CryptoStore, handles: Handles, witness: Witness, kind: type[Record]
    ) -> None:
        one, other = samples(kind, 2)
        put(store, one, other)
        stored = stored_rows(handles)
        plant(handles, witness, one, stored[encode_own_key(other)])
        plant(handles, witness, other, stored[encode_own_key(one)])

    @case("SEALED-3", checks=("GET-5", "SELECT-5", "SCAN-3"))
    @every_kind
    def test_a_row_that_was_moved_to_another_kind_is_unreadable(
        self, store: CryptoStore, handles: Handles, witness: Witness, kind: type[Record]
    ) -> None:
        records = one_of_each()
        put(store, *records)
        # A key of the same fields would do, where there is one: the kind's number is its first byte.
        moved = stored_rows(handles)[encode_own_key(records[KINDS.index(kind) - 1])]
        plant(handles, witness, sample(kind), moved)

    @case("SEALED-4", checks=("GET-5", "SELECT-5", "SCAN-3"))
    @every_kind
    def test_a_row_that_was_moved_to_another_account_is_unreadable(
        self, store: CryptoStore, handles: Handles, witness: Witness, kind: type[Record]
    ) -> None:
        hers, his = sample(kind), changed(sample(kind), 2)
        put(store, hers)
        put(handles.own(BOB), his)
        moved = stored_rows(handles, BOB)[encode_own_key(his)]
        # Under the data key of Alice's that it names, too: the numbers of data keys are no secret.
        renamed = moved[:1] + stored_rows(handles)[encode_own_key(hers)][1:5] + moved[5:]
        plant(handles, witness, hers, renamed)
        plant(handles, witness, hers, moved, Reason.UNKNOWN_DATA_KEY)

    @case("SEALED-5", checks=("GET-5", "SELECT-5", "SCAN-3"))
    @every_kind
    def test_a_row_of_a_newer_format_is_an_error_and_kept(
        self, store: CryptoStore, handles: Handles, witness: Witness, kind: type[Record]
    ) -> None:
        record, key = sample(kind), encode_own_key(sample(kind))
        put(store, record)
        newer = bytes([kind.format_number + 1]) + encode_value(record)[1:] + b"\xc0"
        value = Seal(ALICE, ring_of(handles).data_keys).seal(key, newer)
        overwrite(handles.open().database, {key: value})
        error_of_every_look(handles.read(), record, SchemaTooNew)
        assert stored_rows(handles)[key] == value
        assert witness.unreadable == []

    @case("SEALED-6", checks=("OPEN-6", "OPEN-3"))
    def test_the_ring_of_another_account_opens_nothing(self, store: CryptoStore, handles: Handles) -> None:
        put(store, *one_of_each())
        put(handles.own(BOB), *one_of_each(2))
        rings = {key: stored_rows(handles, BOB)[key] for key in RING_KEYS}
        overwrite(handles.open().database, rings)
        with refused(handles, UnreadableRecord):
            handles.own()
        with refused(handles, UnreadableRecord):
            handles.read()

    @case("SEALED-7", checks=("OPEN-6", "OPEN-3"))
    @pytest.mark.parametrize("lost", _LOST)
    def test_an_account_without_its_ring_is_no_new_account(
        self, store: CryptoStore, handles: Handles, lost: str
    ) -> None:
        put(store, *one_of_each())
        overwrite(handles.open().database, {}, _LOST[lost] or stored_rows(handles))
        with refused(handles, UnreadableRecord):
            handles.own()
        with refused(handles, UnreadableRecord):
            handles.read()

    @case("SEALED-8", checks=("OPEN-6", "COMMIT-1"))
    @pytest.mark.parametrize("lost", RING_KEYS)
    @pytest.mark.parametrize("value", [None, b"", b"\xffgarbage"], ids=["missing", "empty", "damaged"])
    def test_a_copy_of_the_ring_that_is_lost_is_written_again(
        self, store: CryptoStore, handles: Handles, lost: bytes, value: bytes | None
    ) -> None:
        put(store, *one_of_each())
        before = ring_of(handles)
        puts, deletes = ({}, [lost]) if value is None else ({lost: value}, [])
        overwrite(handles.open().database, puts, deletes)
        put(handles.own(), sample(SyncToken, 2))
        found = find_ring(ALICE, stored_rows(handles), KEY)
        assert found is not None
        assert (found.ring, dict(found.faults)) == (before, {})
        others = [record for record in one_of_each() if not isinstance(record, SyncToken)]
        assert handles.everything() == by_kind([*others, sample(SyncToken, 2)])

    @case("SEALED-9", checks=("OPEN-6", "OPEN-3"))
    def test_a_wrong_pickle_key_takes_nothing_over(self, store: CryptoStore, handles: Handles) -> None:
        put(store, *one_of_each())
        for wrong in (new_pickle_key(), "a passphrase, and a long one"):
            for mode in Mode:
                with refused(handles, WrongPickleKey):
                    handles.open().open_store(ALICE, mode, pickle_key=wrong)
        put(store, sample(SyncToken, 2))

    @case("SEALED-10", checks=("OPEN-6", "OPEN-3"))
    def test_an_account_of_a_newer_program_is_not_taken_over(self, store: CryptoStore, handles: Handles) -> None:
        put(store, *one_of_each())
        newer = replace(ring_of(handles).rewrapped(), format_floor=STORE_FORMAT + 1)
        overwrite(handles.open().database, wrap(ALICE, newer, KEY))
        with refused(handles, SchemaTooNew):
            handles.own()
        with refused(handles, SchemaTooNew):
            handles.read()

    @case("SEALED-11", checks=("OPEN-7",))
    def test_a_store_without_a_pickle_key_copies_rows_and_reads_none(
        self, store: CryptoStore, handles: Handles
    ) -> None:
        put(store, *one_of_each(), *samples(Value, 1_200)[1:])
        keyless = handles.open().open_store(ALICE, Mode.READ)
        assert list(keyless.stored_rows()) == sorted(stored_rows(handles).items())
        looks: list[Callable[[], object]] = [
            lambda: keyless.get(Value, [sample(Value).key]),
            lambda: keyless.select(Value, [()]),
            lambda: list(keyless.scan(Value)),
        ]
        for look in looks:
            with pytest.raises(ConfigurationError, match="pickle key"):
                look()
        with refused(handles, ConfigurationError):
            handles.open().open_store(ALICE)

    @case("SEALED-12", checks=("GET-5", "SELECT-5", "SCAN-3"))
    def test_rows_under_a_data_key_that_came_later_are_read(
        self, store: CryptoStore, handles: Handles, witness: Witness
    ) -> None:
        old, new = samples(InboundGroupSession, 2)
        put(store, old, sample(OlmAccount))
        readers = [handles.read(), handles.read(), handles.read()]
        ring = ring_of(handles).with_new_data_key()
        value = Seal(ALICE, ring.data_keys).seal(encode_own_key(new), encode_value(new))
        overwrite(handles.open().database, {**wrap(ALICE, ring, KEY), encode_own_key(new): value})
        assert readers[0].get(InboundGroupSession, [old.key, new.key]) == {old.key: old, new.key: new}
        assert readers[1].select(InboundGroupSession, [()]) == {(): [old, new]}
        assert list(readers[2].scan(InboundGroupSession)) == [old, new]
        assert witness.unreadable == []


def plant(handles: Handles, witness: Witness, record: Record, value: bytes, reason: Reason = Reason.TAMPERED) -> None:
    """Store a value in the place of a record of Alice's: it is unreadable for this reason, and reported so."""
    overwrite(handles.open().database, {encode_own_key(record): value})
    witness.unreadable.clear()
    assert reason in assert_unreadable(handles.read(), record)
    assert witness.unreadable == [(ALICE, record.kind_name, record.key, reason.value)] * 3


def ring_of(handles: Handles, account: Account = ALICE) -> Ring:
    """The key ring as it is stored, which is whole."""
    found = find_ring(account, stored_rows(handles, account), KEY)
    assert found is not None
    assert found.complete
    return found.ring


@contextmanager
def refused(handles: Handles, error: type[CryptoStoreError]) -> Iterator[None]:
    """Fails unless the block raises the error, and leaves accounts and rows as they are."""
    before = handles.open().accounts(), stored_rows(handles)
    with pytest.raises(error):
        yield
    assert (handles.open().accounts(), stored_rows(handles)) == before
