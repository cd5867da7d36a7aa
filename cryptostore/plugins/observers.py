"""Calling observer plugins, whose errors affect nothing else.

Those of other distributions are called where they are installed, our own where a setting names them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from importlib import import_module, metadata
from typing import Any, Final

import pluggy

from cryptostore.logs import logger

from .distributions import distribution_of
from .environment import variables as settings
from .hookspecs import PROJECT, ObserverHooks

GROUP: Final = "cryptostore.observers"

#: By its name, for it stands above: it uses what plugins use.
_OUR_OWN: Final = "cryptostore.observing.chosen"
_PREFIX: Final = "cryptostore_"

_log: Final = logger(__name__)


class Observers:
    """The observer plugins of this process, each in a plugin manager of its own so that one cannot hide another.

    Raises ConfigurationError for variables that name an observer which cannot be had.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._by_name: dict[str, pluggy.PluginManager] = {}
        #: Those that could not be loaded, by name, and why.
        self.left_out: dict[str, str] = {}
        for name, plugin in import_module(_OUR_OWN).chosen_observers(variables).items():
            self.add(name, plugin)
        for entry_point in metadata.entry_points(group=GROUP):
            # Two distributions may have chosen the same name; both are told.
            name = f"{distribution_of(entry_point)[0]}:{entry_point.name}" if entry_point.dist else entry_point.name
            try:
                self.add(name, entry_point.load())
            # SystemExit too: an observer's errors must not affect the store.
            except (Exception, SystemExit) as error:  # noqa: BLE001  # the same
                self.left_out[name] = f"{type(error).__name__}: {' '.join(str(error).split())}"
                _log.exception("observer '%s' cannot be loaded and is left out", name)

    @property
    def names(self) -> list[str]:
        """The observers that are told."""
        return list(self._by_name)

    def add(self, name: str, plugin: object) -> None:
        """Register one observer. Raises pluggy.PluginValidationError for a hook that does not exist."""
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(ObserverHooks)
        manager.register(plugin, name)
        manager.check_pending()
        self._by_name[name] = manager

    def remove(self, name: str) -> None:
        """Forget one observer; one that is not there is no error."""
        self._by_name.pop(name, None)

    def notify(self, hook: str, facts: dict[str, Any]) -> None:
        """Call one hook of every observer; one that raises is reported and dropped."""
        event = hook.removeprefix(_PREFIX)
        for name, manager in list(self._by_name.items()):
            try:
                getattr(manager.hook, hook)(**facts)
                manager.hook.cryptostore_event(event=event, facts=facts)
            except (Exception, SystemExit):  # noqa: BLE001  # the same
                _log.exception("observer '%s' raised in %s and is dropped", name, hook)
                self.remove(name)


_observers: Observers | None = None
_loading: Final = threading.Lock()


def load_observers(variables: Mapping[str, str]) -> Observers:
    """The process's observers; at the first call, those that are installed and those that these variables name.

    Raises ConfigurationError for variables that name an observer which cannot be had.
    """
    global _observers
    with _loading:
        if _observers is None:
            _observers = Observers(variables)
        return _observers


def observers() -> Observers:
    """As `load_observers`, at the first call with the environment and `.env`, whose errors it raises, too."""
    return _observers or load_observers(settings())


def notify(hook: str, **facts: Any) -> None:
    """Tell every observer plugin of this process."""
    observers().notify(hook, facts)
