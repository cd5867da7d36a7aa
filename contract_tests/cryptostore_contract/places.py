"""Somewhere in a live database for the suite to work in: empty databases beside what is there, and none left behind."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit
from uuid import uuid4

from cryptostore import ConfigurationError, load_backend
from cryptostore.plugins.plugin import MakeScratch
from cryptostore.plugins.urls import scheme_of

#: Before every name that the suite gives to what it makes.
_PREFIX: Final = "cryptostore_contract_"


class Place(ABC):
    """Where one run of the suite makes its databases. Any process makes the same place of the same URL and run."""

    def __init__(self, url: str, run: str) -> None:
        self.url: Final = url
        self.name: Final = f"{_PREFIX}{run}"

    @abstractmethod
    def new_url(self) -> str:
        """The URL of a database that is not there yet."""

    @abstractmethod
    def prepare(self) -> None:
        """Make room, once for a run. Raises ConfigurationError."""

    @abstractmethod
    def remove(self, url: str) -> None:
        """Remove one database."""

    @abstractmethod
    def clear(self) -> None:
        """Remove all that the run has made."""


class MemoryPlace(Place):
    """Names in this process."""

    def new_url(self) -> str:
        return f"memory://{uuid4()}"

    def prepare(self) -> None:
        pass  # a name is free

    def remove(self, url: str) -> None:
        pass  # a few dictionaries under a name that is not used again

    def clear(self) -> None:
        pass  # gone with the process


class FolderPlace(Place):
    """A folder beside the file or folder that the URL names, on the same disk."""

    def new_url(self) -> str:
        parts = urlsplit(self.url)
        path = quote(str(self._folder / uuid4().hex))
        return f"{parts.scheme}:///{path}" + (f"?{parts.query}" if parts.query else "")

    def prepare(self) -> None:
        try:
            self._folder.mkdir(mode=0o700)
        except OSError as error:
            raise ConfigurationError(
                f"the suite cannot make a folder of its own in {self._folder.parent}: {error.strerror}; "
                "name a path in a folder that exists and may be written"
            ) from error

    def remove(self, url: str) -> None:
        name = Path(unquote(urlsplit(url).path)).name
        for path in self._folder.glob(f"{name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def clear(self) -> None:
        shutil.rmtree(self._folder)

    @property
    def _folder(self) -> Path:
        return Path(unquote(urlsplit(self.url).path[1:])).absolute().parent / f".{self.name}"


class PluginsPlace(Place):
    """What the backend's plugin makes room in."""

    def __init__(self, url: str, run: str, make: MakeScratch) -> None:
        super().__init__(url, run)
        self._scratch: Final = make(url, self.name)

    def new_url(self) -> str:
        return self._scratch.new_url()

    def prepare(self) -> None:
        pass  # made with the first database, or with the place

    def remove(self, url: str) -> None:
        self._scratch.remove(url)

    def clear(self) -> None:
        self._scratch.clear()


def place_for(url: str, run: str) -> Place:
    """The place that a URL calls for. Raises ConfigurationError for one in which the suite cannot make its own."""
    scheme = scheme_of(url)
    if scheme == "memory":
        return MemoryPlace(url, run)
    scratch = load_backend(scheme).scratch
    if scratch is not None:
        return PluginsPlace(url, run, scratch)
    parts = urlsplit(url)
    if parts.netloc or len(parts.path) < 2:
        raise ConfigurationError(
            f"the suite would not touch your database, and does not know how to make one of its own beside it: the "
            f"backend of {scheme}:// offers no `scratch` (see BackendPlugin), and only for paths ({scheme}:///PATH) it "
            "can do without; write a Harness, or ask the backend's authors"
        )
    return FolderPlace(url, run)
