"""The cases of killed processes against stores that break only there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

import pytest

from contract_mutants import Mutant, load
from contract_mutants.crashes import SCHEME, account_row_after_the_records
from contract_mutants.registry import HOME
from contract_mutants.trials import check_all, check_named
from cryptostore_contract import Ability, Harness, StoreContract, cases_of
from cryptostore_contract.cases.crashes import Crashes
from cryptostore_contract.handles import Handles

pytest_plugins = ["pytester"]

each_mutant = pytest.mark.parametrize("mutant", load(SCHEME), ids=lambda mutant: mutant.name)


class FilesHarness(Harness):
    """A new folder."""

    name: ClassVar[str] = SCHEME
    abilities = frozenset({Ability.OTHER_PROCESS})

    def __init__(self, folder: Path) -> None:
        self._folder = folder / str(uuid4())

    @property
    def url(self) -> str:
        return f"{SCHEME}:///{self._folder}"

    def close(self) -> None:
        pass  # pytest removes its folders


@pytest.fixture
def new_harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Harness]:
    """Makes empty folders for a backend that this process and those that it starts find."""
    information = tmp_path / "site" / "broken-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    entry_point = f"[cryptostore.backends]\n{SCHEME} = contract_mutants.crashes\n"
    (information / "entry_points.txt").write_text(entry_point)
    monkeypatch.syspath_prepend(information.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(information.parent), HOME]))
    return lambda: FilesHarness(tmp_path)


@each_mutant
def test_a_mutant_is_killed_by_each_of_its_cases_and_the_sound_files_by_none(
    pytester: pytest.Pytester, mutant: Mutant, new_harness: Callable[[], Harness]
) -> None:
    check_named(pytester, mutant, new_harness)


def test_a_batch_found_by_half_is_followed_to_the_line_that_was_reached(
    monkeypatch: pytest.MonkeyPatch, new_harness: Callable[[], Harness]
) -> None:
    [mutant] = [one for one in load(SCHEME) if one.name == account_row_after_the_records.__name__]
    mutant.apply(monkeypatch)
    harness = new_harness()
    said = rf"^die-at-event \d+\n *at the (call|return|error) of .*\n *at .*(\n *called from .*)* in {mutant.name}\n"
    with pytest.raises(AssertionError, match=said):
        Crashes(Handles(harness), harness).find_the_moment()


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@each_mutant
def test_no_case_of_a_killed_process_that_is_said_to_kill_none_kills_a_mutant(
    pytester: pytest.Pytester, mutant: Mutant, new_harness: Callable[[], Harness]
) -> None:
    check_all(pytester, mutant, new_harness, [name for name in cases_of(StoreContract) if name.startswith("CRASHES")])
