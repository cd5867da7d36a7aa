"""The pytest plugin, in runs of its own."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

pytest_plugins = ["pytester"]

_CONTRACT = """
import pytest
from cryptostore_contract import managed
from cryptostore_contract.cases.isolation import IsolationCases
from cryptostore_contract.cases.numbering import NumberingCases
from cryptostore_contract.cases.restart import RestartCases
from cryptostore.store.memory import MemoryHandle
from cryptostore_contract.memory import MemoryHarness

class TestMemory(NumberingCases, IsolationCases, RestartCases):
    @pytest.fixture
    def harness(self, monkeypatch):
        monkeypatch.setattr(MemoryHandle, "delete", lambda *_: None)
        yield from managed(MemoryHarness())
"""

#: Cases that pass, one that fails, one that needs what is missing, and one that takes hours.
_ONLY = ("-k", "late_change_nothing or deleting_an_account or left_in_storage or two_hundred")

_SUMMARY = [
    "*cryptostore contract*",
    "*::TestMemory: FAIL (1 passed, 1 failed, * not verified, * soak, * incomplete)",
    "  memory of matrix-cryptostore *, harness memory; server: not asked",
    "  numbering     1 passed, * incomplete",
    "  capability several processes: unsupported (each process has a database of its own): *",
    "  data_consistency: NOT VERIFIED",
    "  failed: ISOLATION-3 (DELETE-1, DELETE-2, DELETE-3; see contract/isolation in the documentation)",
    "  incomplete: * cases did not run in this run, which the command line narrowed",
    "  not verified: ISOLATION-4 (needs raw storage)",
    "  not run: * soak cases; run them with -m soak",
    "suite *(* cases)  core *  interface 2.0  python *",
]

_STRICT = ("--strict-markers", "-W", "error", "-p", "no:cacheprovider")


def test_what_a_harness_lacks_is_listed_and_not_passed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(_CONTRACT)
    result = pytester.runpytest(*_STRICT, *_ONLY, "-rs")
    result.assert_outcomes(passed=1, failed=1, skipped=2, deselected=_deselected(result))
    result.stdout.fnmatch_lines(_SUMMARY)
    result.stdout.fnmatch_lines("SKIPPED*not verified: ISOLATION-4 needs raw storage, which the harness 'memory' lacks")


_CHOSEN = ("test_bytes_that_arrive_late_change_nothing", "test_an_empty_database_has_no_accounts")
_CHOSEN_BY_WORDS = " or ".join(_CHOSEN)
_SKIP = f"""
import pytest

def pytest_runtest_setup(item):
    if item.name == "{_CHOSEN[1]}": pytest.skip("no time")
"""


@pytest.mark.parametrize(
    "arguments",
    [("-k", _CHOSEN_BY_WORDS), [f"test_it.py::TestMemory::{name}" for name in _CHOSEN]],
    ids=["by words", "by name"],
)
def test_what_was_left_out_by_hand_is_counted_rather_than_listed(
    pytester: pytest.Pytester, arguments: Sequence[str]
) -> None:
    pytester.makepyfile(test_it=_CONTRACT)
    pytester.makeconftest(_SKIP)
    skipped, left_out = _incomplete(pytester.runpytest(*_STRICT, *arguments))
    assert skipped == "incomplete: ISOLATION-9 (skipped: no time)"
    assert left_out.endswith(" cases did not run in this run, which the command line narrowed")


def test_what_was_left_out_in_another_way_is_listed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=_CONTRACT)
    pytester.makeini(f'[pytest]\naddopts = -k "{_CHOSEN_BY_WORDS}"')
    assert _incomplete(pytester.runpytest(*_STRICT))[0] == "incomplete: RECORDS-1 (did not run)"


def _incomplete(result: pytest.RunResult) -> list[str]:
    return [line.strip() for line in result.outlines if line.startswith("  incomplete: ")]


def test_the_same_in_several_processes(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(_CONTRACT)
    result = pytester.runpytest_subprocess(*_STRICT, *_ONLY, "-n2")
    result.assert_outcomes(passed=1, failed=1, skipped=2)
    result.stdout.fnmatch_lines(_SUMMARY)


def _deselected(result: pytest.RunResult) -> int:
    return result.parseoutcomes()["deselected"]


def test_soak_cases_run_when_they_are_asked_for(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(_CONTRACT)
    result = pytester.runpytest(*_STRICT, "-m", "soak")
    result.assert_outcomes(skipped=1, deselected=_deselected(result))
    result.stdout.fnmatch_lines("*::TestMemory: INCOMPLETE (*")


def test_the_report_is_written_as_a_page(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(_CONTRACT)
    pytester.runpytest(*_STRICT, *_ONLY, "--cryptostore-report=report.md")
    lines = (pytester.path / "report.md").read_text().splitlines()
    assert lines[0] == "# Contract report: FAIL"
    assert (
        "| ISOLATION-3 | failed | DELETE-1, DELETE-2, DELETE-3; see contract/isolation in the documentation |" in lines
    )
    assert "| ISOLATION-4 | not verified | needs raw storage |" in lines
    assert "| performance_bulk | NOT VERIFIED | PERFORMANCE-1 |" in lines


def test_a_report_of_another_form_is_refused_before_the_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(_CONTRACT)
    result = pytester.runpytest(*_STRICT, "--cryptostore-report=report.pdf")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines("*report.pdf: the name must end in .json or .md")


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
        from cryptostore.store.memory import MemoryHandle
        from cryptostore_contract.memory import MemoryHarness

        def acknowledge(handle, account_id, batch, timeout):
            [row] = handle.accounts(timeout)
            return batch.row_after(row)

        class TestMine(SchemaCases):
            @pytest.fixture
            def harness(self, monkeypatch):
                monkeypatch.setattr(MemoryHandle, "commit", acknowledge)
                yield from managed(MemoryHarness())
        """
    )
    result = pytester.runpytest_subprocess(*_STRICT, "-k", "opening_again")
    result.assert_outcomes(failed=1, deselected=_deselected(result))
    # Only a rewritten assertion can say this.
    result.stdout.fnmatch_lines("E*the olm_account is missing")


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


@pytest.mark.parametrize(("word", "passed"), [("ISOLATION-9", 1), ("RESTART-1.", 1)])
def test_cases_are_chosen_by_their_group_and_id(pytester: pytest.Pytester, word: str, passed: int) -> None:
    pytester.makepyfile(_SOUND_CONTRACT)
    outcomes = pytester.runpytest(*_STRICT, "-k", word).parseoutcomes()
    assert outcomes["passed"] == passed


_SOUND_CONTRACT = _CONTRACT.replace('        monkeypatch.setattr(MemoryHandle, "delete", lambda *_: None)\n', "")

_UNMADE = _CONTRACT.replace("        yield from", '        raise OSError("no server")\n        yield from')
_UNMADE_BELOW = """
@pytest.fixture(scope="session")
def server():
    raise OSError("no server")
"""


@pytest.mark.parametrize("below", [False, True])
def test_a_harness_that_could_not_be_made_is_told_once_and_first(pytester: pytest.Pytester, below: bool) -> None:
    made = _CONTRACT.replace("def harness(self, monkeypatch)", "def harness(self, server, monkeypatch)")
    pytester.makepyfile(made + _UNMADE_BELOW if below else _UNMADE)
    result = pytester.runpytest(*_STRICT, "-k", "NUMBERING-1. or NUMBERING-2")
    result.assert_outcomes(errors=2, deselected=_deselected(result))
    reason = f"the harness could not be made for 2 tests: {'server' if below else 'harness'}: OSError: no server"
    said = ["the harness could not be made, as before: *", "*::TestMemory: FAIL (2 failed*", f"  {reason}"]
    result.stdout.fnmatch_lines(said)
    assert result.stdout.str().count("E       OSError: no server") == 1


def test_records_that_differ_are_told_apart(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from cryptostore import SyncToken
        from cryptostore_contract import StoreContract

        def test_it():
            assert {SyncToken: [SyncToken("one")]} == {SyncToken: [SyncToken("other")]}
        """
    )
    result = pytester.runpytest(*_STRICT)
    result.stdout.fnmatch_lines(["E * assert records differ", "E * the sync_token differs in token"])
