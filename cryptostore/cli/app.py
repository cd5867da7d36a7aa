"""The program `cryptostore`: its options, its commands, and its one way to end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cryptostore.errors import CryptoStoreError, StorageFull
from cryptostore.plugins.urls import redact
from cryptostore.shown import shown

from .commands import add_commands
from .exits import EXPLAINED, ExitCode, exit_code_of
from .output import print_error, print_json, whole_output, write_every_letter
from .programs import Program


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with a code of `exits.ExitCode`. The entry point of `cryptostore`.

    A CryptoStoreError is one line on standard error, and with --json also the JSON document; a traceback means a bug.
    """
    write_every_letter()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with whole_output(), _told(words):
            build_app(words[0] if words else None)(args=words, prog_name="cryptostore")
    except StorageFull as error:
        # Standard output is what is full, so that JSON has no room either.
        print_error(str(error))
        sys.exit(exit_code_of(error))
    except Program as found:
        program = found
    # Out of the clause above: its error would be the context of each of the program's own.
    program.start()


def build_app(wanted: str | None = None) -> typer.Typer:
    """The typer application with the command `wanted`, or with all of them."""
    app = typer.Typer(
        cls=_Program,
        help="Keep the end-to-end encryption keys of Matrix clients in a real database.",
        epilog=EXPLAINED,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    add_commands(app, wanted)
    return app


@contextmanager
def _told(words: Sequence[str]) -> Iterator[None]:
    """End with the exit code of a CryptoStoreError, once it is told."""
    try:
        yield
    except CryptoStoreError as error:
        print_error(str(error))
        code = exit_code_of(error)
        if _wants_json(words):
            _print_error_as_json(type(error).__name__, str(error), code)
        sys.exit(code)


class _Program(TyperGroup):
    """The commands. A URL in the wrong place of the command line is quoted without its password."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        self._words = list(args)
        with _telling_usage(self._words):
            return super().make_context(info_name, args, *rest, **extra)

    def invoke(self, ctx: Any) -> Any:
        with _telling_usage(self._words):
            return super().invoke(ctx)


@contextmanager
def _telling_usage(words: Sequence[str]) -> Iterator[None]:
    """Hide what may be secret in a usage error, and write it as JSON, too, where that was asked for."""
    try:
        yield
    except Exception as error:
        # What typer shows of a usage error, whose classes it does not export.
        message = getattr(error, "message", "")
        if message:
            vars(error)["message"] = shown(_redacted(message, words))
        # A missing argument has no message before it is formatted.
        if hasattr(error, "format_message") and _wants_json(words):
            _print_error_as_json("UsageError", error.format_message(), ExitCode.USAGE)
        raise


def _redacted(message: str, words: Sequence[str]) -> str:
    for word in words:
        if ":" in word or "=" in word:
            message = message.replace(word, redact(word)).replace(repr(word), repr(redact(word)))
    return message


def _wants_json(words: Sequence[str]) -> bool:
    # Another program's words are its own.
    return "--json" in words and words[0] != "run"


def _print_error_as_json(name: str, message: str, code: int) -> None:
    print_json({"error": name, "message": message, "exit_code": code})


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"matrix-cryptostore {metadata.version('matrix-cryptostore')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Options of the program itself; they are dealt with by their callbacks."""
