"""The suite against broken stores: each bug is found, by an assertion of the case that is named for it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from cryptostore_contract import Harness, StoreContract, cases_of
from cryptostore_contract.memory import MemoryHarness
from cryptostore_contract.mutants import Mutant, load
from cryptostore_contract.mutants.idle import KILL_BY_CHANCE, KILL_NONE
from cryptostore_contract.mutation_table import every_mutant, lines
from mutant_trials import check_all, check_named

pytest_plugins = ["pytester"]

each_mutant = pytest.mark.parametrize(
    "mutant", [*load("memory"), *load("sqlite")], ids=lambda mutant: f"{mutant.backend}-{mutant.name}"
)

_ROOT: Final = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sqlite_harness() -> Callable[[], Harness]:
    """The harness of the SQLite backend's own tests."""
    path = _ROOT / "backends" / "sqlite" / "tests" / "test_sqlite_contract.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    harness: Callable[[], Harness] = module.SQLiteHarness
    return harness


@pytest.fixture
def new_harness(mutant: Mutant, sqlite_harness: Callable[[], Harness]) -> Callable[[], Harness]:
    """Makes empty databases of the mutant's backend."""
    return MemoryHarness if mutant.backend == "memory" else sqlite_harness


@each_mutant
def test_a_mutant_is_killed_by_each_of_its_cases_and_the_sound_store_by_none(
    pytester: pytest.Pytester, mutant: Mutant, new_harness: Callable[[], Harness]
) -> None:
    check_named(pytester, mutant, new_harness)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@each_mutant
def test_no_case_that_is_said_to_kill_none_kills_a_mutant(
    pytester: pytest.Pytester, mutant: Mutant, new_harness: Callable[[], Harness]
) -> None:
    check_all(pytester, mutant, new_harness)


def test_a_child_process_that_dies_is_no_kill(pytester: pytest.Pytester, sqlite_harness: Callable[[], Harness]) -> None:
    def trip(patch: pytest.MonkeyPatch) -> None:
        original = subprocess.Popen
        patch.setattr(subprocess, "Popen", lambda _command, **named: original([sys.executable, "-c", ""], **named))

    with pytest.raises(AssertionError, match="the child ended"):
        check_named(pytester, Mutant("trips", "sqlite", ("SCHEMA-5",), trip), sqlite_harness)


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
