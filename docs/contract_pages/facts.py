"""Generated parts of the pages about the contract: clauses, and the cases that check them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import getdoc

from contract_mutants import MUTANTS, load
from cryptostore_contract import Ability, StoreContract
from cryptostore_contract.manifest import CLAUSE, INTERFACE, Case, cases_of, functions_of


@dataclass(frozen=True)
class Clause:
    """One sentence that the interface promises: its ID, its text, and where it stands, such as `CryptoStore.get`."""

    id: str
    text: str
    owner: str
    #: The module of the owner's class.
    module: str


def clauses() -> dict[str, Clause]:
    """Every clause of the interface by ID, in the order in which the interface states them."""
    found = [clause for owner, module, docstring in _docstrings() for clause in _clauses_in(docstring, owner, module)]
    return {clause.id: clause for clause in found}


def cases() -> dict[str, Case]:
    """Every case of the contract by ID, in the order of the groups' numbers."""
    return dict(sorted(cases_of(StoreContract).items(), key=lambda item: _number(item[0])))


def groups() -> dict[str, list[str]]:
    """The IDs of each group's cases, by the group's name in lower case, in the order in which the suite runs them."""
    found: dict[str, list[str]] = {group.__module__.rpartition(".")[2]: [] for group in StoreContract.__bases__}
    for case_id in cases():
        found[group_of(case_id)].append(case_id)
    return {name: ids for name, ids in found.items() if ids}


def group_of(case_id: str) -> str:
    """The group that a case belongs to."""
    return case_id.rpartition("-")[0].lower()


def function_of(case_id: str) -> str:
    """The name of the case's test function."""
    return functions_of(StoreContract)[case_id].__name__


def checked_by(clause_id: str) -> list[str]:
    """The IDs of the cases that check a clause."""
    return [case.id for case in cases().values() if clause_id in case.checks]


def bugs_found_by(case_id: str) -> list[str]:
    """What is wrong with the broken stores that a case is shown to find, a sentence each."""
    for backend in ("broken", "sqlite", "postgres"):
        load(backend)
    return [mutant.bug for mutant in MUTANTS if case_id in mutant.killed_by]


def needing(ability: Ability) -> list[str]:
    """The IDs of the cases that need an ability."""
    return [case.id for case in cases().values() if ability in case.needs]


def _docstrings() -> Iterator[tuple[str, str, str]]:
    for owner in INTERFACE:
        yield owner.__name__, owner.__module__, getdoc(owner) or ""
        for name, member in vars(owner).items():
            if not name.startswith("_") and callable(member):
                yield f"{owner.__name__}.{name}", owner.__module__, member.__doc__ or ""


def _clauses_in(docstring: str, owner: str, module: str) -> Iterator[Clause]:
    """The clauses of one docstring. The text of each reaches back to the clause or the paragraph before it."""
    raises = False
    texts = CLAUSE.split(docstring)
    for text, clause_id in zip(texts[::2], texts[1::2], strict=False):
        sentence = " ".join(text.rpartition("\n\n")[2].split())
        # An enumeration says "Raises" once.
        if raises and re.match(r"[A-Z][a-z]+[A-Z]", sentence):
            sentence = f"Raises {sentence}"
        raises = sentence.startswith("Raises") and sentence.endswith(",")
        yield Clause(clause_id, sentence.rstrip(",").removesuffix(".") + ".", owner, module)


def _number(case_id: str) -> tuple[str, int]:
    group, _, number = case_id.rpartition("-")
    return group, int(number)
