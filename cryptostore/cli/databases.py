"""What the commands ask of a database before they use it."""

from __future__ import annotations

from cryptostore.errors import ConfigurationError
from cryptostore.plugins import load_backend
from cryptostore.plugins.capabilities import Capability, Support
from cryptostore.plugins.loading import shown_url
from cryptostore.plugins.urls import scheme_of
from cryptostore.records import KINDS_BY_NUMBER
from cryptostore.store.ring import RING_KEYS


def refuse_process_local(url: str) -> None:
    """Raise ConfigurationError for a database that a process takes with it when it ends."""
    claim = load_backend(scheme_of(url)).claim(Capability.SURVIVES_PROCESS_KILL)
    if claim.support in (Support.UNSUPPORTED, Support.NOT_IMPLEMENTED):
        raise ConfigurationError(
            f"{shown_url(url)} keeps nothing beyond its process ({claim.reason}); use another backend: "
            "`cryptostore backends` lists what is installed"
        )


def kind_name(number: int) -> str:
    """What people call the kind of record with this number; a newer program may have kinds that this one does not."""
    if bytes([number]) in RING_KEYS:
        return "key_ring"
    kind = KINDS_BY_NUMBER.get(number)
    return f"kind {number}" if kind is None else kind.kind_name
