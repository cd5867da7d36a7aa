"""Whether what is installed fits together, and can be loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Final

from cryptostore.errors import ConfigurationError, PluginError
from cryptostore.plugins import load_backend
from cryptostore.plugins.environment import variables
from cryptostore.plugins.findings import Finding, Level
from cryptostore.plugins.observers import load_observers
from cryptostore.plugins.urls import scheme_of
from cryptostore.store.aead import KEY_BYTES, cipher

_CORE: Final = "matrix-cryptostore"
#: Released together, under one number, and where each is in a checkout.
_RELEASED_TOGETHER: Final = {
    _CORE: ".",
    f"{_CORE}-contract": "./contract_tests",
    f"{_CORE}-postgres": "./backends/postgres",
    f"{_CORE}-sqlite": "./backends/sqlite",
}


def look_at_installation(url: str) -> Iterator[Finding]:
    """What there is to say of it."""
    yield _distributions()
    yield _encryption()
    yield _nio()
    yield _observers()
    yield _plugin(url)


def _distributions() -> Finding:
    versions = {}
    for name in _RELEASED_TOGETHER:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    seen = ", ".join(f"{name} {version}" for name, version in versions.items())
    if len(set(versions.values())) > 1:
        command = f"pip install --upgrade {' '.join(_RELEASED_TOGETHER[name] for name in versions)}"
        remedy = "they are released together: upgrade all, from a checkout"
        return Finding("distributions", Level.WARNING, seen, remedy, (command,))
    return Finding("distributions", Level.OK, seen)


def _encryption() -> Finding:
    try:
        cipher(bytes(KEY_BYTES))
    except ConfigurationError as error:
        return Finding.of_error("encryption", error)
    return Finding("encryption", Level.OK, f"cryptography {metadata.version('cryptography')} offers AES-GCM-SIV")


def _nio() -> Finding:
    try:
        # Half a second, which other commands do without.
        from cryptostore.nio.distribution import check_nio

        check_nio()
    except ConfigurationError as error:
        return Finding.of_error("nio", error)
    except ImportError as error:
        return _not_imported(error)
    return Finding("nio", Level.OK, f"matrix-nio {metadata.version('matrix-nio')}")


def _not_imported(error: ImportError) -> Finding:
    why = f"({type(error).__name__}: {' '.join(str(error).split())})"
    missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if missing in ("", "nio", "cryptostore"):
        command, remedy = "pip install --force-reinstall 'matrix-nio[e2e]'", "install it anew"
        return Finding("nio", Level.PROBLEM, f"nio cannot be imported {why}", remedy, (command,))
    # pip looks at what an installed distribution needs, too.
    seen = f"nio, or what clients need besides it, cannot be imported: the library {missing} is missing {why}"
    remedy = (
        f"install what is missing, from a checkout; if pip finds nothing to do, reinstall the distribution of {missing}"
    )
    return Finding("nio", Level.PROBLEM, seen, remedy, ("pip install .",))


def _observers() -> Finding:
    try:
        given: Mapping[str, str] = variables()
    except ConfigurationError:
        # It is told of the file itself.
        given = os.environ
    try:
        found = load_observers(given)
    except ConfigurationError as error:
        return Finding.of_error("observers", error, prevents_opening=True)
    if found.left_out:
        seen = ", ".join(f"{name} cannot be loaded ({why})" for name, why in found.left_out.items())
        return Finding("observers", Level.WARNING, seen, "install another version of its distribution, or remove it")
    return Finding("observers", Level.OK, ", ".join(found.names) or "none are installed")


def _plugin(url: str) -> Finding:
    try:
        plugin = load_backend(scheme_of(url))
    except PluginError as error:
        return Finding.of_error("plugin", error, prevents_opening=True)
    return Finding("plugin", Level.OK, f"{plugin.name}, for interface {'.'.join(map(str, plugin.interface))}")
