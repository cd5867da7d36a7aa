"""Sphinx configuration of the site."""

import re
import sys
import warnings
from importlib import metadata
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.deprecation import RemovedInSphinx10Warning

# Only the extension can mend this.
warnings.filterwarnings("ignore", category=RemovedInSphinx10Warning, module="sphinx_autodoc_typehints")

_docs = Path(__file__).parent
# For the extensions beside this file, and the deliberately broken stores that it names.
sys.path[:0] = [str(_docs), str(_docs.parent / "contract_tests" / "mutants")]

project = "matrix-cryptostore"
author = "The matrix-cryptostore contributors"
version = release = metadata.version("matrix-cryptostore")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "contract_pages.directives",
    "error_pages.directives",
]
html_theme = "furo"
html_title = f"{project} {release}"
html_show_copyright = False
html_static_path = ["site_style"]
html_css_files = ["site.css"]
# Texts of errors, commands and options are looked for as they are: with two hyphens, and straight quotes.
smartquotes = False
exclude_patterns = ["_build", "plugin-template", "requirements.txt"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
# A default that is a function would show its address, and turn every type of the signature into its full name.
autodoc_preserve_defaults = True
# The docstrings are plain prose that names things in `backquotes`.
default_role = "code"
always_use_bars_union = True
typehints_use_signature = True


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _keep_indented_blocks)
    # Before the other extension's, whose answer would be taken.
    app.connect("autodoc-process-signature", _show_plain_types, priority=400)


def _keep_indented_blocks(
    _app: Sphinx, what: str, _name: str, _object: object, _options: object, lines: list[str]
) -> None:
    # The modules draw trees and show code by indentation alone, which reStructuredText takes for a quotation.
    starts = [number for number, line in enumerate(lines) if number > 1 and line.startswith("    ")]
    for number in reversed(starts if what == "module" else []):
        if not lines[number - 1] and not lines[number - 2].startswith(" "):
            lines[number:number] = ["::", ""]


def _show_plain_types(
    _app: Sphinx, what: str, _name: str, _object: object, _options: object, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    # Python's own form of these has quotes and brackets, which Sphinx cannot read: it would show all as plain text.
    if what != "class" or not signature or not ("Annotated[" in signature or "<factory>" in signature):
        return None
    signature = re.sub(r"~[\w.]*\bAnnotated\[[^<]*<FieldType\.(\w+)[^>]*>\]", _alias, signature)
    signature = re.sub(r"<(\w+\.\w+): [^>]*>", r"\1", signature)
    return signature.replace("<factory>", "..."), returns


def _alias(found: re.Match[str]) -> str:
    return f"~cryptostore.records.fields.{found[1].title().replace('_', '')}"
