"""What the homeserver has of a user's cross-signing identity and secret storage, checked as another client would."""

from __future__ import annotations

from typing import Any, Final

from cryptostore.trust import recovery_key, secret_storage
from cryptostore.trust.cross_signing import SECRET_NAMES, PublicIdentity, Seeds, public_identity
from cryptostore.trust.secret_storage import KEY_DESCRIPTION, KeyDescription
from homeserver_api import Api, User

BACKUP: Final = "m.megolm_backup.v1"


def identity_of(api: Api, user: User) -> PublicIdentity | None:
    """The user's identity, its signatures verified."""
    return public_identity(user.user_id, api.keys_of(user, user))


def is_signed(api: Api, user: User, device_id: str) -> bool:
    """Whether the user's present identity has signed the device."""
    answer = api.keys_of(user, user)
    identity = public_identity(user.user_id, answer)
    return identity is not None and identity.signs_device(answer["device_keys"][user.user_id].get(device_id))


def opened(api: Api, user: User, kept: str) -> dict[str, bytes]:
    """The secrets in the user's secret storage, opened by a recovery key. Raises ValueError if it is not the one."""
    key = recovery_key.decode(kept)
    key_id = secret_storage.default_key_id(api.account_data(user, "m.secret_storage.default_key"))
    assert key_id is not None
    description = KeyDescription.parse(key_id, api.account_data(user, KEY_DESCRIPTION + key_id))
    assert description is not None
    description.check(key)
    found: dict[str, Any] = {
        name: secret_storage.open_secret(name, key_id, key, api.account_data(user, name))
        for name in (*SECRET_NAMES, BACKUP)
    }
    return {name: secret for name, secret in found.items() if secret is not None}


def assert_whole(api: Api, user: User, device_id: str, kept: str) -> PublicIdentity:
    """Fail unless the user has one identity, all of it in secret storage, and it has signed the device."""
    identity = identity_of(api, user)
    assert identity is not None
    secrets = opened(api, user, kept)
    assert secrets.keys() == {*SECRET_NAMES, BACKUP}
    seeds = Seeds.of(secrets)
    assert seeds is not None
    assert seeds.public == identity.public_keys
    assert is_signed(api, user, device_id)
    return identity
