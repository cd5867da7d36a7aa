"""The Python in the README and in the documentation runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

ROOT = Path(__file__).parents[2]
READMES = [ROOT / "README.md", ROOT / "contract_tests" / "README.md", *sorted((ROOT / "backends").glob("*/README.md"))]
PAGES = [*READMES, *sorted((ROOT / "docs").rglob("*.md"))]
SYBIL = Sybil(parsers=[PythonCodeBlockParser()], path=str(ROOT))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "```python" in page.read_text()], ids=lambda page: str(page.relative_to(ROOT))
)
def test_code_blocks_run(page: Path) -> None:
    document = SYBIL.parse(page)
    examples = list(document.examples())
    assert len(examples) == page.read_text().count("```python")
    for example in examples:
        example.evaluate()
    for name, test in document.namespace.items():
        if name.startswith("test_"):
            test()
