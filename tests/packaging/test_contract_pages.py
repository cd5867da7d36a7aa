"""The pages about the contract say something about every case, and only about cases that there are."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from contract_mutants import MUTANTS
from cryptostore_contract import Ability
from cryptostore_contract.manifest import clauses

DOCS = Path(__file__).parents[2] / "docs"
PAGES = DOCS / "contract"


@pytest.fixture
def facts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the Sphinx extension knows of the suite."""
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("contract_pages.facts")


def described(what: str, page: Path) -> dict[str, str]:
    """The descriptions on a page, by name; fails for a name that is described twice."""
    found = re.findall(rf"^```{{{what}}} (\S+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    assert len(dict(found)) == len(found), f"{page.name} describes something twice"
    return dict(found)


def test_each_group_has_a_page_with_its_cases_in_order(facts: Any) -> None:
    on_pages = {page.stem: list(described("case", page)) for page in PAGES.glob("*.md")}
    assert {name: cases for name, cases in on_pages.items() if cases} == facts.groups()


def test_each_case_says_what_it_does_and_where_to_look() -> None:
    for page in PAGES.glob("*.md"):
        for case_id, text in described("case", page).items():
            what, _, advice = text.partition("\n\nIf this fails")
            assert what.strip(), case_id
            assert len(advice.split()) > 2, case_id


def test_each_ability_is_described() -> None:
    assert set(described("ability", PAGES / "harness.md")) == {ability.name for ability in Ability}


def test_the_contents_list_every_page() -> None:
    contents = (PAGES / "index.md").read_text().partition("```{toctree}")[2].partition("```")[0].split()[2:]
    assert sorted(contents) == sorted(page.stem for page in PAGES.glob("*.md") if page.stem != "index")


def test_the_table_of_clauses_is_that_of_the_interface(facts: Any) -> None:
    found = facts.clauses()
    assert set(found) == clauses()
    assert all(facts.checked_by(clause_id) for clause_id in found)
    assert all(clause.text.endswith(".") and "[" not in clause.text for clause in found.values())
    # The first of a docstring, one in the middle, and one in an enumeration of errors.
    assert found["STORE-1"].text.startswith("Concurrency: every method may be called from any thread")
    assert found["GET-2"].text == "Keys compare byte by byte: no case folding, trimming or normalisation."
    assert found["APPLY-10"].text == "Raises AccountNotFound when the account was deleted."
    assert found["APPLY-10"].owner == "CryptoStore.apply"


def test_each_mutant_is_named_where_it_is_found(facts: Any) -> None:
    named = {bug for case_id in facts.cases() for bug in facts.bugs_found_by(case_id)}
    # Those of all backends are loaded by now.
    assert named == {mutant.bug for mutant in MUTANTS}
    assert {mutant.backend for mutant in MUTANTS} == {"memory", "broken", "sqlite", "postgres"}
    assert all(bug.endswith(".") and "\n" not in bug for bug in named)
