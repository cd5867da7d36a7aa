"""What the README promises about itself."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from cryptostore.cli.app import build_app
from cryptostore_contract import StoreContract, cases_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SHIPPED = ("cryptostore", "backends", "contract_tests", "docs", "examples")
TEXTS = {".py", ".md", ".toml", ".yaml", ".yml", ".json"}
READMES = [ROOT / "contract_tests" / "README.md", *sorted((ROOT / "backends").glob("*/README.md"))]
PAGES = [*sorted(ROOT.glob("*.md")), *READMES, *sorted((ROOT / "docs").rglob("*.md"))]


def quick_start() -> list[str]:
    """The lines of the first fenced block under `## Quick start`."""
    section = README.partition("\n## Quick start\n")[2]
    return section.split("```", 2)[1].splitlines()[1:]


def test_the_quick_start_is_two_commands() -> None:
    first, second = quick_start()
    assert first.startswith("python3 -m venv .venv && .venv/bin/pip install ")
    assert first.endswith(" && .venv/bin/cryptostore demo")
    assert second.startswith("python3 -m venv .venv && .venv/bin/pip install ")
    assert second.endswith(" && .venv/bin/pytest -q -n 4")


def test_the_quick_start_needs_python_and_nothing_else() -> None:
    for line in quick_start():
        programs = [command.split()[0] for command in line.split("&&")]
        assert set(programs) <= {"python3", ".venv/bin/pip", ".venv/bin/cryptostore", ".venv/bin/pytest"}
        assert not re.search(r"\b(docker|tox|uv|sudo|activate|--group)\b", line)


def test_the_quick_start_installs_what_is_there() -> None:
    for line in quick_start():
        for word in shlex.split(line):
            folder = re.fullmatch(r"(\.(?:/[\w/]+)?)(?:\[\w+\])?", word)
            if folder and not word.startswith(".venv"):
                assert (ROOT / folder[1] / "pyproject.toml").is_file(), word


def test_nobody_is_sent_to_a_name_on_pypi_that_is_not_ours() -> None:
    """None of our names is registered there."""
    texts = [file for folder in SHIPPED for file in (ROOT / folder).rglob("*") if file.suffix in TEXTS]
    wrong = re.compile(
        r"[Ii]nstall `matrix-cryptostore|pip install[^`\n]*[ '\"]matrix-cryptostore|"
        r"pypi\.org/project/matrix-cryptostore"
    )
    assert [str(file) for file in [*ROOT.glob("*.md"), *texts] if wrong.search(file.read_text())] == []


def test_the_introduction_is_three_sentences() -> None:
    introduction = README.partition("\n\n")[2].partition("\n\n")[0]
    assert len(re.findall(r"\.(?=\s|$)", introduction)) == 3


def test_every_promise_is_listed_and_every_case_it_names_exists() -> None:
    table = re.findall(r"^\| (P\d+) \|.*\| (.+) \|$", README, re.MULTILINE)
    assert [promise for promise, _ in table] == [f"P{number}" for number in range(1, 11)]
    known = cases_of(StoreContract)
    for promise, shown_by in table:
        cases = re.findall(r"[A-Z]+-\d+", shown_by)
        files = re.findall(r"`([\w/]+\.py)`", shown_by)
        assert cases or files or "not tested yet" in shown_by.lower(), promise
        assert [case for case in cases if case not in known] == []
        assert [file for file in files if not (ROOT / file).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_command_line_page_names_every_command_and_option() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text()
    for name, command in _commands(get_command(build_app())):
        assert f"cryptostore {name}" in page
        options = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
        assert [option for option in options if option not in page] == []


def _commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        # It is meant where no command is named.
        if name != "show":
            yield before + name, command
        if hasattr(command, "commands"):
            yield from _commands(command, f"{before}{name} ")
