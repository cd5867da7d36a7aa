"""Which commands there are: our own, and those that other distributions add.

A distribution adds `cryptostore NAME` by an entry point NAME in the group `cryptostore.commands`. Its value is a
function with typer's annotations, or a `typer.Typer` with commands of its own. Only the command that is asked for is
imported; the help imports all.
"""

from __future__ import annotations

from importlib import metadata
from shutil import get_terminal_size
from typing import Any, Final

import typer
from typer.core import TyperCommand

from cryptostore.errors import PluginError
from cryptostore.plugins.distributions import distribution_of

GROUP: Final = "cryptostore.commands"

#: Columns that a box with options needs; in a narrower one their names would be cut.
_ROOM_FOR_BOXES: Final = 80

#: Ours are declared like everybody else's, so that they are imported in the same way, when they are needed.
_OUR_OWN: Final = tuple(
    metadata.EntryPoint(name, value, GROUP)
    for name, value in (
        ("accounts", "cryptostore.cli.accounts:accounts"),
        ("backends", "cryptostore.cli.backends:backends"),
        ("backup", "cryptostore.cli.backup:backup"),
        ("config", "cryptostore.cli.config:config"),
        ("copy", "cryptostore.cli.copy:copy"),
        ("delete", "cryptostore.cli.delete:delete"),
        ("demo", "cryptostore.cli.demo.command:demo"),
        ("doctor", "cryptostore.cli.doctor.command:doctor"),
        ("export-keys", "cryptostore.cli.export_keys:export_keys"),
        ("health", "cryptostore.cli.health:health"),
        ("identity", "cryptostore.cli.identity:identity"),
        ("import-keys", "cryptostore.cli.import_keys:import_keys"),
        ("import-nio", "cryptostore.cli.import_nio:import_nio"),
        ("migrate", "cryptostore.cli.migrate:migrate"),
        ("new-key", "cryptostore.cli.new_key:new_key"),
        ("prune", "cryptostore.cli.prune:prune"),
        ("rekey", "cryptostore.cli.rekey:rekey"),
        ("restore", "cryptostore.cli.restore:restore"),
        ("restore-backup", "cryptostore.cli.restore_backup:restore_backup"),
        ("restored", "cryptostore.cli.restored:restored"),
        ("run", "cryptostore.cli.run:run"),
        ("show", "cryptostore.cli.show:show"),
        ("stats", "cryptostore.cli.stats:stats"),
        ("verify", "cryptostore.cli.verify:verify"),
    )
)


class _Command(TyperCommand):
    """A command whose help is plain where there is no room for boxes."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        if get_terminal_size().columns < _ROOM_FOR_BOXES:
            self.rich_markup_mode = None
        super().format_help(ctx, formatter)


def add_commands(app: typer.Typer, wanted: str | None) -> None:
    """Add the command named `wanted` to `app`, or every command if none is known by that name."""
    found = _all_commands()
    for name in [wanted] if wanted in found else found:
        _add(app, name, found[name])


def _all_commands() -> dict[str, metadata.EntryPoint]:
    found = {entry_point.name: entry_point for entry_point in _OUR_OWN}
    for entry_point in metadata.entry_points(group=GROUP):
        # Another distribution must not replace one of our commands, such as `cryptostore import-nio`.
        found.setdefault(entry_point.name, entry_point)
    return found


def _add(app: typer.Typer, name: str, entry_point: metadata.EntryPoint) -> None:
    try:
        command: Any = entry_point.load()
        if not isinstance(command, typer.Typer) and not callable(command):
            raise TypeError(f"{entry_point.value} is neither a function nor a typer.Typer")
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a stranger's module may raise anything
        app.command(name, help="Cannot be loaded; run it to see why.")(_raising(_problem(name, entry_point, error)))
        return
    if isinstance(command, typer.Typer):
        for each in command.registered_commands if entry_point in _OUR_OWN else ():
            each.help = _joined(getattr(each.callback, "__doc__", ""))
            each.cls = _Command
        app.add_typer(command, name=name)
    else:
        help_text = _joined(command.__doc__) if entry_point in _OUR_OWN else None
        # What follows the name of a program belongs to that program.
        app.command(name, cls=_Command, help=help_text, context_settings={"allow_interspersed_args": name != "run"})(
            command
        )


def _joined(text: str) -> str:
    """The paragraphs of a docstring without its line ends, which typer would keep at any width of a terminal."""
    return "\n\n".join(" ".join(each.split()) for each in text.split("\n\n"))


def _problem(name: str, entry_point: metadata.EntryPoint, error: BaseException) -> PluginError:
    origin = " ".join(distribution_of(entry_point)) if entry_point.dist else "an unnamed distribution"
    problem = PluginError(
        f"the command {name!r} of {origin} cannot be loaded: {type(error).__name__}: {error}; "
        "reinstall or remove that distribution"
    )
    problem.__cause__ = error
    return problem


def _raising(problem: PluginError) -> Any:
    def broken_command() -> None:
        raise problem

    return broken_command
