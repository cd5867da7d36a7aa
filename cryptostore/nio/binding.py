"""Classes of stores that are bound to a database, so that the `store_path` of a client stays a folder."""

from __future__ import annotations

import copyreg
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from cryptostore.errors import ConfigurationError
from cryptostore.plugins.loading import shown_url

from .store_paths import is_url

if TYPE_CHECKING:
    from .store import NioStore

S = TypeVar("S", bound="NioStore")


class BoundStore(type):
    """The type of such classes: pickling one pickles its URL, since no module has it under its name."""


def bound(store: type[S], url: str) -> type[S]:
    """A subclass of `store` for the database that `url` names, the same one each time. Raises ConfigurationError."""
    if not is_url(url):
        raise ConfigurationError(
            f"{store.__name__}.at(url) takes the URL of a database, such as sqlite:///keys.db or "
            "postgresql://host/database; the folder stays the client's store_path"
        )
    made: type[S] = _bound(store, url)  # type: ignore[arg-type]  # mypy takes the hash of stores for that of the class
    return made


@cache
def _bound(store: Any, url: str) -> Any:
    name = f"{store.__name__}.at({shown_url(url)!r})"
    members = {"bound_to": url, "__module__": store.__module__, "__doc__": store.__doc__}
    # Pickle and the repr go by the qualified name, which is the name of a class that a call makes.
    return BoundStore(name, (store,), members)


def _reduced(store: type[NioStore]) -> str | tuple[Any, ...]:
    # A class that a program derives from a bound one has a name in its module.
    return (bound, (store.__base__, store.bound_to)) if "bound_to" in vars(store) else store.__qualname__


copyreg.pickle(BoundStore, _reduced)  # type: ignore[arg-type]  # typeshed knows only how instances are pickled
