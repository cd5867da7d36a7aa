"""The tables: made once, and never touched where a newer program has been."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

import pytest

from cryptostore import SchemaTooNew, SyncToken, Value
from cryptostore_contract.cases.base import CaseGroup
from cryptostore_contract.children import Starts, child, starts
from cryptostore_contract.golden import GOLDEN, check
from cryptostore_contract.handles import Handles, by_kind, own, put
from cryptostore_contract.harness import Ability, Harness
from cryptostore_contract.manifest import case
from cryptostore_contract.samples import ALICE, one_of_each, sample
from cryptostore_contract.steps import require_steps
from cryptostore_contract.waiting import together

#: How many threads or processes find the database empty or old at once.
STARTERS: Final = 4

#: Under a key that no golden record has.
_ADDED: Final = Value("golden", "added", b"by a later program")


class SchemaCases(CaseGroup):
    """Migrations and versions."""

    @case("SCHEMA-1", checks=("SCHEMA-1", "SCHEMA-3"))
    def test_opening_again_migrates_nothing(self, handles: Handles) -> None:
        with handles.open() as backend:
            schema = backend.schema()
            put(own(backend, ALICE), *one_of_each())
        for _ in range(3):
            assert handles.open().schema() == schema
        assert handles.everything() == by_kind(one_of_each())

    @case("SCHEMA-2", checks=("SCHEMA-2",), needs=(Ability.NEWER_SCHEMA, Ability.REOPEN))
    def test_a_newer_schema_is_refused(self, handles: Handles, harness: Harness) -> None:
        with handles.open() as backend:
            known = backend.schema().version
            put(own(backend, ALICE), *one_of_each())
        harness.claim_newer_schema()
        for _ in range(2):
            with pytest.raises(SchemaTooNew, match=str(known)):
                handles.open()

    @case("SCHEMA-3", checks=("SCHEMA-2",), needs=(Ability.NEWER_SCHEMA, Ability.RAW_STORAGE, Ability.REOPEN))
    def test_a_newer_schema_is_refused_before_anything_is_touched(self, handles: Handles, harness: Harness) -> None:
        with handles.open() as backend:
            put(own(backend, ALICE), *one_of_each())
        harness.claim_newer_schema()
        before = harness.raw_storage()
        with pytest.raises(SchemaTooNew):
            handles.open()
        assert harness.raw_storage() == before

    @case("SCHEMA-4", checks=("SCHEMA-3", "OPEN-1"))
    def test_first_starts_of_several_threads_migrate_once(self, handles: Handles) -> None:
        schemas = together([lambda: handles.open().schema()] * STARTERS)
        assert len(set(schemas)) == 1
        put(handles.own(), sample(SyncToken))
        assert handles.everything() == by_kind([sample(SyncToken)])

    @case("SCHEMA-5", checks=("SCHEMA-3", "OPEN-1"), needs=(Ability.PROCESSES_AT_ONCE,))
    def test_first_starts_of_several_processes_migrate_once(self, handles: Handles, harness: Harness) -> None:
        _start_together(handles, harness)
        ownership = handles.own().ownership
        assert (ownership.epoch, ownership.sequence) == (STARTERS + 1, 0)
        assert handles.everything() == {}

    @case("SCHEMA-6", checks=("SCHEMA-4", "ACCOUNTS-1", "ACCOUNTS-2"), needs=(Ability.OLDER_SCHEMA, Ability.REOPEN))
    def test_what_a_program_of_any_older_schema_left_is_read_whole(self, handles: Handles, harness: Harness) -> None:
        for _ in _golden_databases(handles, harness):
            check(handles.open())

    @case("SCHEMA-7", checks=("SCHEMA-4", "OPEN-1", "COMMIT-1"), needs=(Ability.OLDER_SCHEMA, Ability.REOPEN))
    def test_what_a_program_of_any_older_schema_left_is_gone_on_with(self, handles: Handles, harness: Harness) -> None:
        for _ in _golden_databases(handles, harness):
            for account in GOLDEN:
                with handles.open() as backend, own(backend, account) as store:
                    assert (store.ownership.epoch, store.ownership.sequence) == (3, 3)
                    put(store, _ADDED)
            check(handles.open(), _ADDED)

    @case("SCHEMA-8", checks=("SCHEMA-3", "SCHEMA-4"), needs=(Ability.OLDER_SCHEMA, Ability.PROCESSES_AT_ONCE))
    def test_starts_of_several_processes_on_an_older_schema_migrate_once(
        self, handles: Handles, harness: Harness
    ) -> None:
        for _ in _golden_databases(handles, harness):
            _start_together(handles, harness)
            check(handles.open())

    @case("SCHEMA-9", checks=("SCHEMA-3", "OPEN-5"), needs=(Ability.OTHER_PROCESS,))
    def test_a_start_goes_on_from_where_the_one_before_it_was_killed(self, handles: Handles, harness: Harness) -> None:
        _kill_starts(harness, own=False)
        put(handles.own(), sample(SyncToken))
        assert handles.everything() == by_kind([sample(SyncToken)])

    @case("SCHEMA-10", checks=("SCHEMA-3", "OPEN-1", "OPEN-5"), needs=(Ability.OTHER_PROCESS,))
    @pytest.mark.soak
    def test_a_start_that_owns_an_account_goes_on_from_where_the_one_before_it_was_killed(
        self, handles: Handles, harness: Harness
    ) -> None:
        _kill_starts(harness, own=True)
        put(handles.own(), sample(SyncToken))
        assert handles.everything() == by_kind([sample(SyncToken)])


def _kill_starts(harness: Harness, *, own: bool) -> None:
    """Kill the first start behind its first step, the second behind its second, until one gets to its end."""
    with starts(harness.url, ALICE, own=own) as killed:
        missed = next(step for step in itertools.count(1) if not _starts_and_dies(killed, step))
    require_steps(missed - 1)


def _starts_and_dies(killed: Starts, step: int) -> bool:
    try:
        return killed.kill_behind(step)
    except AssertionError as error:
        pytest.fail(f"a start behind one that was killed behind its step {step - 1} {error}")


def _start_together(handles: Handles, harness: Harness) -> None:
    """Have several processes open the database at once; all of them must find the same schema."""
    with ExitStack() as stack:
        starters = [stack.enter_context(child(harness.url, ALICE, "first-start")) for _ in range(STARTERS)]
        for starter in starters:
            assert starter.line() == "ready"
        for starter in starters:
            starter.go()
        # Before this process opens the database: it would migrate, and might be the first.
        found = [starter.finish()[-1] for starter in starters]
    assert found == [f"schema {handles.open().schema().version}"] * STARTERS


def _golden_databases(handles: Handles, harness: Harness) -> Iterator[int]:
    """Put the golden database of each version that the backend knows in place, one after the other."""
    with handles.open() as backend:
        known = backend.schema().version
    for version in range(1, known + 1):
        harness.place_golden(version)
        yield version
        with harness.open() as backend:
            assert backend.schema().version == known
        handles.close()
