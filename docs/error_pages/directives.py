"""A Sphinx extension for the page about errors: `{error-texts} NAME` or `{error-texts} NAME GROUP`."""

from __future__ import annotations

from typing import Any, Final

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from cryptostore import errors
from cryptostore.cli.exits import exit_code_of

from .texts import texts_of


class ErrorTexts(SphinxDirective):
    """The exit code of commands that end with this error, and all of its texts."""

    required_arguments = 1
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        name, *group = self.arguments
        error = getattr(errors, name)
        texts = texts_of(name, *group)
        code = exit_code_of(error.__new__(error))
        told = self.parse_text_to_nodes(f"A command that meets it [ends with {code}](command-line.md#exit-codes).")
        return [*([] if group else told), *([_bullets(texts)] if texts else [])]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Called by Sphinx."""
    app.add_directive("error-texts", ErrorTexts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


_CLASS: Final = "error-texts"


def _bullets(texts: list[str]) -> nodes.bullet_list:
    items: list[Any] = [nodes.list_item("", nodes.paragraph("", text)) for text in texts]
    return nodes.bullet_list("", *items, classes=[_CLASS])
