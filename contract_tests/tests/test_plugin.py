"""The pytest plugin, in runs of its own."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

_CONTRACT = """
import pytest
from cryptostore_contract import Ability, StoreContract, case, managed
from cryptostore_contract.cases.base import CaseGroup
from cryptostore_contract.memory import MemoryHarness

class Cases(CaseGroup):
    @case("CASES-1", checks=("GET-1",))
    def test_passes(self, harness):
        pass

    @case("CASES-2", checks=("GET-1",))
    @pytest.mark.parametrize("number", [1, 2])
    def test_fails_in_part(self, harness, number):
        assert number == 1

    @case("CASES-3", checks=("GET-1",), needs=(Ability.RAW_STORAGE, Ability.REOPEN))
    def test_needs_what_is_missing(self, harness):
        raise RuntimeError("must not run")

    @case("CASES-4", checks=("GET-1",))
    @pytest.mark.soak
    def test_takes_hours(self, harness):
        pass

class TestMemory(Cases):
    @pytest.fixture
    def harness(self):
        yield from managed(MemoryHarness())
"""

_SUMMARY = [
    "*cryptostore contract*",
    "memory: 1 cases passed, 1 failed, 1 not verified",
    "  not verified: CASES-3 (needs raw storage)",
    "not run: 1 soak cases; run them with -m soak",
]

_STRICT = ("--strict-markers", "-W", "error", "-p", "no:cacheprovider")


def test_what_a_harness_lacks_is_listed_and_not_passed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(_CONTRACT)
    result = pytester.runpytest(*_STRICT, "-rs")
    result.assert_outcomes(passed=2, failed=1, skipped=1, deselected=1)
    result.stdout.fnmatch_lines(_SUMMARY)
    result.stdout.fnmatch_lines("SKIPPED*not verified: CASES-3 needs raw storage, which the harness 'memory' lacks")


def test_the_same_in_several_processes(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(_CONTRACT)
    result = pytester.runpytest_subprocess(*_STRICT, "-n2")
    result.assert_outcomes(passed=2, failed=1, skipped=1)
    result.stdout.fnmatch_lines(_SUMMARY)


def test_soak_cases_run_when_they_are_asked_for(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(_CONTRACT)
    result = pytester.runpytest(*_STRICT, "-m", "soak")
    result.assert_outcomes(passed=1, deselected=4)
    result.stdout.fnmatch_lines("memory: 1 cases passed, 0 failed, 0 not verified")
    result.stdout.no_fnmatch_line("*run them with*")


def test_other_peoples_soak_tests_are_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\n\n@pytest.mark.soak\ndef test_mine():\n    pass\n")
    result = pytester.runpytest(*_STRICT)
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*cryptostore contract*")


def test_a_contract_without_a_harness_says_what_is_missing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "from cryptostore_contract.cases.schema import SchemaCases\n\nclass TestMine(SchemaCases):\n    pass\n"
    )
    result = pytester.runpytest(*_STRICT, "-k", "opening_again")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines("*TestMine needs a fixture named `harness`*")


def test_a_failing_case_shows_what_was_compared(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from cryptostore_contract import managed
        from cryptostore_contract.cases.schema import SchemaCases
        from cryptostore_contract.memory import MemoryHarness
        from cryptostore_contract.mutants import acknowledged_and_not_stored

        class TestMine(SchemaCases):
            @pytest.fixture
            def harness(self, monkeypatch):
                acknowledged_and_not_stored(monkeypatch)
                yield from managed(MemoryHarness())
        """
    )
    result = pytester.runpytest_subprocess(*_STRICT, "-k", "opening_again")
    result.assert_outcomes(failed=1, deselected=4)
    # Only a rewritten assertion can say this.
    result.stdout.fnmatch_lines("E*assert {} == {<class*")


def test_the_plugin_does_not_load_the_suite(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_it():
            assert "cryptostore_contract.plugin" in sys.modules
            assert "cryptostore" not in sys.modules
            assert "cryptostore_contract.suite" not in sys.modules
        """
    )
    pytester.runpytest_subprocess(*_STRICT).assert_outcomes(passed=1)
