"""The tutorial shows, whole and in the order of need, the files that its own environment runs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TEMPLATE = Path(__file__).parents[2] / "docs" / "plugin-template"
PAGE = (TEMPLATE.parent / "writing-a-backend.md").read_text()

WORKFLOW = ".github/workflows/contract.yml"

#: Beside the tutorial's way: what it points to at its end.
NOT_SHOWN = {"tests/test_rocksdb_folder.py"}


def shown() -> list[str]:
    """The files on the page; fails for one that is cut, or that has another name in its caption."""
    included = re.findall(r"^```{literalinclude} plugin-template/(\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for name, options in included:
        assert re.findall(r"^:(?!language: (?:toml|yaml)$)(.*)$", options, re.MULTILINE) == [f'caption: "`{name}`"']
    return [name for name, _ in included]


def test_every_file_is_shown_once() -> None:
    there = {str(path.relative_to(TEMPLATE)) for path in TEMPLATE.rglob("*.py") if "build" not in path.parts}
    assert sorted(shown()) == sorted((there | {"pyproject.toml", WORKFLOW}) - NOT_SHOWN)


def test_no_file_needs_one_that_comes_later() -> None:
    modules = [Path(name).stem for name in shown() if name.startswith("cryptostore_rocksdb/")]
    for position, module in enumerate(modules):
        tree = ast.parse((TEMPLATE / "cryptostore_rocksdb" / f"{module}.py").read_text())
        own = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
        needed = {node.module or alias.name for node in own for alias in node.names}
        assert needed <= set(modules[:position]), module
