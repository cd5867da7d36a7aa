"""The description of a backend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from cryptostore.store.interface import Database

from .capabilities import Capability, Claim, Support
from .findings import Finding


class OpenDatabase(Protocol):
    """How a plugin opens its database, in one attempt of at most `timeout` seconds.

    `options` are those of the URL's query and those given in Python, which win; `deadline` and `owner` are the core's
    and not among them. Raises ConfigurationError, also for an option that it does not know, BackendUnavailable,
    SchemaError, StorageFull. An attempt that fails leaves nothing open.
    """

    def __call__(self, url: str, options: Mapping[str, Any], timeout: float) -> Database: ...


class Setting(NamedTuple):
    """A setting of a database as people may see it, secrets masked, and where it comes from."""

    name: str
    value: str
    origin: str
    #: What else is set, and is not in force because of this one.
    hides: str = ""


class DescribeSettings(Protocol):
    """What would be in force if this URL were opened with these options, defaults included. Opens nothing.

    Raises ConfigurationError as opening does, for what shows before anything is opened.
    """

    def __call__(self, url: str, options: Mapping[str, Any]) -> Iterable[Setting]: ...


class Scratch(Protocol):
    """Room for empty databases of a test run, beside the one that a URL names, which is not touched.

    Every process makes the same of the same URL and name.
    """

    def new_url(self) -> str:
        """The URL of a database that is not there yet; opening it makes it, or it was made here."""

    def remove(self, url: str) -> None:
        """Remove one database. Raises BackendUnavailable."""

    def clear(self) -> None:
        """Remove all databases of this name, those of processes that are gone included. Raises BackendUnavailable."""


class MakeScratch(Protocol):
    """How a plugin makes room. `name` has letters, digits and underscores, 33 at most, and begins what is made.

    Raises ConfigurationError.
    """

    def __call__(self, url: str, name: str) -> Scratch: ...


class Diagnose(Protocol):
    """What a plugin can say of a database that opens, or does not, for `cryptostore doctor`.

    Takes what `OpenDatabase` takes. It yields a finding for each thing that it looked at, goes on after a fault with
    what can still be looked at, and changes nothing: it makes no table and no file. What it raises ends it, and counts
    as a problem that keeps the database from being opened.
    """

    def __call__(self, url: str, options: Mapping[str, Any], timeout: float) -> Iterable[Finding]: ...


@dataclass(frozen=True)
class BackendPlugin:
    """A backend: its name, the interface version that it was written for, how to open it, and what it can do.

    A capability that is not named counts as unknown. `shown_options` names the options of its URLs that errors and
    commands may show; every other one is hidden, since it may be a secret. `scratch` is where `cryptostore contract`
    works on a server; a backend whose URLs are paths needs none. With the options `existing_only`, opening makes no
    database: commands that only look at one give them, so that a mistyped URL leaves nothing behind. `settings` is what
    `cryptostore config` shows; without it, that knows the options in the URL alone. `diagnose` is what
    `cryptostore doctor` asks beside what it sees of every database.
    """

    name: str
    interface: tuple[int, int]
    open: OpenDatabase
    capabilities: Mapping[Capability, Claim] = field(default_factory=dict)
    shown_options: frozenset[str] = frozenset()
    scratch: MakeScratch | None = None
    existing_only: Mapping[str, str] = field(default_factory=dict)
    settings: DescribeSettings | None = None
    diagnose: Diagnose | None = None

    def claim(self, capability: Capability) -> Claim:
        """The plugin's statement about one capability."""
        return self.capabilities.get(capability, Claim(Support.UNKNOWN))
