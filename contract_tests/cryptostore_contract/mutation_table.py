"""`python -m cryptostore_contract.mutation_table`: which mutant is killed by which case, and which cases kill none."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from .mutants import MUTANTS
from .verdict import manifest


def lines() -> Iterator[str]:
    """The table, a line a mutant, and the cases that no mutant is named for."""
    for mutant in sorted(MUTANTS, key=lambda mutant: mutant.killed_by):
        yield f"{mutant.killed_by:16}{mutant.name}: {mutant.apply.__doc__}"
    killers = {mutant.killed_by for mutant in MUTANTS}
    idle = [case.id for case in manifest() if case.id not in killers]
    yield f"{len(MUTANTS)} mutants; no mutant is named for {len(idle)} of {len(manifest())} cases: {', '.join(idle)}"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in lines())
