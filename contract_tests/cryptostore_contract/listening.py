"""All that a process says while a case runs: its log, whatever a logger would do with a line, warnings, and output."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

#: What the suite itself says, to be sure that it hears.
_CONTROL: Final = "said by the contract suite, to hear itself"


@contextmanager
def listening(capfd: pytest.CaptureFixture[str]) -> Iterator[list[str]]:
    """A list to which everything comes that is logged, at any level, and at the end warnings and output."""
    said: list[str] = []
    formatter = logging.Formatter()
    capfd.readouterr()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as warned:
        # Also those that are ignored, or that were shown once.
        warnings.simplefilter("always")
        # Neither a level of its own nor handlers of its own, which keep lines from the root, hide what a logger says.
        patch.setattr(logging.Logger, "isEnabledFor", lambda _logger, _level: True)
        patch.setattr(logging.Logger, "handle", lambda _logger, record: said.append(formatter.format(record)))
        _say_something()
        yield said
    # Without the places in the code.
    said.extend(f"{warning.message!r} {warning.message}" for warning in warned)
    said.extend(capfd.readouterr())
    assert len([text for text in said if _CONTROL in text]) == 4, "log lines, warnings or output are not heard"


def _say_something() -> None:
    quiet = logging.getLogger("cryptostore_contract.control")
    quiet.setLevel(logging.CRITICAL)
    quiet.propagate = False
    quiet.debug(_CONTROL)
    warnings.warn(_CONTROL, ImportWarning, stacklevel=2)
    # Below Python's own streams: drivers in C write there.
    for stream in (1, 2):
        os.write(stream, f"{_CONTROL}\n".encode())
