"""The mutants of the SQLite backend, and of its child processes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from contract_mutants import Mutant, load
from contract_mutants.trials import check_all, check_named
from cryptostore_contract import Harness

pytest_plugins = ["pytester"]

each_mutant = pytest.mark.parametrize("mutant", load("sqlite"), ids=lambda mutant: mutant.name)

_ROOT: Final = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def new_harness() -> Callable[[], Harness]:
    """The harness of the SQLite backend's own tests, which makes empty databases."""
    path = _ROOT / "backends" / "sqlite" / "tests" / "test_sqlite_contract.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    harness: Callable[[], Harness] = module.SQLiteHarness
    return harness


@each_mutant
def test_a_mutant_of_sqlite_is_killed_by_each_of_its_cases_and_the_sound_store_by_none(
    pytester: pytest.Pytester, mutant: Mutant, new_harness: Callable[[], Harness]
) -> None:
    check_named(pytester, mutant, new_harness)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@each_mutant
def test_no_case_that_is_said_to_kill_none_kills_a_mutant_of_sqlite(
    pytester: pytest.Pytester, mutant: Mutant, new_harness: Callable[[], Harness]
) -> None:
    check_all(pytester, mutant, new_harness)


def test_a_child_process_that_dies_is_no_kill(pytester: pytest.Pytester, new_harness: Callable[[], Harness]) -> None:
    def trip(patch: pytest.MonkeyPatch) -> None:
        original = subprocess.Popen
        patch.setattr(subprocess, "Popen", lambda _command, **named: original([sys.executable, "-c", ""], **named))

    with pytest.raises(AssertionError, match="the child ended"):
        check_named(pytester, Mutant("trips", "sqlite", ("SCHEMA-5",), trip), new_harness)
