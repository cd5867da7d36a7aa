"""The Python in the README and in the documentation runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SYBIL = Sybil(parsers=[PythonCodeBlockParser()], path=str(ROOT))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "```python" in page.read_text()], ids=lambda page: page.name
)
def test_code_blocks_run(page: Path) -> None:
    examples = list(SYBIL.parse(page).examples())
    assert len(examples) == page.read_text().count("```python")
    for example in examples:
        example.evaluate()
