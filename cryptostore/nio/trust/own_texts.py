"""What an operator is told of the account's identity: what it means, and what to do."""

from __future__ import annotations

from typing import Final

from .own_steps import IdentityState

_UNSIGNED: Final = (
    "this device is not signed by its owner, so Element neither sends it room keys nor shows what it sends"
)
_RESTORE: Final = (
    "give the account's recovery key or passphrase, as recovery_key=... or in CRYPTOSTORE_RECOVERY_KEY, or in a file "
    "that CRYPTOSTORE_RECOVERY_KEY_FILE names; or verify this device from a session of the account that is verified; "
    "or replace the identity with reset_identity(), which everybody is warned of who has verified the account"
)

#: Written before an identity is replaced.
RESET: Final = (
    "the cross-signing identity of %s is replaced: everybody who verified the account is warned and has to verify it "
    "again, other sessions of the account are not signed any more, and the former recovery key opens nothing"
)

_ADVICE: Final = {
    IdentityState.UNSUPPORTED: f"{_UNSIGNED}: the homeserver has no cross-signing",
    IdentityState.NO_IDENTITY: f"{_UNSIGNED}: the account has no identity; login_or_restore() makes one",
    IdentityState.OTHER_IDENTITY: f"{_UNSIGNED}: another client made the account's identity; {_RESTORE}",
    IdentityState.LOCKED_STORAGE: (
        f"{_UNSIGNED}: the account has no identity, but secret storage of another client, which is not overwritten; "
        f"{_RESTORE}"
    ),
    IdentityState.STALE_SIGNATURE: (
        f"{_UNSIGNED}: the homeserver keeps the signature of another device that had this device id, and takes no new "
        "one. A device id belongs to one store: where that was lost, log in as a new device, without device_id=..., "
        "so that login_or_restore() makes a new one"
    ),
    IdentityState.REFUSED: f"{_UNSIGNED}: the homeserver did not do what it was asked",
    IdentityState.UNREADABLE: (
        "secrets of the account's identity cannot be read, so nothing was done about it; this device stays as it is"
    ),
}


def advice(state: IdentityState, why: str) -> str:
    """What to log; empty where all is well."""
    text = _ADVICE.get(state, "")
    return f"{text} ({why})" if text and why else text or why
