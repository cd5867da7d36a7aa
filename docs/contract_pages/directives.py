"""A Sphinx extension for the pages about the contract: what they repeat of the suite is taken from the suite.

`{case} ID` and `{ability} NAME` describe one of each, with the text below them; `{clauses}` is the table of all
clauses. The roles of the same names link to them, and clause IDs in the interface's docstrings become such links.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.domains.std import GenericObject
from sphinx.roles import XRefRole
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from cryptostore_contract import Ability

from .facts import bugs_found_by, cases, checked_by, clauses, function_of, needing


class Described(GenericObject):
    """Something with a name, the text of the page, and facts behind the text's first paragraph."""

    def facts(self, name: str) -> list[str]:
        """Lines of Markdown."""
        raise NotImplementedError

    def transform_content(self, content_node: Any) -> None:
        facts = "\n".join(f"- {fact}" for fact in self.facts(self.arguments[0]))
        content_node[1:1] = self.parse_text_to_nodes(facts)


class CaseDescription(Described):
    """`{case} RECORDS-1`: the page says what the case does, and where to look when it fails."""

    def facts(self, name: str) -> list[str]:
        """Its function, what it checks and needs, and bugs that it is shown to find.

        KeyError for a case that there is not.
        """
        case = cases()[name]
        facts = [f"`{function_of(name)}`", f"checks {_links('clause', sorted(case.checks))}"]
        facts += [f"needs {_links('ability', sorted(need.name for need in case.needs))}"] if case.needs else []
        return [*facts, *(f"finds this bug: {bug}" for bug in bugs_found_by(name))]


class AbilityDescription(Described):
    """`{ability} REOPEN`: the page says what a harness has to do for it."""

    def facts(self, name: str) -> list[str]:
        """The cases that need it. KeyError for an ability that there is not."""
        needed_by = needing(Ability[name])
        return [f"needed by {_links('case', needed_by)}" if needed_by else "needed by no case yet"]


class ClauseTable(SphinxDirective):
    """`{clauses}`: every clause, what it says, and the cases that check it."""

    def run(self) -> list[nodes.Node]:
        body = nodes.tbody("", *[self._row(clause_id) for clause_id in clauses()])
        head = nodes.thead("", nodes.row("", *[_entry(nodes.paragraph("", name)) for name in _COLUMNS]))
        widths = [nodes.colspec(colwidth=width) for width in _COLUMNS.values()]
        return [nodes.table("", nodes.tgroup("", *widths, head, body, cols=len(widths)))]

    def _row(self, clause_id: str) -> nodes.row:
        clause = clauses()[clause_id]
        target = f"clause-{clause_id.lower()}"
        self.env.domains.standard_domain.note_object("clause", clause_id, target, location=self.get_location())
        name = nodes.paragraph("", "", nodes.literal("", clause_id, ids=[target]))
        stated = f"{clause.text} ({{py:obj}}`{clause.owner} <{clause.module}.{clause.owner}>`)"
        texts = [stated, _links("case", checked_by(clause_id))]
        return nodes.row("", _entry(name), *[_entry(*self.parse_text_to_nodes(text)) for text in texts])


def setup(app: Sphinx) -> ExtensionMetadata:
    """Called by Sphinx."""
    for name in ("case", "ability", "clause"):
        app.add_object_type(name, name, objname=f"contract {name}")
        app.add_role_to_domain("std", name, XRefRole(warn_dangling=True), override=True)
    app.add_directive_to_domain("std", "case", CaseDescription, override=True)
    app.add_directive_to_domain("std", "ability", AbilityDescription, override=True)
    app.add_directive("clauses", ClauseTable)
    app.connect("autodoc-process-docstring", _link_clauses)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


#: The table's columns, and how wide they are.
_COLUMNS = {"clause": 15, "what it says": 55, "checked by": 30}


def _entry(*content: nodes.Node) -> nodes.entry:
    return nodes.entry("", *content)


def _links(role: str, names: Iterable[str]) -> str:
    return ", ".join(f"{{{role}}}`{name}`" for name in names)


def _link_clauses(_app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    known = clauses()

    def link(marker: re.Match[str]) -> str:
        return f"[:clause:`{marker[1]}`]" if marker[1] in known else marker[0]

    lines[:] = [re.sub(r"\[([A-Z]+-\d+)\]", link, line) for line in lines]
