"""nio's own verifications are switched off, and say what takes their place.

nio knows neither requests nor master keys, and answers in the middle of a verification with keys of its own.
"""

from __future__ import annotations

from typing import Any

from nio import LocalProtocolError
from nio.crypto import Olm, OlmDevice


class OlmWithoutVerifications(Olm):
    """nio's machine, which neither answers nor begins a verification. The events reach callbacks all the same."""

    def load(self) -> None:
        """As nio's."""
        super().load()
        self.key_verifications = _NoVerifications()

    def handle_key_verification(self, _event: Any) -> None:
        """Do nothing."""

    def clear_verifications(self) -> list[Any]:
        """Nothing: there are none of nio's."""
        return []

    def create_sas(self, _olm_device: OlmDevice) -> Any:
        """Raise LocalProtocolError."""
        raise _error()


class _NoVerifications(dict[str, Any]):
    """The verifications that nio knows: none. Who looks for one is told where they are."""

    def __contains__(self, _transaction_id: object) -> bool:
        raise _error()


def _error() -> LocalProtocolError:
    return LocalProtocolError(
        "this client verifies as Element does: `client.on_verification(callback)` is told of the requests of others, "
        "and `await client.request_verification(user_id)` asks them; nio's own key verifications are off"
    )
