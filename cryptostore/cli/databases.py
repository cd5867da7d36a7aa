"""What the commands ask of a database before they use it."""

from __future__ import annotations

from cryptostore.capabilities import Capability, Support
from cryptostore.errors import ConfigurationError
from cryptostore.plugins import load_backend
from cryptostore.urls import redact, scheme_of


def refuse_process_local(url: str) -> None:
    """Raise ConfigurationError for a database that a process takes with it when it ends."""
    claim = load_backend(scheme_of(url)).claim(Capability.SURVIVES_PROCESS_KILL)
    if claim.support in (Support.UNSUPPORTED, Support.NOT_IMPLEMENTED):
        raise ConfigurationError(
            f"{redact(url)} keeps nothing beyond its process ({claim.reason}); use another backend: "
            "`cryptostore backends` lists what is installed"
        )
