"""`cryptostore backends`: what is installed, what it can do, and why what is broken is broken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cryptostore.plugins import InstalledBackend, installed_backends
from cryptostore.plugins.capabilities import Capability
from cryptostore.store.interface import INTERFACE_VERSION

from .output import AsJson, print_json, print_table


def backends(as_json: AsJson = False) -> None:
    """List the database backends that are installed, with what each can do and why a broken one is broken."""
    installed = installed_backends()
    if as_json:
        print_json({"interface": _dotted(INTERFACE_VERSION), "backends": [_document(each) for each in installed]})
        return
    print_table(
        f"Backends (interface {_dotted(INTERFACE_VERSION)})",
        ["name", "distribution", "version", "interface", "status"],
        [(each.name, each.distribution, each.version, _interface(each), _status(each)) for each in installed],
    )
    print_table("Capabilities", ["backend", "capability", "support", "reason"], _capability_rows(installed))


def _document(installed: InstalledBackend) -> dict[str, Any]:
    return {
        "name": installed.name,
        "distribution": installed.distribution,
        "version": installed.version,
        "interface": _interface(installed) or None,
        "status": "broken" if installed.plugin is None else "usable",
        "problem": installed.problem or None,
        "capabilities": {
            capability.value: {"support": support, "reason": reason or None}
            for capability, support, reason in _claims(installed)
        },
    }


def _capability_rows(installed: list[InstalledBackend]) -> Iterator[tuple[str, str, str, str]]:
    for each in installed:
        for capability, support, reason in _claims(each):
            yield each.name, capability.value, support, reason


def _claims(installed: InstalledBackend) -> Iterator[tuple[Capability, str, str]]:
    if installed.plugin is not None:
        for capability in Capability:
            claim = installed.plugin.claim(capability)
            yield capability, claim.support.value, claim.reason


def _interface(installed: InstalledBackend) -> str:
    return _dotted(installed.plugin.interface) if installed.plugin else ""


def _status(installed: InstalledBackend) -> str:
    return "usable" if installed.plugin else f"broken: {installed.problem}"


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
