"""The plugin template stands on what is documented, and says of itself what is published of it."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

import cryptostore
import cryptostore_contract
from cryptostore_contract import Ability, StoreContract, not_verified
from cryptostore_contract.memory import MemoryHarness
from unverified import published

DOCS: Final = Path(__file__).parents[2] / "docs"
TEMPLATE: Final = DOCS / "plugin-template"

_DIRECTIVE: Final = re.compile(r"^\.\. auto(function|module):: (\S+)(?:\n   :members: ?(.*))?$", re.MULTILINE)


def documented_helpers() -> set[str]:
    """The full names of all that the reference has under "Helpers for backends"."""
    section = (DOCS / "reference.md").read_text().partition("## Helpers for backends")[2].partition("\n## ")[0]
    found: set[str] = set()
    for what, name, members in _DIRECTIVE.findall(section):
        if what == "function":
            found.add(name)
        else:
            found |= {f"{name}.{member}" for member in members.split(", ") if member} or public_names(name)
    return found


def public_names(module: str) -> set[str]:
    """The full names of what a module defines for others."""
    found = vars(importlib.import_module(module)).items()
    return {f"{module}.{name}" for name, one in found if getattr(one, "__module__", "") == module and name[0] != "_"}


def imported() -> Iterator[str]:
    """The full names of all that the template imports from our distributions."""
    for path in sorted(TEMPLATE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names if is_ours(alias.name))
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and is_ours(node.module or ""):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_ours(module: str) -> bool:
    return module.partition(".")[0] in ("cryptostore", "cryptostore_contract")


def test_it_imports_only_what_the_reference_has() -> None:
    exported = {f"cryptostore.{name}" for name in cryptostore.__all__}
    exported |= {f"cryptostore_contract.{name}" for name in cryptostore_contract.__all__}
    found = set(imported())
    assert len(found) > 30
    assert found - exported - documented_helpers() == set()


def test_what_it_leaves_unverified_is_what_is_published() -> None:
    """By the abilities that its harness lists: RocksDB itself need not be installed for this."""
    tree = ast.parse((TEMPLATE / "tests" / "test_rocksdb_contract.py").read_text())
    harness = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "RocksDBHarness")
    attributes = [node for node in ast.walk(harness) if isinstance(node, ast.Attribute)]
    named = [one.attr for one in attributes if isinstance(one.value, ast.Name) and one.value.id == "Ability"]

    class SameAbilities(MemoryHarness):
        abilities = frozenset(Ability[name] for name in named)

    assert not_verified(StoreContract, SameAbilities) == published("RocksDB")


def workflow() -> dict[str, Any]:
    """The job of the template's workflow."""
    text = (TEMPLATE / ".github" / "workflows" / "contract.yml").read_text()
    # Every scalar as it is written: YAML takes the key "on" for a boolean, and "3.10" for a number.
    jobs: dict[str, dict[str, Any]] = yaml.load(text, Loader=yaml.BaseLoader)["jobs"]
    [job] = jobs.values()
    return job


def test_its_workflow_does_what_its_readme_says() -> None:
    readme = (TEMPLATE / "README.md").read_text().partition("## The contract")[2]
    commands = readme.split("```")[1].strip().splitlines()
    done = [step["run"] for step in workflow()["steps"] if "run" in step]
    assert done == ["pip install 'rocksdict==${{ matrix.rocksdict }}'", *commands]


def test_its_workflow_runs_on_the_oldest_versions_that_are_allowed_and_on_newer_ones() -> None:
    project = tomllib.loads((TEMPLATE / "pyproject.toml").read_text())["project"]
    oldest, *newer = workflow()["strategy"]["matrix"]["include"]
    assert f"rocksdict>={oldest['rocksdict']},<0.4" in project["dependencies"]
    assert project["requires-python"] == f">={oldest['python']}"
    assert len({one["rocksdict"] for one in newer} - {oldest["rocksdict"]}) > 1
    assert {one["python"] for one in newer} > {oldest["python"]}
