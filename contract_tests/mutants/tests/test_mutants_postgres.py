"""The mutants of the PostgreSQL backend, on a real server."""

from __future__ import annotations

import pytest

# What is first imported in a run of pytester's is imported again in the next, and cryptography's Rust code then meets
# classes that it does not know.
import trustme as trustme

from contract_mutants import Mutant, load
from contract_mutants.trials import check_all, check_named
from postgres_database import PostgresDatabase
from postgres_fixtures import postgres_database
from postgres_harness import harness_for

__all__ = ["postgres_database"]

pytest_plugins = ["pytester"]

each_mutant = pytest.mark.parametrize("mutant", load("postgres"), ids=lambda mutant: mutant.name)


@each_mutant
def test_a_mutant_is_killed_by_each_of_its_cases_and_the_sound_store_by_none(
    pytester: pytest.Pytester, mutant: Mutant, postgres_database: PostgresDatabase
) -> None:
    check_named(pytester, mutant, lambda: harness_for(postgres_database))


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@each_mutant
def test_no_case_that_is_said_to_kill_none_kills_a_mutant(
    pytester: pytest.Pytester, mutant: Mutant, postgres_database: PostgresDatabase
) -> None:
    check_all(pytester, mutant, lambda: harness_for(postgres_database))
