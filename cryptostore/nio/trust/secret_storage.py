"""The account's secret storage on the homeserver: secrets in account data, encrypted with a key that a person keeps.

Matrix specification, "Secrets": `m.secret_storage.default_key` names the key, whose description is account data, too.
There is no way to lock it, and none to delete: what was removed has an empty content.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

from cryptostore.errors import ConfigurationError, InvalidRecord
from cryptostore.nio.client.threads import in_thread
from cryptostore.records import Secret
from cryptostore.records.trust_kinds import NEVER
from cryptostore.trust import recovery_key, secret_storage
from cryptostore.trust.cross_signing import SECRET_NAMES
from cryptostore.trust.key_backup import KEY_BACKUP
from cryptostore.trust.secret_storage import (
    DEFAULT_KEY,
    KEY_DESCRIPTION,
    KeyDescription,
    Passphrase,
    WrongSecretStorageKey,
)

from .own_steps import Storage
from .requests import Requests

#: Everything that secret storage holds for this project, the key of the backup last.
NAMES: Final = (*SECRET_NAMES, KEY_BACKUP)
#: How many keys' descriptions are asked for, whatever account data says.
_MOST_KEYS: Final = 8


class StorageKey(NamedTuple):
    """A key of secret storage, with what account data says of it."""

    key: bytes
    description: KeyDescription

    def __repr__(self) -> str:
        return f"<StorageKey {self.description.key_id}>"

    @property
    def key_id(self) -> str:
        """Its name in secret storage."""
        return self.description.key_id


class Contents(NamedTuple):
    """What secret storage had when it was read, by the types of the account data."""

    by_type: Mapping[str, Any]

    def description(self, key_id: str) -> Any:
        """What describes this key; `{}` where there is nothing."""
        return self.by_type.get(KEY_DESCRIPTION + key_id) or {}

    @property
    def key_ids(self) -> list[str]:
        """The keys that secrets are, or are to be, encrypted with: the default one first, if it is described."""
        default = _default_key(self.by_type)
        named = [default] if default is not None and self.description(default) else []
        others = {key_id for name in NAMES for key_id in encrypted_for(self.by_type.get(name))}
        return [*named, *sorted(others.difference(named))]

    def is_main(self, held: StorageKey) -> bool:
        """Whether this is the key that secrets are to be encrypted with."""
        return self.key_ids[:1] == [held.key_id]

    def secret(self, name: str, held: StorageKey) -> bytes | None:
        """A secret, or None where none can be read with this key."""
        try:
            return secret_storage.open_secret(name, held.key_id, held.key, self.by_type.get(name))
        except ValueError:
            return None

    def judge(self, held: StorageKey | None, wanted: Mapping[str, bytes]) -> Storage:
        """How it compares to the secrets that it is to hold. Any backup key will do: a person may have made one."""
        if not self.key_ids:
            return Storage.LOCKED if any(map(_is_encrypted, map(self.by_type.get, NAMES))) else Storage.ABSENT
        if held is None or not self.is_main(held):
            return Storage.LOCKED
        return Storage.INCOMPLETE if self.missing(held, wanted) or not wanted else Storage.WHOLE

    def missing(self, held: StorageKey, wanted: Mapping[str, bytes]) -> list[str]:
        """The types of account data that are to be written, in a safe order: the description first, the default last.

        Another client replaces an identity whose seeds are not all there, and stumbles over a default key that nothing
        describes.
        """
        is_default = _default_key(self.by_type) == held.key_id
        described = bool(self.description(held.key_id))
        secrets = [name for name in wanted if not self._has(name, held, wanted[name])]
        return [
            *([] if described else [held.description.event_type]),
            *secrets,
            *([] if is_default and described else [DEFAULT_KEY]),
        ]

    def _has(self, name: str, held: StorageKey, wanted: bytes) -> bool:
        found = self.secret(name, held)
        return found is not None and (name == KEY_BACKUP or found == wanted)


class RecoveryKey:
    """What a person gave to open secret storage: a recovery key, or a passphrase. The repr shows nothing of it.

    Raises ConfigurationError for a recovery key that is mistyped.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        try:
            self._key: bytes | None = recovery_key.decode(text)
        except recovery_key.NotARecoveryKey:
            self._key = None
        except recovery_key.DamagedRecoveryKey as error:
            raise ConfigurationError(str(error)) from None

    async def new(self, threads: ThreadPoolExecutor) -> StorageKey:
        """A key for a new secret storage that this will open."""
        if self._key is not None:
            return StorageKey(self._key, KeyDescription.make(self._key))
        passphrase = Passphrase.new()
        key = await in_thread(threads, passphrase.derive, self._text)
        return StorageKey(key, KeyDescription.make(key, passphrase))

    async def opens(self, description: KeyDescription, threads: ThreadPoolExecutor) -> StorageKey:
        """The key of an existing secret storage. Raises ValueError if this is not it."""
        if self._key is None:
            return StorageKey(await in_thread(threads, description.from_passphrase, self._text), description)
        description.check(self._key)
        return StorageKey(self._key, description)


def new_storage_key() -> StorageKey:
    """A key for a new secret storage."""
    key = secret_storage.new_key()
    return StorageKey(key, KeyDescription.make(key))


async def opened(contents: Contents, given: RecoveryKey | None, threads: ThreadPoolExecutor) -> StorageKey:
    """The key that a recovery key or passphrase stands for. The default key is tried first, then the others.

    Raises ConfigurationError if it opens nothing, with the reason of the first.
    """
    problem = ValueError("the secret storage has no key that is described")
    if given is None:
        raise ConfigurationError("the account's secret storage needs a recovery key or passphrase, and none was given")
    for number, key_id in enumerate(contents.key_ids):
        try:
            description = KeyDescription.parse(key_id, contents.description(key_id))
            if description is not None:
                held = await given.opens(description, threads)
                _check_unchecked(contents, held)
                return held
        except ValueError as error:
            problem = error if number == 0 else problem
    raise ConfigurationError(
        f"the recovery key or passphrase does not open the account's secret storage: {problem}. Give the one that the "
        "client shows which set it up"
    )


def _check_unchecked(contents: Contents, held: StorageKey) -> None:
    """A key whose description has no check value is right if it opens a secret."""
    if not held.description.can_check and not any(contents.secret(name, held) for name in NAMES):
        raise WrongSecretStorageKey(f"no secret was encrypted with it as {held.key_id!r}")


class SecretStorage:
    """Reads and writes the account's secret storage."""

    def __init__(self, requests: Requests, user_id: str) -> None:
        self._requests = requests
        self._user_id = user_id

    async def read(self) -> Contents:
        """What is there now. Raises HomeserverUnavailable, and ConfigurationError where the homeserver refuses."""
        found = await self._get_all([DEFAULT_KEY, *NAMES])
        default = _default_key(found)
        others = sorted({key_id for name in NAMES for key_id in encrypted_for(found[name])} - {default})
        key_ids = [*([] if default is None else [default]), *others][:_MOST_KEYS]
        return Contents(found | await self._get_all([KEY_DESCRIPTION + key_id for key_id in key_ids]))

    async def write(self, held: StorageKey, wanted: Mapping[str, bytes], before: Contents) -> None:
        """Put what is missing there, each after the homeserver has taken the one before. Raises what `read` raises."""
        for kind in before.missing(held, wanted):
            await self._put(kind, _content(kind, held, wanted))

    async def clear(self, held: StorageKey, ours: Mapping[str, bytes]) -> None:
        """Remove this key and these secrets, as far as they are still there. Raises what `read` raises.

        Another client may have put its own there since.
        """
        now = await self.read()
        if _default_key(now.by_type) == held.key_id:
            await self._put(DEFAULT_KEY, {})
        for name, secret in ours.items():
            if now.secret(name, held) == secret:
                await self._put(name, {})
        if now.description(held.key_id):
            await self._put(held.description.event_type, {})

    async def _get_all(self, kinds: Iterable[str]) -> dict[str, Any]:
        kinds = list(kinds)
        return dict(zip(kinds, await asyncio.gather(*map(self._get, kinds)), strict=True))

    async def _get(self, kind: str) -> Any:
        answer = await self._requests.ask("GET", "user", self._user_id, "account_data", kind)
        # Also proxies answer 404, to odd key ids among others; and what is taken for absent is written over.
        if answer.is_missing and (answer.errcode == "M_NOT_FOUND" or kind.startswith(KEY_DESCRIPTION)):
            return {}
        if not answer.is_ok:
            raise answer.failure(f"the homeserver does not say what {kind} of the account is")
        return answer.content

    async def _put(self, kind: str, content: Mapping[str, Any]) -> None:
        answer = await self._requests.ask("PUT", "user", self._user_id, "account_data", kind, content=content)
        if not answer.is_ok:
            raise answer.failure(f"the homeserver does not take {kind} into the account's secret storage")


def _content(kind: str, held: StorageKey, wanted: Mapping[str, bytes]) -> Mapping[str, Any]:
    if kind == DEFAULT_KEY:
        return {"key": held.key_id}
    if kind == held.description.event_type:
        return held.description.content()
    return secret_storage.seal(kind, held.key_id, held.key, wanted[kind])


def encrypted_for(content: Any) -> set[str]:
    """The ids of the keys that a secret in account data is encrypted with."""
    encrypted = content.get("encrypted") if isinstance(content, dict) else None
    return set(filter(_is_usable, encrypted)) if isinstance(encrypted, dict) else set()


def _is_encrypted(content: Any) -> bool:
    return isinstance(content, dict) and bool(content.get("encrypted"))


def _default_key(by_type: Mapping[str, Any]) -> str | None:
    key_id = secret_storage.default_key_id(by_type.get(DEFAULT_KEY))
    return key_id if key_id is not None and _is_usable(key_id) else None


def _is_usable(key_id: str) -> bool:
    """Whether a key of this name can be asked for, and kept."""
    try:
        Secret(KEY_DESCRIPTION + key_id, b"", NEVER)
    except InvalidRecord:
        return False
    return bool(key_id)
