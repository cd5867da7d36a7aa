"""`python -m contract_mutants.table [FOLDER]`: which mutant is killed by which case, and which kill none.

Without a folder: by the cases that are named for it. With one: by all, as the soak has left it there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptostore_contract.verdict import manifest

from . import Mutant, load
from .idle import KILL_BY_CHANCE, KILL_NONE

_BACKENDS: Final = ("memory", "broken", "sqlite", "postgres")


def every_mutant() -> list[Mutant]:
    """The mutants of every backend that is installed."""
    found: list[Mutant] = []
    for backend in _BACKENDS:
        try:
            found += load(backend)
        except ModuleNotFoundError as error:
            sys.stderr.write(f"left out the mutants of {backend}: {error}\n")
    return found


def lines(mutants: list[Mutant]) -> Iterator[str]:
    """The table, a line a mutant, and the cases for which no mutant is named, with the reasons why they stay."""
    for mutant in sorted(mutants, key=lambda mutant: mutant.killed_by):
        yield f"{', '.join(mutant.killed_by):24} {mutant.backend:9} {mutant.name}: {mutant.bug}"
    for case_id, reason in KILL_NONE.items():
        yield f"{case_id:24} kills none: {reason}"
    for case_id, reason in KILL_BY_CHANCE.items():
        yield f"{case_id:24} kills by chance: {reason}"
    idle = f"{len(KILL_NONE)} of {len(manifest())} cases kill none, {len(KILL_BY_CHANCE)} by chance"
    yield f"{len(mutants)} mutants; {idle}"


def full(folder: Path) -> Iterator[str]:
    """The same with every case that killed a mutant, from the files of a soak."""
    tables = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    for table in tables:
        hangs = f" (hangs; {len(table['not tried'])} were not tried)" if table["not tried"] else ""
        killed_by = table["killed by"]
        yield f"{table['backend']:9} {table['mutant']}: {len(killed_by)}{hangs}: {', '.join(killed_by)}"
    killers = {case_id for table in tables for case_id in table["killed by"]}
    idle = [case.id for case in manifest() if case.id not in killers]
    yield f"{len(tables)} mutants; {len(idle)} of {len(manifest())} cases kill none: {', '.join(idle)}"


if __name__ == "__main__":
    table = full(Path(sys.argv[1])) if len(sys.argv) > 1 else lines(every_mutant())
    sys.stdout.writelines(f"{line}\n" for line in table)
