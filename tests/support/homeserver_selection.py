"""Which runs the end-to-end tests belong to: those that ask for them, because Synapse must be installed first."""

from __future__ import annotations

from typing import Any, Final

import pytest

#: The user property of a figure that the end of the run shows.
FIGURE: Final = "cryptostore_figure"

_LEFT_OUT: Final = pytest.StashKey[int]()
_WORKER_KEY: Final = "cryptostore_e2e_left_out"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the end-to-end tests to `-m e2e`, and their soak to `-m soak`."""
    chosen = config.option.markexpr
    left_out = [item for item in items if item.get_closest_marker("e2e") and not _asked_for(item, chosen)]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
    config.stash[_LEFT_OUT] = len(left_out)
    if hasattr(config, "workeroutput"):
        config.workeroutput[_WORKER_KEY] = len(left_out)


def _asked_for(item: pytest.Item, chosen: str) -> bool:
    return "soak" in chosen if item.get_closest_marker("soak") else "e2e" in chosen


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
