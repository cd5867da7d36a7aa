"""The observers that settings switch on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from cryptostore.errors import ConfigurationError
from cryptostore.plugins.urls import absolute

from . import log_lines
from .audit import VARIABLE as AUDIT_LOG
from .audit import AuditLog

#: Names observers, with commas between them.
VARIABLE: Final = "CRYPTOSTORE_OBSERVERS"


def chosen_observers(variables: Mapping[str, str]) -> dict[str, object]:
    """The plugins that these variables switch on, by their names.

    Raises ConfigurationError for a name that there is not, for one whose library is not installed, and for an audit log
    that cannot be written: who asked for an observer is not to find out later that there was none.
    """
    found = {plugin: made for name in named_observers(variables) for plugin, made in _BY_NAME[name]().items()}
    if file := variables.get(AUDIT_LOG, ""):
        found["audit"] = AuditLog(absolute(file))
    return found


def named_observers(variables: Mapping[str, str]) -> list[str]:
    """The names in the variable. Raises ConfigurationError for one that there is not."""
    names = [each.strip() for each in variables.get(VARIABLE, "").split(",") if each.strip()]
    for name in names:
        if name not in _BY_NAME:
            hint = f"; the audit log is switched on by {AUDIT_LOG}" if name == "audit" else ""
            raise ConfigurationError(f"{VARIABLE} names {name!r}; it takes {' and '.join(_BY_NAME)}{hint}")
    return names


def _opentelemetry() -> dict[str, object]:
    try:
        from .metrics import Metrics
        from .spans import Spans
    except ImportError as error:
        raise ConfigurationError(
            f"{VARIABLE} names opentelemetry, and its library cannot be imported ({error}): `pip install "
            "opentelemetry-api`, and an SDK with an exporter, or take it out"
        ) from error
    return {"opentelemetry metrics": Metrics(), "opentelemetry traces": Spans()}


_BY_NAME: Final[Mapping[str, Callable[[], dict[str, object]]]] = {
    "logging": lambda: {"logging": log_lines},
    "opentelemetry": _opentelemetry,
}
