"""Installed distributions that exist only for one test: a dist-info folder and a few modules on a path of their own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest


class FakeSite:
    """A folder on `sys.path` to install into; what was imported from it is forgotten with the test."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        monkeypatch.syspath_prepend(folder)

    def install(
        self, name: str, entry_points: Mapping[str, Mapping[str, str]], version: str = "1.0", **modules: str
    ) -> None:
        """Install a distribution with entry points (group, name, value) and modules (name, source)."""
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines: list[str] = []
        for group, values in entry_points.items():
            lines += [f"[{group}]", *(f"{key} = {value}" for key, value in values.items())]
        (info / "entry_points.txt").write_text("\n".join(lines))
        for module, source in modules.items():
            (self.folder / f"{module}.py").write_text(source)
            self._forget_afterwards(module)

    def module(self, name: str) -> Any:
        """The imported module."""
        return import_module(name)

    def imported(self, name: str) -> bool:
        """Whether anybody imported the module."""
        return name in sys.modules

    def _forget_afterwards(self, module: str) -> None:
        # delitem restores what it found; setting first makes that "nothing".
        self._monkeypatch.setitem(sys.modules, module, sys)
        self._monkeypatch.delitem(sys.modules, module)
