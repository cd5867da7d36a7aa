"""Which backup on the server the account's Megolm sessions go to.

A backup is used if we hold its private key, or if the account's own identity has signed it. Any other one may be a
stranger's, the homeserver's among them, who would read whatever went there.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, NamedTuple

from nio import AsyncClient

from cryptostore.errors import ConfigurationError, HomeserverUnavailable
from cryptostore.nio.client.answers import PASSING_STATUSES, is_homeservers
from cryptostore.nio.client.session import Session
from cryptostore.trust import signatures
from cryptostore.trust.cross_signing import MASTER
from cryptostore.trust.key_backup import ALGORITHM, KEY_BACKUP, BackupVersion, public_key
from cryptostore.trust.secret_storage import KEY_DESCRIPTION, open_secret

from .requests import Answer, Requests

#: A person's wish for all clients (MSC4287).
_PREFERENCE: Final = "m.key_backup"


class Found(NamedTuple):
    """The backup that the homeserver has, and why it is not used: empty if it is."""

    backup: BackupVersion | None
    problem: str = ""


class BackupVersions:
    """Looks for the backup of the account's user, and makes one."""

    def __init__(self, client: AsyncClient, session: Session, requests: Requests) -> None:
        self._client = client
        self._session = session
        self._requests = requests

    @property
    def private_key(self) -> bytes | None:
        """The private key of the account's backup, if it is held. Raises UnreadableRecord."""
        return self._session.store.secrets.get(KEY_BACKUP)

    @property
    def may_be_there(self) -> bool:
        """Whether there is anything by which a backup could be known to be ours."""
        return self.private_key is not None or bool(self._master_keys())

    async def find(self) -> Found:
        """The backup to use. One is made if there is none, and its private key is in secret storage.

        Raises HomeserverUnavailable.
        """
        current = await self.current()
        if current is not None:
            return Found(current, self.why_not(current))
        return await self.make()

    async def make(self) -> Found:
        """A new backup, with the private key that is held, in the place of any other. Raises what `find` raises."""
        held = self.private_key
        if held is None:
            return Found(None, "there is no key backup, and no private key to make one with")
        if problem := await self._why_not_make(held):
            return Found(None, problem)
        await self._post(held)
        # Another host of ours may have made one at the same time: the last one counts.
        made = await self.current()
        return Found(made, "the homeserver does not show the key backup that was made" if made is None else "")

    async def current(self) -> BackupVersion | None:
        """The homeserver's present backup. Raises HomeserverUnavailable, and ConfigurationError for what is none."""
        answer = await self._requests.ask("GET", "room_keys", "version")
        if checked(answer, "does not say which key backup it has").is_missing:
            return None
        try:
            return BackupVersion.parse(answer.content)
        except ValueError as error:
            raise ConfigurationError(f"{error}; it is not used") from None

    def why_not(self, backup: BackupVersion) -> str:
        """Why this backup is not used; empty if it is."""
        held = self.private_key
        if held is not None and public_key(held) == backup.public_key:
            return ""
        if any(backup.is_signed_by(self._client.user_id, master_key) for master_key in self._master_keys()):
            return ""
        return (
            f"the key backup {backup.version!r} on the homeserver is another's: its private key is not the account's, "
            "and the account's identity has not signed it. Nothing is uploaded. If a person set that backup up, give "
            "the recovery key of the account; else `client.replace_backup()` makes a new one"
        )

    def _master_keys(self) -> list[str]:
        """What the account's own identity signs with, as far as that was not only said by the homeserver."""
        store, user_id = self._session.store, self._client.user_id
        seed = store.secrets.get(MASTER)
        identity = store.identities.of(user_id)
        ours = [] if seed is None else [signatures.public_key(seed)]
        verified = [identity.master_key] if identity is not None and store.identities.is_verified(user_id) else []
        return [*ours, *verified]

    async def _why_not_make(self, held: bytes) -> str:
        if self._in_secret_storage(await self._account_data(KEY_BACKUP)) != held:
            return (
                "the key of the backup is not in secret storage, as far as a key in this database opens it, so nobody "
                "could restore what goes there; give the recovery key of the account"
            )
        if (await self._account_data(_PREFERENCE)).get("enabled") is False:
            return "a person has turned key backup off for this account"
        return ""

    def _in_secret_storage(self, content: dict[str, Any]) -> bytes | None:
        """The backup's key in this account data, if it is encrypted for a key that the store has."""
        secrets = self._session.store.secrets
        for name in secrets.names(KEY_DESCRIPTION):
            with suppress(ValueError):
                found = open_secret(KEY_BACKUP, name.removeprefix(KEY_DESCRIPTION), secrets.get(name) or b"", content)
                if found is not None:
                    return found
        return None

    async def _account_data(self, kind: str) -> dict[str, Any]:
        answer = await self._requests.ask("GET", "user", self._client.user_id, "account_data", kind)
        found = checked(answer, f"does not say what {kind} is")
        return {} if found.is_missing else found.content

    async def _post(self, private_key: bytes) -> None:
        content = {"algorithm": ALGORITHM, "auth_data": self._auth_data(public_key(private_key))}
        checked(await self._requests.ask("POST", "room_keys", "version", content=content), "makes no key backup")

    def _auth_data(self, key: str) -> dict[str, Any]:
        """The public key, signed by the device, so that people see who made it, and by the identity."""
        seed, user_id = self._session.store.secrets.get(MASTER), self._client.user_id
        plain = {"public_key": key}
        name = f"{signatures.ALGORITHM}{self._client.device_id}"
        signature = self._session.machine.sign_json(plain)
        signed: dict[str, Any] = {**plain, "signatures": {user_id: {name: signature}}}
        if seed is None:
            return signed
        return signatures.sign(signed, user_id, signatures.ALGORITHM + signatures.public_key(seed), seed)


def checked(answer: Answer, what: str) -> Answer:
    """An answer that is one, or says that there is nothing.

    Raises HomeserverUnavailable where another try may help, and ConfigurationError where it does not.
    """
    if answer.is_ok or (answer.is_missing and answer.errcode == "M_NOT_FOUND"):
        return answer
    if answer.status >= 500 or answer.status in PASSING_STATUSES or not is_homeservers(answer.errcode):
        raise HomeserverUnavailable(f"the homeserver {what}: {answer.problem}; try again later")
    raise ConfigurationError(f"the homeserver {what}: {answer.problem}")
