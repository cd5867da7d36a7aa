"""`cryptostore contract URL`: the suite against a live database, in a schema or folder of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Final
from uuid import uuid4

import typer

from cryptostore import ConfigurationError, CryptoStoreError, open_backend
from cryptostore.cli.databases import DatabaseUrl
from cryptostore.cli.exits import ExitCode
from cryptostore.cli.output import print_json

from .places import Place, place_for
from .presence import awaited

#: The entry points of the pytest plugins that the suite does not do without.
_PLUGINS: Final = ("cryptostore_contract", "timeout")


def contract(
    url: DatabaseUrl,
    report: Annotated[Path | None, typer.Option(help="Also write the report to this .json or .md file.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="How many processes run cases at once.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Write the report as JSON for programs.")] = False,
) -> None:
    """Run the contract suite against a live database, beside what is in it, and leave nothing behind.

    The suite makes schemas or files of its own; it never opens yours. Ends with 0 only where the verdict is PASS.
    """
    if report is not None:
        _check(report)
    found = _run(url, report, processes, to_stderr=as_json)
    if as_json:
        print_json(found)
    raise typer.Exit(ExitCode.DONE if found["verdict"] == "PASS" else ExitCode.CHECK_FAILED)


def _check(report: Path) -> None:
    from .plugin import FORMATS  # here, for it needs pytest

    if report.suffix not in FORMATS:
        raise ConfigurationError(f"--report {report}: the name must end in {' or '.join(FORMATS)}")


def _run(url: str, report: Path | None, processes: int, *, to_stderr: bool) -> dict[str, Any]:
    import pytest  # here, for the help lists this command without loading a test tool

    from .live import RUN_VARIABLE, URL_VARIABLE
    from .report import document

    run = uuid4().hex[:12]
    witness = _Witness()
    with (
        _interruptible(witness),
        tempfile.TemporaryDirectory() as folder,
        _cleared(place_for(url, run)),
        awaited(Path(folder)),
    ):
        os.environ |= {URL_VARIABLE: url, RUN_VARIABLE: run}
        # With --json, standard output is for programs alone.
        with contextlib.redirect_stdout(sys.stderr if to_stderr else sys.stdout):
            pytest.main(_arguments(folder, report, processes), plugins=[witness])
    if witness.interrupted:
        raise KeyboardInterrupt
    return document(witness.contracts)


def _arguments(folder: str, report: Path | None, processes: int) -> list[str]:
    arguments = ["--pyargs", "cryptostore_contract.live", "-q", "--no-header", "-c", os.devnull]
    # A longer traceback lists arguments, and the URL with its password is one of many calls.
    arguments += ["--tb=short", "--no-showlocals"]
    # That pytest came after the suite, which this command is of, is nothing that its user could change.
    arguments += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    arguments += [f"--rootdir={folder}", "-p", "no:cacheprovider", "--noconftest", "--import-mode=importlib"]
    # By name, for PYTEST_DISABLE_PLUGIN_AUTOLOAD may keep pytest from finding them.
    arguments += [word for plugin in _PLUGINS for word in ("-p", plugin)]
    arguments += ["-p", "xdist", "-n", str(processes)] if processes > 1 else []
    return arguments + ([f"--cryptostore-report={report.absolute()}"] if report is not None else [])


@contextlib.contextmanager
def _interruptible(witness: _Witness) -> Iterator[None]:
    """Tell the witness of Ctrl-C. SIGTERM interrupts the process in the same way, so that nothing is left behind."""
    # Who runs it in the background may have Ctrl-C ignored.
    heard = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) is not signal.SIG_IGN]
    before = {number: signal.signal(number, witness.hear) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _cleared(place: Place) -> Iterator[Place]:
    place.prepare()
    try:
        # What is wrong with the URL or the server is one error, not one a case.
        open_backend(place.new_url()).close()
    except BaseException:
        # An interrupt, too, may come after the first file or schema was made.
        with contextlib.suppress(CryptoStoreError):
            place.clear()
        raise
    try:
        yield place
    finally:
        _clear(place)


def _clear(place: Place) -> None:
    """Remove all that is left. What cannot be removed is told, and takes nothing from the verdict."""
    try:
        place.clear()
    except (CryptoStoreError, OSError) as error:
        sys.stderr.write(f"{place.name}… may be left behind: {error}\n")


class _Witness:
    """Keeps what the suite's own plugin saw, and whether somebody interrupted the run."""

    def __init__(self) -> None:
        self.contracts: list[Any] = []
        self.interrupted = False

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Interrupt the run, as a handler of signals."""
        self.interrupted = True
        signal.default_int_handler(number, frame)

    def pytest_runtest_logstart(self) -> None:
        """A case of interrupts may have taken this one for the one that it waits for."""
        if self.interrupted:
            raise KeyboardInterrupt

    def pytest_unconfigure(self, config: Any) -> None:
        self.contracts = list(config.pluginmanager.get_plugin("cryptostore-contract").observer.contracts.values())
