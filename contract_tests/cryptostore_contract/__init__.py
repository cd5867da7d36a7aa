"""The contract test suite of matrix-cryptostore.

A backend's author writes one class:

    class TestMyBackend(StoreContract):
        @pytest.fixture
        def harness(self, tmp_path: Path) -> Iterator[Harness]:
            yield from managed(MyHarness(tmp_path))
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, Final

# The suite's child processes do without pytest, which would be half of what it costs to start one.
if "pytest" in sys.modules:
    import pytest

    # Before any of them is imported; else failures show bare AssertionErrors.
    pytest.register_assert_rewrite(
        *(f"{__name__}.{module}" for module in ("cases", "children", "golden", "handles", "raw", "waiting"))
    )

if TYPE_CHECKING:
    from .harness import Ability, Harness, managed
    from .limits import limited_files
    from .manifest import Case, case, cases_of, not_verified
    from .server import OwnServerHarness, ServerHarness, ServerProcess
    from .suite import StoreContract

__all__ = [
    "Ability",
    "Case",
    "Harness",
    "OwnServerHarness",
    "ServerHarness",
    "ServerProcess",
    "StoreContract",
    "case",
    "cases_of",
    "limited_files",
    "managed",
    "not_verified",
]

_HOMES: Final = {
    "Ability": "harness",
    "Harness": "harness",
    "managed": "harness",
    "limited_files": "limits",
    "Case": "manifest",
    "case": "manifest",
    "cases_of": "manifest",
    "not_verified": "manifest",
    "OwnServerHarness": "server",
    "ServerHarness": "server",
    "ServerProcess": "server",
    "StoreContract": "suite",
}


def __getattr__(name: str) -> Any:
    # pytest imports this package in every run on the machine, for its plugin: the suite comes only when it is used.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
