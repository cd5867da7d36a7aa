"""Says which end-to-end tests a run left out (Synapse must be installed first), and shows the figures of the others."""

from __future__ import annotations

from typing import Any, Final

import pytest

#: The user property of a figure that the end of the run shows.
FIGURE: Final = "cryptostore_figure"

_LEFT_OUT: Final = pytest.StashKey[int]()
_WORKER_KEY: Final = "cryptostore_e2e_left_out"


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count the end-to-end tests that this run leaves out."""
    config = items[0].config
    left_out = sum(item.get_closest_marker("e2e") is not None for item in items)
    config.stash[_LEFT_OUT] = config.stash.get(_LEFT_OUT, 0) + left_out
    if hasattr(config, "workeroutput"):
        config.workeroutput[_WORKER_KEY] = config.stash[_LEFT_OUT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Every worker of pytest-xdist leaves the same tests out, and only the workers do."""
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get(_WORKER_KEY, 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what did not run, and show the figures that tests recorded."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, value in getattr(report, "user_properties", ()):
            if name == FIGURE:
                terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {value}")
    if left_out := config.stash.get(_LEFT_OUT, 0):
        terminalreporter.write_line(f"not run: {left_out} end-to-end tests; run them with tox run -e e2e, or soak")
