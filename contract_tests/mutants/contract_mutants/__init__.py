"""Deliberately broken stores: a sound one with one bug each, and the cases that find it.

A suite that has only ever seen good stores has proved nothing about itself. Most mutants break the in-memory model;
the others break it kept in files, or the SQL, the files, the processes or the connections of a real backend, and are
loaded by `load` where that backend is installed.
"""

from __future__ import annotations

import importlib
from typing import Final

from . import accounts, batches, core, held, lookups, owners, sealing, secrets, values
from .registry import MUTANTS, Mutant, mutant, named

__all__ = [
    "MUTANTS",
    "Mutant",
    "accounts",
    "batches",
    "core",
    "held",
    "load",
    "lookups",
    "mutant",
    "named",
    "owners",
    "sealing",
    "secrets",
    "values",
]

_OF_BACKENDS: Final = {
    "broken": ("crashes",),
    "sqlite": ("sqlite", "files", "processes", "held_sqlite"),
    "postgres": ("postgres", "postgres_connections", "postgres_secrets", "held_postgres", "processes"),
}


def load(backend: str) -> list[Mutant]:
    """The mutants of a backend, which must be installed."""
    for module in _OF_BACKENDS.get(backend, ()):
        importlib.import_module(f"{__name__}.{module}")
    return [mutant for mutant in MUTANTS if mutant.backend == backend]
