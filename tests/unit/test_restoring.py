"""An account whose backup was put back: nothing that is stored of it encrypts again."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Final

import pytest

from cryptostore import (
    Backend,
    Changes,
    CryptoStoreError,
    FallbackKey,
    InboundGroupSession,
    Mode,
    OlmAccount,
    OlmSession,
    OutboundGroupSession,
    Record,
    RestoredAccount,
    SharedPart,
    SyncToken,
    open_backend,
)
from cryptostore.store import restoring
from cryptostore.store.crypto_store import CryptoStore
from cryptostore.store.keys import encode_own_key
from cryptostore.store.restoring import mark_restored
from example_records import ALICE, example
from sealed_database import KEY, backend, damage_count, rows_of, saved

__all__ = ["backend"]

KEPT: Final[list[Record]] = [example(OlmAccount), example(SyncToken), example(InboundGroupSession)]
OLM: Final = [example(OlmSession, session_id=f"session{number}", receive_only=False) for number in range(8)]
ROOMS: Final = [example(OutboundGroupSession, room_id=f"!room{number}:x") for number in range(5)]
PARTS: Final = [example(SharedPart, room_id=f"!room{number}:x") for number in range(7)]
FILLED: Final[list[Record]] = [*KEPT, *OLM, *ROOMS, *PARTS, example(FallbackKey)]
DROPPED: Final[tuple[type[Record], ...]] = (OutboundGroupSession, SharedPart, FallbackKey)
DISARMED: Final = Counter(outbound_group_session=5, shared_part=7, fallback_key=1, olm_session=8)


@pytest.fixture(autouse=True)
def filled(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "_BATCH", 3)
    saved(backend, *FILLED)


def marked(backend: Backend) -> Counter[str]:
    with backend.open_store(ALICE, pickle_key=KEY) as store:
        return mark_restored(store)


def stored(backend: Backend, kind: type[Record]) -> list[Record]:
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        return list(store.scan(kind))


def mark_of(backend: Backend) -> RestoredAccount:
    [mark] = stored(backend, RestoredAccount)
    assert isinstance(mark, RestoredAccount)
    return mark


def test_nothing_that_is_stored_encrypts_again(backend: Backend) -> None:
    assert marked(backend) == DISARMED
    assert not [each for kind in DROPPED for each in stored(backend, kind)]
    assert stored(backend, OlmSession) == [replace(each, receive_only=True) for each in OLM]
    assert [*stored(backend, OlmAccount), *stored(backend, SyncToken), *stored(backend, InboundGroupSession)] == KEPT
    mark = mark_of(backend)
    assert (mark.is_disarmed, mark.keys_replaced, mark.told_to) == (True, False, ())


def test_again_it_begins_anew(backend: Backend) -> None:
    """Another backup may have been put back since: what was done after the first one counts no more."""
    marked(backend)
    first = mark_of(backend)
    new = example(OlmSession, session_id="new", receive_only=False)
    saved(backend, replace(first, keys_replaced=True, told_to=("a", "b")), new)
    assert marked(backend) == Counter(olm_session=1)
    mark = mark_of(backend)
    assert (mark.is_disarmed, mark.keys_replaced, mark.told_to) == (True, False, ())
    assert mark.restored_at >= first.restored_at
    assert all(each.receive_only for each in stored(backend, OlmSession) if isinstance(each, OlmSession))


def test_counting_changes_nothing(backend: Backend) -> None:
    before = dict(rows_of(backend, ALICE))
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        batches: list[int] = []
        assert mark_restored(store, dry_run=True, advance=batches.append) == DISARMED
    assert sum(batches) == DISARMED.total()
    assert max(batches) == 3
    assert rows_of(backend, ALICE) == before


def test_what_cannot_be_read_is_dropped_or_of_no_use(backend: Backend) -> None:
    saved(backend, example(RestoredAccount))
    for kind in (OutboundGroupSession, FallbackKey, OlmSession, RestoredAccount):
        for row in [each for each in rows_of(backend, ALICE) if each[:1] == bytes([kind.kind_number])]:
            rows_of(backend, ALICE)[row] = b"spoilt"
    assert marked(backend) == DISARMED - Counter(olm_session=8)
    assert mark_of(backend).is_disarmed


def test_a_damaged_key_is_left_and_holds_nothing_up(backend: Backend) -> None:
    damage_count(backend, ALICE, encode_own_key(PARTS[3]))
    assert marked(backend) == DISARMED - Counter(shared_part=1)
    assert mark_of(backend).is_disarmed


class Killed(CryptoStoreError):
    """The process ends here."""


def killed_after(store: CryptoStore, batches: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Mark the account, and be killed after so many batches. Returns whether it was."""
    apply, left = store.apply, iter(range(batches))

    def counted(changes: Changes) -> None:
        if next(left, None) is None:
            raise Killed
        apply(changes)

    with monkeypatch.context() as patch:
        patch.setattr(CryptoStore, "apply", lambda _self, changes: counted(changes))
        try:
            mark_restored(store)
        except Killed:
            return True
    return False


def test_killed_after_any_batch_the_same_call_does_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    for batches in range(100):
        with open_backend("memory://") as backend:
            saved(backend, *FILLED)
            with backend.open_store(ALICE, pickle_key=KEY) as store:
                was_killed = killed_after(store, batches, monkeypatch)
            # From the first batch on, a client sees whether it is done.
            assert not batches or mark_of(backend).is_disarmed is not was_killed
            marked(backend)
            assert mark_of(backend).is_disarmed
            assert (
                not stored(backend, OutboundGroupSession) + stored(backend, SharedPart) + stored(backend, FallbackKey)
            )
            assert stored(backend, OlmSession) == [replace(each, receive_only=True) for each in OLM]
        if not was_killed:
            break
    # The mark twice, and pieces of three.
    assert batches == 2 + 2 + 3 + 1 + 3
