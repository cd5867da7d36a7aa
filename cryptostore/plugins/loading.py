"""Finding, loading and checking backend plugins, one name at a time.

Only the backend that is asked for is imported, so a broken plugin does not affect the others. Its error is raised when
it is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import pluggy

from cryptostore.errors import (
    AmbiguousBackend,
    BackendIncompatible,
    BackendInvalid,
    BackendLoadError,
    BackendNotFound,
    CryptoStoreError,
    PluginError,
)
from cryptostore.store.attempts import Attempts
from cryptostore.store.backend import Backend
from cryptostore.store.interface import INTERFACE_VERSION

from .distributions import distribution_of
from .hookspecs import PROJECT, BackendHooks
from .observers import notify, observers
from .plugin import BackendPlugin
from .urls import CommonOptions, options_of, redact, scheme_of

GROUP: Final = "cryptostore.backends"

#: Where our own backends are found, by name: the distribution and its folder in the source tree.
_OUR_OWN: Final[Mapping[str, tuple[str, str]]] = {
    "sqlite": ("matrix-cryptostore-sqlite", "./backends/sqlite"),
    "postgresql": ("matrix-cryptostore-postgres", "./backends/postgres"),
    "postgres": ("matrix-cryptostore-postgres", "./backends/postgres"),
}

_MEND: Final = "install another version of that distribution, or remove it"


@dataclass(frozen=True)
class InstalledBackend:
    """A backend as it was found: where it comes from, and either its plugin or the reason why it cannot be used."""

    name: str
    distribution: str
    version: str
    plugin: BackendPlugin | None = None
    problem: str = ""


def open_backend(url: str, **options: Any) -> Backend:
    """Open the database that `url` names, with the backend whose name is the URL's scheme.

    Every backend takes `deadline` (seconds) and `owner` (the name that a fenced owner is shown). Options come from the
    URL's query and from here; those given here win.

    Raises PluginError for the plugin, ConfigurationError for the URL, the options or the database, BackendUnavailable
    for a database that does not answer, SchemaError for tables that are missing or of another version, StorageFull.
    """
    plugin = load_backend(scheme_of(url))
    remaining = options_of(url, options)
    common = CommonOptions.take_from(remaining)
    # Before there is something to close.
    observers()
    database = Attempts(common.deadline).run(lambda timeout: plugin.open(url, remaining, timeout))
    return Backend(
        database,
        name=plugin.name,
        deadline=common.deadline,
        owner=common.owner,
        notify=notify,
        url=redact(url, plugin.shown_options),
    )


def open_existing(url: str, **options: Any) -> Backend:
    """Open a database as `open_backend` does, but make none where there is none, if its backend can do without."""
    return open_backend(url, **{**load_backend(scheme_of(url)).existing_only, **options})


def load_backend(name: str) -> BackendPlugin:
    """Import and check the plugin of this name. Does no I/O beyond the import. Raises PluginError."""
    return _load_once(name, tuple(map(_folder_state, sys.path)))


@lru_cache
def _load_once(name: str, _folders: tuple[tuple[str, int], ...]) -> BackendPlugin:
    # To look through all that is installed takes as long as to open a database, and each URL that is shown asks.
    return _load(_the_only(name, _entry_points().get(name, [])))


def _folder_state(folder: str) -> tuple[str, int]:
    """What changes when something is installed into a folder of Python's path, or removed from it."""
    try:
        return folder, Path(folder or ".").stat().st_mtime_ns
    except OSError:
        return folder, 0


def shown_url(url: str) -> str:
    """The URL, fit to be shown, with the options that its plugin lets be seen; a plugin that fails lets none."""
    try:
        visible = load_backend(scheme_of(url)).shown_options
    except CryptoStoreError:
        visible = frozenset()
    return redact(url, visible)


def installed_backends() -> list[InstalledBackend]:
    """Every backend that is installed, broken ones with their reasons, in the order of their names."""
    return [_inspect(name, found) for name, found in sorted(_entry_points().items())]


def _entry_points() -> dict[str, list[metadata.EntryPoint]]:
    by_name: dict[str, list[metadata.EntryPoint]] = {}
    seen: set[tuple[str, str, str]] = set()
    for entry_point in metadata.entry_points(group=GROUP):
        # One distribution can be on the path twice, as a wheel and as a source tree: that is no ambiguity.
        identity = (entry_point.name, distribution_of(entry_point)[0], entry_point.value)
        if identity not in seen:
            seen.add(identity)
            by_name.setdefault(entry_point.name, []).append(entry_point)
    return by_name


def _the_only(name: str, found: list[metadata.EntryPoint]) -> metadata.EntryPoint:
    if not found:
        raise BackendNotFound(f"no backend named {name!r} is installed; {_install_hint(name)}")
    if len(found) > 1:
        claimants = " and ".join(sorted(_origin(entry_point) for entry_point in found))
        raise AmbiguousBackend(f"the backend name {name!r} is claimed by {claimants}; uninstall all but one")
    return found[0]


def _install_hint(name: str) -> str:
    if name in _OUR_OWN:
        distribution, folder = _OUR_OWN[name]
        return f"install {distribution}: from a checkout, pip install . {folder}"
    present = ", ".join(sorted(_entry_points())) or "none"
    return f"installed are: {present}. Check the URL's scheme, or install the distribution that offers this backend"


def _load(entry_point: metadata.EntryPoint) -> BackendPlugin:
    name, origin = entry_point.name, _origin(entry_point)
    try:
        offered = _offered_by(entry_point)
    except pluggy.PluginValidationError as error:
        raise BackendInvalid(f"backend {name!r} of {origin} is not a valid plugin: {_line(error)}; {_MEND}") from error
    # SystemExit too: a module that calls sys.exit() at import must not end the program.
    except (Exception, SystemExit) as error:
        raise BackendLoadError(
            f"backend {name!r} of {origin} cannot be loaded: {type(error).__name__}: {_line(error)}; {_MEND}"
        ) from error
    return _check_plugin(name, origin, offered)


def _offered_by(entry_point: metadata.EntryPoint) -> list[Any]:
    """What the hook yields. Raises PluginValidationError, and whatever the plugin's own code does."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(BackendHooks)
    plugin = entry_point.load()
    manager.register(plugin, entry_point.name)
    manager.check_pending()
    if not manager.hook.cryptostore_backends.get_hookimpls():
        raise pluggy.PluginValidationError(
            plugin, f"{entry_point.value} has no function cryptostore_backends that is marked @hookimpl"
        )
    return [each for several in manager.hook.cryptostore_backends() for each in several]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _check_plugin(name: str, origin: str, offered: list[Any]) -> BackendPlugin:
    for plugin in offered:
        if isinstance(plugin, BackendPlugin) and plugin.name == name:
            _check_interface(plugin, origin)
            return plugin
    raise BackendInvalid(
        f"backend {name!r} of {origin} is not a valid plugin: its hook yields {_description_of(offered)}, but the "
        f"entry point is called {name!r}; {_MEND}"
    )


def _description_of(offered: list[Any]) -> str:
    found = [repr(each.name) if isinstance(each, BackendPlugin) else f"a {type(each).__name__}" for each in offered]
    return " and ".join(found) or "no BackendPlugin"


def _check_interface(plugin: BackendPlugin, origin: str) -> None:
    if not _is_version(plugin.interface):
        raise BackendInvalid(f"backend {plugin.name!r} of {origin} names no interface version (major, minor); {_MEND}")
    major, minor = INTERFACE_VERSION
    if plugin.interface[0] != major or plugin.interface[1] > minor:
        written_for = ".".join(map(str, plugin.interface))
        raise BackendIncompatible(
            f"backend {plugin.name!r} of {origin} was written for interface {written_for}; this matrix-cryptostore "
            f"speaks {major}.{minor}: install versions of the two that agree"
        )


def _is_version(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(part, int) for part in value)


def _inspect(name: str, found: list[metadata.EntryPoint]) -> InstalledBackend:
    distribution, version = distribution_of(found[0])
    try:
        return InstalledBackend(name, distribution, version, plugin=_load(_the_only(name, found)))
    except PluginError as error:
        return InstalledBackend(name, distribution, version, problem=str(error))


def _origin(entry_point: metadata.EntryPoint) -> str:
    return " ".join(distribution_of(entry_point))
