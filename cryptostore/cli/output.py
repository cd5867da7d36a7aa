"""Output: tables for people, JSON for programs, and progress. The only module that hands text to the terminal."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from cryptostore.errors import ConfigurationError, StorageFull
from cryptostore.shown import shown

from .exits import READER_GONE, ExitCode

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON for programs.")]

#: Narrow enough to leave room for ids on a terminal of 80 columns.
_BAR_WIDTH: Final = 20

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_every_letter() -> None:
    """Let standard output escape what its encoding lacks, as standard error does: an id must not end a command.

    Where the caller closed one of the two, what is written to it goes nowhere.
    """
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # open until the program ends
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # as above
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def shown_time(time: datetime) -> str:
    """A time for people."""
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


@contextmanager
def whole_output() -> Iterator[None]:
    """Raise StorageFull where not all that the block says fits on the disk behind standard output.

    Where who reads it has gone, exit with the code that the shell has for programs that SIGPIPE ends.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except SystemExit as error:
        # So typer and rich end a program then, with 1.
        if isinstance(error.__context__, BrokenPipeError):
            _write_nothing_more()
            sys.exit(READER_GONE)
        raise
    except BrokenPipeError:
        _write_nothing_more()
        sys.exit(READER_GONE)
    except OSError as error:
        if error.errno not in _NO_ROOM or error.filename is not None:
            raise
        _write_nothing_more()
        raise StorageFull(f"standard output cannot be written ({error.strerror}); make room, and try again") from error


def _write_nothing_more() -> None:
    # Python would try to write the rest at its end, and fail again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_json(document: Any) -> None:
    """Write one JSON document to standard output, in ASCII: what JSON escapes can steer no terminal."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table for people to standard output: a box on a terminal, and elsewhere a line a row.

    On a terminal the first column says once what it says in many rows. Where a box would break words, such as ids, it
    is a line of its own, with the other columns below it, or where that is too wide, too, each with its name.
    """
    # Not the table's own title, which is broken at the table's width: it may be a URL to copy.
    print_line(title, style="bold")
    escaped = [[shown(cell) for cell in row] for row in rows]
    console = _console()
    if not console.is_terminal:
        _print_aligned([list(columns), *escaped])
        return
    widths = _widths([columns, *escaped], console.width)
    if widths is None:
        _print_grouped(columns, escaped, console.width)
    else:
        _print_box(columns, escaped, widths)


def _widths(rows: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """How wide each column of a box is, so that no word is broken; None where that takes more room than there is."""
    columns = list(zip(*rows, strict=True))
    widths = [max(cell_len(word) for cell in column for word in cell.split() or [""]) for column in columns]
    # A line and two blanks beside each column, and a line at the end.
    left = room - sum(widths) - 3 * len(columns) - 1
    if left < 0:
        return None
    for number, column in enumerate(columns):
        more = min(left, max(map(cell_len, column)) - widths[number])
        widths[number] += more
        left -= more
    return widths


def _print_box(columns: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> None:
    table = Table()
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, width=width, overflow="fold")
    for before, row in pairwise([[""], *rows]):
        table.add_row("" if row[0] == before[0] else row[0], *row[1:])
    _console().print(table)


def _print_grouped(columns: Sequence[str], rows: Sequence[Sequence[str]], room: int) -> None:
    """Write each cell of the first column as a line, and below it the others: as columns, or each with its name."""
    names, *cells = _aligned([row[1:] for row in (columns, *rows)])
    fits = all(cell_len(line) + 2 <= room for line in (names, *cells))
    if fits:
        print_line(f"  {names}")
    for first, group in groupby(zip(rows, cells, strict=True), key=lambda pair: pair[0][0]):
        print_line(first)
        for row, line in group:
            named = [f"{name}: {cell}" for name, cell in zip(columns[1:], row[1:], strict=True) if cell]
            for each in [line] if fits else named:
                print_line(f"  {each}")


def _print_aligned(rows: Sequence[Sequence[str]]) -> None:
    for line in _aligned(rows):
        print_line(line)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Each row as one line, whatever its length: it may be searched, or cut by its columns."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        # Before the last column: what follows it would be blanks alone.
        cells = [set_cell_size(cell, width) for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return lines


def print_line(text: str, style: str | None = None) -> None:
    """Write a line for people to standard output."""
    _console().print(shown(text), style=style, soft_wrap=True)


def print_hanging(before: str, text: str, style: str = "") -> None:
    """Write a text behind `before`, which has the style. On a terminal its further lines begin where the first does.

    Elsewhere it is one line, whatever its length. Words longer than a line, such as paths to copy, stay whole.
    """
    console = _console()
    lines = [shown(text)]
    if console.is_terminal:
        width = max(20, console.width - cell_len(before))
        lines = textwrap.wrap(lines[0], width, break_long_words=False, break_on_hyphens=False) or [""]
    console.print(Text.assemble((before, style), lines[0]), soft_wrap=True)
    for line in lines[1:]:
        console.print(" " * cell_len(before) + line, soft_wrap=True)


def flush_output() -> None:
    """Return when everything for standard output is out. Raises OSError where it is not."""
    sys.stdout.flush()


def say(text: str, console: Console | None = None) -> None:
    """Write a line that is not the answer to standard error; on `console` where bars are on it."""
    (console or messages()).print(shown(text), soft_wrap=True)


def print_error(text: str) -> None:
    """Say on standard error, in one line, why the command ended."""
    sys.stderr.write(f"error: {shown(text)}\n")


@contextmanager
def if_interrupted(text: str) -> Iterator[None]:
    """Say how to go on where the block is interrupted with ^C."""
    try:
        yield
    except KeyboardInterrupt:
        say(text)
        raise


def ask_secret(what: str, instead: str, *, twice: bool = False) -> str:
    """Ask a person on the terminal for a secret, which is not shown.

    Raises ConfigurationError where there is no terminal, or no answer; `instead` says how to give the secret then.
    """
    if not has_terminal():
        raise ConfigurationError(f"there is no terminal to ask for the {what} on; give {instead}")
    try:
        with _interruptible():
            return str(typer.prompt(what.capitalize(), hide_input=True, err=True, confirmation_prompt=twice))
    except typer.Abort:
        raise ConfigurationError(f"no {what} was typed; type it, or give {instead}") from None


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let ^C at a question end the program as ^C does. typer makes an Abort of it, as of ^D, which is no answer."""
    try:
        yield
    except typer.Abort as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


def has_terminal() -> bool:
    """Whether somebody can be asked, even where standard input is a file or a pipe."""
    try:
        os.close(os.open(os.ctermid(), os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return sys.stdin is not None and sys.stdin.isatty()
    return True


def ask_before_deleting(question: str) -> None:
    """As `ask_first`, before something is deleted."""
    ask_first(question, "to delete", "nothing was deleted")


def ask_first(question: str, purpose: str, nothing_done: str) -> None:
    """Ask a person on the terminal, and end the command unless the answer is yes.

    Raises ConfigurationError where there is no terminal.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise ConfigurationError(f"there is no terminal to ask on; give --yes {purpose} without being asked")
    if not _confirmed(question):
        say(nothing_done)
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _confirmed(question: str) -> bool:
    try:
        with _interruptible():
            return typer.confirm(shown(question), err=True)
    except typer.Abort:
        # Behind the question, where a person would have ended the line.
        say("")
        return False


def messages() -> Console:
    """Standard error, for progress and everything that is not the answer."""
    return _console(stderr=True)


def counter(console: Console) -> Progress:
    """How much of what cannot be counted before is done; gone at the end."""
    return Progress(_Description(), MofNCompleteColumn(), TimeElapsedColumn(), console=console, transient=True)


@contextmanager
def counting(doing: str) -> Iterator[Callable[[int], None]]:
    """What counts on the terminal, if there is one, how much is done of what cannot be counted before."""
    console = messages()
    if not console.is_terminal:
        yield lambda _number: None
        return
    with counter(console) as progress:
        yield partial(progress.advance, progress.add_task(doing, total=None))


def bars(console: Console) -> Progress:
    """How much of the whole is done; gone at the end."""
    columns = (_Description(), BarColumn(_BAR_WIDTH), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


def rates(console: Console) -> Progress:
    """How much of the whole is done, how fast, and how long the rest will take; gone at the end."""
    columns = (_Description(), BarColumn(_BAR_WIDTH), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


class _Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")


class _Description(ProgressColumn):
    """What is being done. rich's own column takes it for markup, and leaves out what is too long for one line."""

    def __init__(self) -> None:
        super().__init__(Column(overflow="fold"))

    def render(self, task: Task) -> Text:
        return Text(shown(task.description))


def _console(*, stderr: bool = False) -> Console:
    # Text as it is: ids come from strangers, never as markup.
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)
