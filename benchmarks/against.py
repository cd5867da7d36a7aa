"""Measure this checkout against another one, and both beside other stores, all in one run.

    python benchmarks/against.py CHECKOUT [--runs N] [--quick | --full] [--only ROW] [--json FILE]

CHECKOUT is the folder of another working tree of this project. Each of the two is installed into an environment of its
own; they are measured in turns, each measurement in a process of its own, on PostgreSQL, on PostgreSQL behind a network
(a proxy that is late), and on SQLite. Without CHECKOUT, what this Python has installed is measured alone.

Beside them stand, in the same run: what PostgreSQL itself takes for the very rows that a checkout stored (binary COPY,
a prepared select by the primary key, a durable upsert), matrix-nio's SqliteStore, and mautrix-python's PgCryptoStore.

Round trips are counted in the proxy: one begins where a client sends something after it was sent something.

Exits with 1 where a figure of this checkout is worse than the other's by more than the larger of their spreads (the
largest run less the smallest) and three percent, also after the row was measured once more; or where this checkout
cannot do what is measured. Times need a machine that does nothing else. Compare columns, not runs on two machines.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.console import Console

# The server for tests is the server for measurements, too.
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "support"))
sys.path.append(str(Path(__file__).resolve().parent))
from measuring.environments import NoEnvironment, cache_folder, checkout_python, mautrix_python, unequal_versions
from measuring.figures import OTHER, THIS, Figures, Missing
from measuring.lab import Lab, Scale, Subject
from measuring.network import Network
from measuring.report import as_json, table
from measuring.rows import ROWS
from postgres_database import PostgresDatabase, provided_database  # found by the line above, as the next

ROOT: Final = Path(__file__).resolve().parents[1]
#: What PostgreSQL has without any configuration. The tests' server is smaller.
_SERVER_SETTINGS: Final = {"shared_buffers": "128MB", "max_wal_size": "1GB", "autovacuum_naptime": "1min"}

_WIDTH: Final = 150

_SCALES: Final = {
    "quick": Scale(runs=3, records=5_000, sessions=100_000, imported=5_000, repeats=50, crowd=10_000),
    "default": Scale(runs=5, records=10_000, sessions=200_000, imported=50_000, repeats=200, crowd=10_000),
    "full": Scale(runs=5, records=10_000, sessions=1_000_000, imported=50_000, repeats=200, crowd=10_000),
}


def _arguments() -> argparse.Namespace:
    about, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("checkout", nargs="?", type=Path, metavar="CHECKOUT", help="the folder of another working tree")
    add("--runs", type=int, help="how often each is measured, at least twice (default: 5; 3 with --quick)")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", dest="scale", action="store_const", const="quick", help="fewer runs and records")
    sizes.add_argument("--full", dest="scale", action="store_const", const="full", help="1,000,000 sessions; an hour")
    add("--only", action="append", choices=ROWS, metavar="ROW", help=f"measure this alone: {', '.join(ROWS)}")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured to a file, too")
    add("--delay", type=float, default=1.0, metavar="MS", help="of the network in each direction (default: 1 ms)")
    add("--folder", help="where the SQLite files go (default: a temporary folder)")
    add("--cache", type=Path, help="where environments are kept (default: the user's cache folder)")
    add("--mautrix", metavar="PYTHON", help="a Python with mautrix, python-olm and asyncpg; 'none' leaves it out")
    parser.set_defaults(scale="default")
    given = parser.parse_args()
    if given.runs is not None and given.runs < 2:
        parser.error("one run has no spread: give --runs 2 or more")
    return given


def _scale(given: argparse.Namespace) -> Scale:
    scale = asdict(_SCALES[given.scale])
    return Scale(**{**scale, "runs": given.runs or scale["runs"]})


def _checkouts(given: argparse.Namespace, cache: Path) -> list[Subject]:
    if given.checkout is None:
        return [Subject(THIS, Path(sys.executable))]
    return [Subject(THIS, checkout_python(ROOT, cache)), Subject(OTHER, checkout_python(given.checkout, cache))]


def _use_mautrix(lab: Lab, given: argparse.Namespace, cache: Path) -> None:
    if given.mautrix == "none":
        return
    try:
        lab.mautrix = Subject("mautrix", Path(given.mautrix) if given.mautrix else mautrix_python(cache))
    except NoEnvironment as error:
        reason = f"{error}; --mautrix names a Python that has it, or 'none'"
        lab.figures.missing.append(Missing("mautrix", "all", "", reason))


def _generated_key(python: Path) -> str | None:
    """A pickle key that the checkout makes, if it makes any."""
    command = python.parent / "cryptostore"
    if not command.exists():
        return None
    done = subprocess.run([str(command), "new-key"], capture_output=True, text=True, check=False)
    return next((word for word in done.stdout.split() if word.startswith("csk1_")), None)


def _measure(lab: Lab, name: str) -> None:
    """One row."""
    lab.row = name
    ROWS[name](lab)
    if lab.figures.is_worse_in(name):
        # Something else may have had the machine just then: as many runs once more, and all of them count.
        ROWS[name](lab)
    lab.drop_schemas()


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or checkout.name


def _folders(given: argparse.Namespace) -> Mapping[str, Path]:
    return {THIS: ROOT} if given.checkout is None else {THIS: ROOT, OTHER: given.checkout}


def _about(given: argparse.Namespace, server: PostgresDatabase, lab: Lab) -> dict[str, Any]:
    with server.connect() as connection:
        version = connection.info.parameter_status("server_version")
        durable = connection.execute(
            "SELECT current_setting('fsync'), current_setting('synchronous_commit')"
        ).fetchone()
    return {
        "checkouts": {name: _commit(folder) for name, folder in _folders(given).items()},
        "python": platform.python_version(),
        "postgresql": version,
        "fsync, synchronous_commit": durable,
        "network": f"{given.delay} ms each way",
        "cores": os.cpu_count(),
        "load average before": os.getloadavg()[0],
        "other versions": unequal_versions([subject.python for subject in lab.checkouts]),
        "scale": asdict(lab.scale),
    }


@contextlib.contextmanager
def _lab(given: argparse.Namespace, checkouts: list[Subject], cache: Path) -> Iterator[tuple[Lab, dict[str, Any]]]:
    """All that is measured with, and what is to be told about it."""
    with (
        tempfile.TemporaryDirectory(dir=given.folder) as folder,
        provided_database(_SERVER_SETTINGS) as server,
        contextlib.closing(Network(server.address, given.delay / 1000)) as network,
        contextlib.closing(Lab(server, network, Path(folder), _scale(given), Console(stderr=True).print)) as lab,
    ):
        lab.checkouts.extend(checkouts)
        lab.nio = Subject("nio", checkouts[0].python)
        lab.generated_key = _generated_key(checkouts[0].python)
        _use_mautrix(lab, given, cache)
        yield lab, _about(given, server, lab)


def _show(figures: Figures, about: Mapping[str, Any]) -> None:
    # A table in a file needs no wrapping.
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    for name in ("postgresql", "fsync, synchronous_commit", "network", "cores", "load average before"):
        console.print(f"{name}: {about[name]}")
    for name, versions in about["other versions"].items():
        console.print(f"the environments differ in {name}, {versions}; empty the cache folder to make both again")
    console.print(table(figures, {name: f"{name} ({commit})" for name, commit in about["checkouts"].items()}))
    for missing in figures.missing:
        console.print(f"not measured: {missing.subject}, {missing.row} {missing.place}: {missing.reason}", markup=False)


def _write(file: Path | None, figures: Figures, about: Mapping[str, Any]) -> None:
    if file is not None:
        file.write_text(json.dumps(as_json(figures, about), indent=2, ensure_ascii=False) + "\n")


def main() -> int:
    """Measure, print the table, and say whether this checkout is worse."""
    given = _arguments()
    cache = given.cache or cache_folder()
    # As Ctrl-C does, this shows what was measured, and stops the server.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        checkouts = _checkouts(given, cache)
    except NoEnvironment as error:
        Console(stderr=True).print(str(error), style="red", markup=False)
        return 2
    with _lab(given, checkouts, cache) as (lab, about):
        try:
            for row in given.only or ROWS:
                _measure(lab, row)
                # It takes long: what was measured before an interruption is there.
                _write(given.json, lab.figures, about)
        finally:
            _show(lab.figures, about)
    return int(lab.figures.is_worse)


if __name__ == "__main__":
    sys.exit(main())
