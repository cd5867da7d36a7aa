"""`cryptostore config`: what is in force, and where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from cryptostore.plugins.environment import found_variables
from cryptostore.plugins.plugin import Setting

from .exits import ExitCode
from .output import AsJson, print_json, print_line
from .settings_in_force import InForce, Unknown, in_force

#: Columns for the name of a setting.
_WIDTH: Final = 20


def config(
    url: Annotated[
        str | None,
        typer.Argument(metavar="URL", show_default=False, help="The database; else the one that clients find."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a client or a command would use if it started here now, and where each part comes from.

    That is the database with the options of its URL and their defaults, where the pickle key and the recovery key come
    from, what is set and not in force, and variables that look like ours and are not known.

    Opens nothing, runs no command, and shows no secret. The exit code is 1 where nothing could start like this, or a
    CRYPTOSTORE_ variable is not known.
    """
    found = in_force(found_variables(), url)
    if as_json:
        print_json(_document(found))
    else:
        _report(found)
    if found.problems or any(each.name.startswith("CRYPTOSTORE_") for each in found.unknown):
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _report(found: InForce) -> None:
    # Lines, not columns: values and names of variables leave no room beside each other on a terminal.
    sections = {
        "Database": found.database,
        "Secrets": found.secrets,
        "Client": found.client,
        "Observers": found.observers,
    }
    for title, settings in sections.items():
        _section(title, [f"{each.name:<{_WIDTH}} {each.value} ({each.origin})" for each in settings])
    _section("Set, and not in force", [f"{each.name} ({each.origin}): {each.reason}" for each in found.hidden])
    _section("Not known", [f"{each.name} ({each.origin}){_near(each)}" for each in found.unknown])
    _section("Problems", found.problems)


def _section(title: str, lines: Sequence[str]) -> None:
    if lines:
        print_line(title, style="bold")
        for line in lines:
            print_line(f"  {line}")


def _near(unknown: Unknown) -> str:
    return f": did you mean {unknown.near}?" if unknown.near else ""


def _document(found: InForce) -> dict[str, Any]:
    settings = {
        "database": found.database,
        "secrets": found.secrets,
        "client": found.client,
        "observers": found.observers,
    }
    return {
        "settings": {section: [_shown(each) for each in of_section] for section, of_section in settings.items()},
        "not_in_force": [each._asdict() for each in found.hidden],
        "not_known": [each._asdict() for each in found.unknown],
        "problems": found.problems,
    }


def _shown(setting: Setting) -> dict[str, str]:
    return {"name": setting.name, "value": setting.value, "origin": setting.origin}
