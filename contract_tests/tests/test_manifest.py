"""The suite's table of contents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cryptostore import FULL, INTERFACE_VERSION, BackendPlugin, Capability
from cryptostore.plugins.memory import open_memory
from cryptostore_contract import Ability, Harness, StoreContract, case, cases_of, not_verified
from cryptostore_contract.acceptance import ROWS, acceptance
from cryptostore_contract.evidence import PRESENT, UNSHOWN, capabilities
from cryptostore_contract.manifest import CLAUSE, INTERFACE, clauses, docstrings, functions_of
from cryptostore_contract.memory import MemoryHarness
from cryptostore_contract.verdict import Judged, Outcome


def test_the_clauses_are_found_in_the_interface() -> None:
    assert {"APPLY-1", "GET-6", "STORE-1", "BACKEND-1", "DATABASE-4", "SCHEMA-3"} <= clauses()


def test_no_clause_stands_in_two_places() -> None:
    cited = [clause for owner in INTERFACE for text in docstrings(owner) for clause in CLAUSE.findall(text)]
    assert sorted(cited) == sorted(clauses())


def test_every_cited_clause_exists() -> None:
    cited = {clause: case_id for case_id, one in cases_of(StoreContract).items() for clause in one.checks}
    assert {clause: case_id for clause, case_id in cited.items() if clause not in clauses()} == {}


def test_every_clause_has_a_case() -> None:
    cited = {clause for one in cases_of(StoreContract).values() for clause in one.checks}
    assert clauses() - cited == set()


def test_every_case_cites_a_clause() -> None:
    assert [case_id for case_id, one in cases_of(StoreContract).items() if not one.checks] == []


def test_every_test_of_the_contract_is_a_case() -> None:
    tests = {getattr(StoreContract, name) for name in dir(StoreContract) if name.startswith("test")}
    assert tests == set(functions_of(StoreContract).values())


def test_ids_are_the_groups_name_and_a_number_without_gaps() -> None:
    numbers: dict[str, list[int]] = {}
    for case_id, function in functions_of(StoreContract).items():
        assert re.fullmatch(r"[A-Z]+-[1-9][0-9]*", case_id)
        group, number = case_id.split("-")
        assert function.__module__.rpartition(".")[2].upper() == group
        numbers.setdefault(group, []).append(int(number))
    for group, found in numbers.items():
        assert sorted(found) == list(range(1, len(found) + 1)), group


def test_an_id_stays_with_its_case() -> None:
    # Reports of years ago name cases by their IDs: lines are only added to that file, never changed or removed.
    kept = dict(line.split() for line in (Path(__file__).parent / "case_ids.txt").read_text().splitlines())
    now = {case_id: function.__name__ for case_id, function in functions_of(StoreContract).items()}
    assert {case_id: now.get(case_id) for case_id in kept} == kept
    assert now.keys() == kept.keys(), "add the new case to case_ids.txt"


def test_an_id_that_is_used_twice_is_an_error() -> None:
    class Twice:
        @case("SAME-1", checks=("GET-1",))
        def test_one(self) -> None: ...

        @case("SAME-1", checks=("GET-2",))
        def test_other(self) -> None: ...

    with pytest.raises(ValueError, match="SAME-1"):
        cases_of(Twice)


def test_not_verified_are_the_cases_that_need_more_than_the_harness_offers() -> None:
    class Everything(MemoryHarness):
        abilities = frozenset(Ability)

    assert not_verified(StoreContract, Everything) == frozenset()
    lacking = not_verified(StoreContract, MemoryHarness)
    assert lacking == {case_id for case_id, one in cases_of(StoreContract).items() if not one.needs <= {Ability.REOPEN}}
    assert 0 < len(lacking) < len(cases_of(StoreContract))


@pytest.mark.parametrize("capability", Capability)
def test_every_capability_has_cases_or_a_reason_why_there_is_none(capability: Capability) -> None:
    assert cases_of(StoreContract).keys() >= set(PRESENT[capability])
    assert bool(PRESENT[capability]) is (capability not in UNSHOWN)


def test_what_no_case_can_show_is_not_verified_and_says_why() -> None:
    plugin = BackendPlugin("mine", INTERFACE_VERSION, open_memory, dict.fromkeys(Capability, FULL))
    judged = [Judged(case, Outcome.PASSED) for case in cases_of(StoreContract).values()]
    shown = {row["capability"]: row["shown"] for row in capabilities(plugin, judged)}
    assert shown.pop("survives power loss").startswith("not verified: a test cannot cut the power")
    assert set(shown.values()) == {"present"}


def test_the_rows_of_acceptance_are_the_ten_that_were_asked_for() -> None:
    assert list(ROWS) == [
        *("unit_olm_account", "unit_megolm_session", "unit_device_keys", "unit_sync_token"),
        *("integration_client", "integration_restart", "integration_recovery"),
        *("performance_bulk", "error_handling", "data_consistency"),
    ]
    assert all(ROWS.values())
    assert {case_id for behind in ROWS.values() for case_id in behind} <= cases_of(StoreContract).keys()


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_acceptance_passes_only_where_all_behind_it_passed(row: str) -> None:
    def result(of_the_first: Outcome, of_the_rest: Outcome) -> str:
        of_row = ROWS[row]
        outcomes = dict.fromkeys(of_row, of_the_rest) | {of_row[0]: of_the_first}
        # What is behind other rows alone makes no difference.
        elsewhere = Outcome.PASSED if of_the_first is Outcome.FAILED else Outcome.FAILED
        declared = cases_of(StoreContract)
        return acceptance([Judged(declared[one], outcomes.get(one, elsewhere)) for one in declared])[row]

    assert result(Outcome.PASSED, Outcome.PASSED) == "PASS"
    assert result(Outcome.FAILED, Outcome.PASSED) == result(Outcome.FAILED, Outcome.NOT_VERIFIED) == "FAIL"
    for missing in (Outcome.NOT_VERIFIED, Outcome.INCOMPLETE, Outcome.SOAK):
        assert result(missing, Outcome.PASSED) == result(missing, missing) == "NOT VERIFIED"


@pytest.mark.parametrize("ability", Ability)
def test_every_ability_is_needed_by_a_case(ability: Ability) -> None:
    assert any(ability in one.needs for one in cases_of(StoreContract).values())


def test_a_harness_without_an_ability_says_so() -> None:
    harness: Harness = MemoryHarness()
    for missing in (harness.raw_storage, harness.cut_connections, harness.full_disk, harness.no_free_connections):
        with pytest.raises(NotImplementedError, match="memory"):
            missing()
