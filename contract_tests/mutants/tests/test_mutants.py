"""The suite against broken stores: each bug is found, by an assertion of the case that is named for it."""

from __future__ import annotations

import pytest

from contract_mutants import Mutant, load
from contract_mutants.idle import KILL_BY_CHANCE, KILL_NONE
from contract_mutants.table import every_mutant, lines
from contract_mutants.trials import check_all, check_named
from cryptostore_contract import StoreContract, cases_of
from cryptostore_contract.memory import MemoryHarness

pytest_plugins = ["pytester"]

each_mutant = pytest.mark.parametrize("mutant", load("memory"), ids=lambda mutant: mutant.name)


@each_mutant
def test_a_mutant_of_memory_is_killed_by_each_of_its_cases_and_the_sound_store_by_none(
    pytester: pytest.Pytester, mutant: Mutant
) -> None:
    check_named(pytester, mutant, MemoryHarness)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@each_mutant
def test_no_case_that_is_said_to_kill_none_kills_a_mutant_of_memory(pytester: pytest.Pytester, mutant: Mutant) -> None:
    check_all(pytester, mutant, MemoryHarness)


def test_every_case_is_named_by_a_mutant_or_has_a_reason_to_stay() -> None:
    named = {case_id for mutant in every_mutant() for case_id in mutant.killed_by}
    reasons = {**KILL_NONE, **KILL_BY_CHANCE}
    assert cases_of(StoreContract).keys() - named == reasons.keys()
    assert all(reasons.values())


def test_mutants_have_names_of_their_own_a_case_that_exists_and_a_bug() -> None:
    mutants = every_mutant()
    assert len(list(lines(mutants))) == len(mutants) + len(KILL_NONE) + len(KILL_BY_CHANCE) + 1
    assert len({(mutant.backend, mutant.name) for mutant in mutants}) == len(mutants)
    assert all(mutant.killed_by and mutant.bug for mutant in mutants)
    assert {case_id for mutant in mutants for case_id in mutant.killed_by} <= cases_of(StoreContract).keys()
