"""What an error that the homeserver answers means for a client that keeps its login."""

from __future__ import annotations

from typing import Final

from nio import ErrorResponse

from cryptostore.errors import AccessTokenRejected, ConfigurationError, CryptoStoreError, HomeserverUnavailable

#: What a client makes of a body that is not JSON, such as a proxy's page.
NOT_JSON: Final = "M_NOT_JSON"
#: What a homeserver says about a token that is no longer good.
_REJECTED_TOKEN: Final = frozenset({"M_UNKNOWN_TOKEN", "M_MISSING_TOKEN"})
#: HTTP statuses of a homeserver that says no.
_REFUSALS: Final = frozenset({400, 401, 403})

#: HTTP statuses that another time may be others. A token that is rejected ends the syncs, which say so.
PASSING_STATUSES: Final = frozenset({401, 408, 425, 429})


def is_homeservers(errcode: str | None) -> bool:
    """Whether the homeserver itself has answered this error, and not a proxy in its place."""
    return errcode not in (None, "", NOT_JSON)


def is_token_rejected(answer: ErrorResponse) -> bool:
    """Whether only a new login helps."""
    return answer.status_code in _REJECTED_TOKEN


def failure(text: str, answer: ErrorResponse) -> CryptoStoreError:
    """The error to raise for `answer`: a person has to look only where the homeserver itself refuses."""
    # nio's annotation is that of its client without asyncio.
    status = getattr(answer.transport_response, "status", None)
    return error_for(f"{text}: {answer}", status, answer.status_code)


def error_for(text: str, status: int | None, errcode: str | None) -> CryptoStoreError:
    """As `failure`, by the HTTP status and the error code of an answer."""
    if errcode in _REJECTED_TOKEN:
        return AccessTokenRejected(text)
    refused = status in _REFUSALS and is_homeservers(errcode)
    return (ConfigurationError if refused else HomeserverUnavailable)(text)
