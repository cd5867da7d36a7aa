"""The steps of what a backend does: its calls to its driver, and what can be made to happen behind one of them.

A step is seen by Python's profiler, as the return of a function of the driver's to code of the backend's. So it needs
no help from the backend, and takes no lock of its away: an interrupt comes where a signal would be noticed.
"""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any, Final

from cryptostore import load_backend

from .observed import Unverifiable

#: What of Python itself is a driver. Everything else in it may be a lock, and is passed over.
_DRIVERS: Final = frozenset({"sqlite3", "dbm", "socket", "ssl", "http"})
_STANDARD: Final = frozenset(sys.stdlib_module_names)

#: Calls to the file system, the driver's and all others.
_FILES: Final = frozenset({"posix", "_io"})
_CHANGES: Final = frozenset({"open", "write", "truncate", "ftruncate", "fsync", "rename", "replace", "link", "unlink"})
_NO_FILES: Final = ("StringIO", "BytesIO")

#: Py_TPFLAGS_HEAPTYPE: a type that was made while the program ran, as those of extensions are.
_HEAP_TYPE: Final = 1 << 9
_RUST: Final = "a driver in Rust"

#: Packages whose code is a backend's, beside the plugin's own.
BACKENDS: Final = {"contract_mutants"}


class Steps:
    """Counts the steps of one call, in the thread that makes it, and does something behind one of them.

    `with_files` counts calls that change files as well.
    """

    def __init__(
        self, scheme: str, step: int = 0, then: Callable[[], None] = lambda: None, *, with_files: bool = False
    ) -> None:
        self._backends = BACKENDS | {_root(load_backend(scheme).open.__module__)}
        self._with_files = with_files
        self._step = step
        self._then = then
        self.count = 0

    def during(self, call: Callable[[], object]) -> None:
        """Make the call."""
        # What others do when garbage is collected is no step of the backend's.
        gc.disable()
        sys.setprofile(self._hook)
        try:
            call()
        finally:
            sys.setprofile(None)
            gc.enable()

    @property
    def was_reached(self) -> bool:
        """Whether the call came to the step."""
        return 0 < self._step <= self.count

    def _hook(self, frame: FrameType, event: str, argument: Any) -> None:
        if not self._is_step(frame, event, argument):
            return
        self.count += 1
        if self.count == self._step:
            self._then()

    def _is_step(self, frame: FrameType, event: str, argument: Any) -> bool:
        if event == "c_return":
            is_drivers = self._is_backend(frame) and self._is_driver(_home(argument))
            return is_drivers or (self._with_files and _changes_files(argument))
        return event == "return" and self._is_backend(frame.f_back) and self._is_driver(_package(frame))

    def _is_backend(self, frame: FrameType | None) -> bool:
        return frame is not None and _package(frame) in self._backends

    def _is_driver(self, package: str) -> bool:
        # What is no module is code that Python has made up, as for named tuples.
        is_others = package in sys.modules and package not in {*_STANDARD, *self._backends, "cryptostore", __package__}
        return package in {_RUST, *_DRIVERS} or is_others


def _changes_files(function: Any) -> bool:
    is_file = _home(function) in _FILES and getattr(function, "__name__", "") in _CHANGES
    return is_file and not function.__qualname__.startswith(_NO_FILES)


def _package(frame: FrameType) -> str:
    return _root(frame.f_globals.get("__name__", ""))


def _home(function: Any) -> str:
    """The package of a function in C."""
    owner = getattr(function, "__self__", None)
    if isinstance(owner, ModuleType):
        return _root(owner.__name__)
    if owner is not None:
        return _home_of_type(owner if isinstance(owner, type) else type(owner))
    return _root(getattr(function, "__module__", None) or "")


def _home_of_type(its_type: type) -> str:
    # A type of a driver in Rust says that it is one of Python's.
    is_rusts = its_type.__module__ == "builtins" and its_type.__flags__ & _HEAP_TYPE
    return _RUST if is_rusts else _root(its_type.__module__)


def _root(module: str) -> str:
    return module.partition(".")[0]


def require_steps(steps: int) -> None:
    """Leave the case unverified where the suite saw no step of a call."""
    if not steps:
        raise Unverifiable("a driver whose calls the suite can see")


def interrupted(scheme: str, step: int, call: Callable[[], object]) -> bool:
    """Make a call into which Ctrl-C comes behind a step. Whether it came to that step; it has ended anyhow."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    steps = Steps(scheme, step, interrupt)
    with warnings.catch_warnings():
        # A connection that was made, and of which nothing had the time to take note, is closed as garbage.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            steps.during(call)
        except BaseException:
            # What a backend makes of an interrupt is its own affair.
            if not steps.was_reached:
                raise
        gc.collect()
    return steps.was_reached
