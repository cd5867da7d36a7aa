"""One walk to a device that its owner has signed: look, do the next step, look again."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from nio import ErrorResponse

from cryptostore.errors import ConfigurationError
from cryptostore.logs import logger
from cryptostore.nio.client.answers import NOT_JSON, failure
from cryptostore.nio.client.session import Session
from cryptostore.trust.cross_signing import PublicIdentity, PublicKeys, Seeds, public_identity
from cryptostore.trust.signatures import ALGORITHM, is_signed

from . import uia
from .key_answers import Judged
from .own_keys import OwnKeys
from .own_steps import Identity, IdentityState, OwnDevice, Situation, Step, Storage, next_step
from .requests import Answer, Requests
from .secret_storage import Contents, RecoveryKey, SecretStorage, opened

_SERVER_ERROR: Final = 500
#: Seconds between two attempts to write secret storage, at most.
_LONGEST_WAIT: Final = 1.0
#: With that status, what Synapse says to keys that it had before.
_NEVER: Final = "M_UNKNOWN"

_log: Final = logger(__name__)


class Client(Protocol):
    """What a walk does with the client."""

    user_id: str
    device_id: str | None

    async def keys_upload(self) -> Any:
        """Upload the keys of the device."""


class Wishes(NamedTuple):
    """What a program allows, and gives. The repr shows nothing of it."""

    may_make: bool = False
    password: str | None = None
    recovery_key: RecoveryKey | None = None

    def __repr__(self) -> str:
        return f"<Wishes may_make={self.may_make}>"


class _Shown(NamedTuple):
    """What the homeserver shows of the account's user, as far as its signatures verify."""

    has_cross_signing: bool
    #: Whether there is an identity, be it one that is not to be believed.
    has_identity: bool
    identity: PublicIdentity | None
    #: The device's keys; None if there are none.
    device: dict[str, Any] | None


class Walk:
    """The steps of one walk. Everything that a request depends on is durable before it leaves.

    `contents` is what secret storage is known to have.
    """

    def __init__(
        self,
        client: Client,
        session: Session,
        requests: Requests,
        keys: OwnKeys,
        wishes: Wishes,
        contents: Contents | None = None,
    ) -> None:
        self._client = client
        self._session = session
        self._requests = requests
        self._storage = SecretStorage(requests, client.user_id)
        self._keys = keys
        self._wishes = wishes
        self._done: Counter[Step] = Counter()
        self._waits = 0
        self._shown: _Shown | None = None
        #: What secret storage has, as far as it is known.
        self.contents = contents
        #: What the homeserver answered to an upload that it did not take, and why the walk ended where it did.
        self._refusal: Answer | None = None
        self._is_first_free = True
        self._refused_signature = False
        self.why = ""

    async def run(self) -> IdentityState:
        """Walk to the end. Raises HomeserverUnavailable, ConfigurationError, and what `flush` raises."""
        steps: Mapping[Step, Callable[[], Awaitable[None]]] = {
            Step.UPLOAD_DEVICE: self._upload_device,
            Step.MAKE_KEYS: self._make_keys,
            Step.OPEN_STORAGE: self._open_storage,
            Step.WRITE_STORAGE: self._write_storage,
            Step.UPLOAD_IDENTITY: self._upload_identity,
            Step.UPLOAD_WITH_PASSWORD: self._upload_with_password,
            Step.ADOPT_NEXT: self._adopt_next,
            Step.SET_ASIDE: self._set_aside,
            Step.TAKE_BACK: self._take_back,
            Step.DROP_KEYS: self._drop_keys,
            Step.SIGN_DEVICE: self._sign_device,
        }
        while True:
            step = next_step(await self._situation())
            if isinstance(step, IdentityState):
                self._end(step)
                return step
            if step is Step.WRITE_STORAGE and self._waits < self._done[step]:
                await self._let_others_write()
                continue
            _log.debug("%s: %s", self._client.user_id, step.value)
            self._done[step] += 1
            await steps[step]()

    async def replace_identity(self, seeds: Seeds, password: str | None) -> Answer | None:
        """Upload an identity in place of whatever is there, with the password if the homeserver wants just that.

        Returns the answer if it is not there then.
        """
        content = seeds.upload(self._client.user_id)
        answer = await self._upload(content)
        if uia.is_wanted(answer) and uia.password_suffices(answer) and password is not None:
            answer = await self._upload(uia.with_password(content, self._client.user_id, password, answer))
        if answer.is_ok or self._whose(await self._see_keys()) is Identity.NEXT:
            return None
        if answer.status == _SERVER_ERROR and answer.errcode == _NEVER:
            # Synapse takes no key that it ever had, be it from a try that was cut short. The next try has others.
            self._keys.drop_next()
            await self._session.flush()
        return answer

    async def _situation(self) -> Situation:
        shown = await self._see_keys()
        identity = self._whose(shown)
        if identity is Identity.UNSUPPORTED:
            return Situation(identity, Storage.ABSENT, OwnDevice.UNSIGNED)
        contents, seeds = await self._see_storage(), self._keys.seeds
        return Situation(
            identity,
            self._keys.judge(contents),
            self._device_state(shown),
            has_seeds=seeds is not None,
            was_ours=seeds is not None and seeds.public.master == self._keys.confirmed_master_key,
            may_make=self._wishes.may_make,
            has_recovery_key=self._wishes.recovery_key is not None,
            has_password=self._wishes.password is not None,
            wants_password=self._wants_password(identity),
            refused_signature=self._refused_signature,
            done=self._done,
        )

    def _wants_password(self, identity: Identity) -> bool:
        """Whether the homeserver asked for the password, and not because there is an identity that it does not show."""
        is_asked = self._refusal is not None and uia.is_wanted(self._refusal)
        return is_asked and (identity is Identity.OURS_IN_PART or not self._is_first_free)

    async def _see_keys(self) -> _Shown:
        self._shown = self._shown or await self._ask_for_keys()
        return self._shown

    async def _see_storage(self) -> Contents:
        self.contents = self.contents or await self._storage.read()
        return self.contents

    def _whose(self, shown: _Shown) -> Identity:
        if not shown.has_cross_signing:
            return Identity.UNSUPPORTED
        if not shown.has_identity:
            return Identity.ABSENT
        theirs = None if shown.identity is None else shown.identity.public_keys
        seeds, following = self._keys.seeds, self._keys.next_seeds
        if seeds is not None and theirs == seeds.public:
            # Only now it is known that it is ours: a homeserver tells every one of several uploads that it was taken.
            self._keys.confirm(seeds.public.master)
            return Identity.OURS
        if seeds is not None and theirs is not None and _is_part_of(theirs, seeds.public):
            # Synapse stores the three keys one after the other, and may have been cut short.
            return Identity.OURS_IN_PART
        if following is not None and theirs == following.public:
            return Identity.NEXT
        former = self._keys.former_seeds
        return Identity.FORMER if former is not None and theirs == former.public else Identity.OTHER

    def _device_state(self, shown: _Shown) -> OwnDevice:
        if shown.device is None:
            return OwnDevice.ABSENT
        is_ours = shown.identity is not None and shown.identity.signs_device(shown.device)
        return OwnDevice.SIGNED if is_ours else OwnDevice.UNSIGNED

    async def _ask_for_keys(self) -> _Shown:
        user_id, device_id = self._client.user_id, str(self._client.device_id)
        answer = await self._requests.ask("POST", "keys", "query", content={"device_keys": {user_id: [device_id]}})
        if not answer.is_ok:
            raise answer.failure("the homeserver does not say which identity the account has")
        masters = answer.content.get("master_keys")
        has_identity = isinstance(masters, dict) and user_id in masters
        try:
            identity = public_identity(user_id, answer.content)
        except ValueError as error:
            _log.warning("the homeserver shows an identity of %s that is not to be believed: %s", user_id, error)
            identity = None
        device = _device_of(answer.content, user_id, device_id, self._session.machine.account.identity_keys["ed25519"])
        is_known = masters is not None or await self._requests.has_cross_signing()
        return _Shown(is_known, has_identity, identity, device)

    async def _upload_device(self) -> None:
        machine = self._session.machine
        if machine.account.shared:
            # The homeserver lost them.
            machine.account.shared = False
            machine.save_account()
        with self._requests.reaching():
            answer = await self._client.keys_upload()
        if isinstance(answer, ErrorResponse):
            raise failure("the homeserver does not take this device's keys", answer)
        self._shown = None

    async def _make_keys(self) -> None:
        await self._keys.make(self._wishes.recovery_key)
        await self._session.flush()

    async def _open_storage(self) -> None:
        shown, contents, held = await self._see_keys(), await self._see_storage(), self._keys.storage_key
        try:
            if held is None or not contents.is_main(held):
                held = await opened(contents, self._wishes.recovery_key, self._session.threads)
        except ConfigurationError as error:
            if self._device_state(shown) is not OwnDevice.SIGNED:
                raise
            # Nothing is missing that somebody would notice.
            self.why = str(error)
        else:
            self.why = self._keys.take_over(held, contents, shown.identity, must_match=shown.has_identity)
            await self._session.flush()

    async def _let_others_write(self) -> None:
        """Another host may have written over what was just written: the two should not meet again."""
        self._waits += 1
        await asyncio.sleep(random.uniform(0, _LONGEST_WAIT))
        self.contents = None

    async def _write_storage(self) -> None:
        contents = await self._see_storage()
        held = self._keys.storage_key or await self._keys.make_storage_key(self._wishes.recovery_key)
        await self._session.flush()
        await self._storage.write(held, self._keys.secrets(), contents)
        self.contents = None

    async def _upload_identity(self) -> None:
        await self._note_upload(await self._upload(await self._missing_keys()))

    async def _upload_with_password(self) -> None:
        refusal, password = self._refusal, self._wishes.password
        if refusal is not None and password is not None and uia.password_suffices(refusal):
            content = await self._missing_keys()
            await self._note_upload(
                await self._upload(uia.with_password(content, self._client.user_id, password, refusal))
            )

    async def _missing_keys(self) -> dict[str, Any]:
        """What the homeserver lacks of our identity. Synapse does not take what it has beside what it has not."""
        content = self._keys.present_seeds.upload(self._client.user_id)
        shown = await self._see_keys()
        if shown.identity is None or self._whose(shown) is not Identity.OURS_IN_PART:
            return content
        there = shown.identity.public_keys
        present = {"master_key": True, "self_signing_key": there.self_signing, "user_signing_key": there.user_signing}
        return {name: key for name, key in content.items() if not present[name]}

    async def _note_upload(self, answer: Answer) -> None:
        """Whatever it says: what counts is what it shows then."""
        self._shown = None
        if answer.is_ok:
            return
        if answer.status >= _SERVER_ERROR or answer.errcode == NOT_JSON:
            raise answer.failure("the homeserver does not take the account's identity")
        self._refusal = answer
        self._is_first_free = await self._requests.takes_first_identity_freely()
        self.why = uia.explanation(answer) if uia.is_wanted(answer) else answer.problem

    async def _upload(self, content: Mapping[str, Any]) -> Answer:
        return await self._requests.ask("POST", "keys", "device_signing", "upload", content=content)

    async def _adopt_next(self) -> None:
        await self._keys.adopt_next(self._wishes.recovery_key)
        await self._session.flush()

    async def _set_aside(self) -> None:
        _log.warning("another client has replaced the identity of %s", self._client.user_id)
        self._keys.set_aside()
        await self._session.flush()

    async def _take_back(self) -> None:
        self._keys.take_back()
        await self._session.flush()

    async def _drop_keys(self) -> None:
        _log.warning("another client was faster: the homeserver has its identity for %s", self._client.user_id)
        held = self._keys.storage_key
        if held is not None and self._keys.made_storage:
            await self._storage.clear(held, self._keys.secrets())
            self.contents = None
        self._keys.drop()
        await self._session.flush()

    async def _sign_device(self) -> None:
        user_id, device_id = self._client.user_id, str(self._client.device_id)
        signed = self._keys.present_seeds.sign_device(user_id, (await self._see_keys()).device or {})
        content = {user_id: {device_id: signed}}
        answer = await self._requests.ask("POST", "keys", "signatures", "upload", content=content)
        if answer.status >= _SERVER_ERROR or answer.errcode == NOT_JSON:
            raise answer.failure("the homeserver does not take this device's signature")
        self.why = _why_not_signed(answer, user_id, device_id)
        self._refused_signature = bool(self.why)
        # A success says nothing: a homeserver drops signatures that it does not want.
        self._shown = None

    def _end(self, state: IdentityState) -> None:
        """Take in what the last answers prove, as from any other question about the user."""
        shown, machine = self._shown, self._session.machine
        if shown is not None and shown.device is not None:
            machine.note_own_device(shown.device)
        if shown is not None and shown.identity is not None:
            is_signed_now = self._device_state(shown) is OwnDevice.SIGNED
            device = {str(self._client.device_id): machine.account.identity_keys["ed25519"] if is_signed_now else ""}
            is_ours = self._whose(shown) is Identity.OURS
            found = Judged(shown.identity, device, is_ours)
            self._session.store.identities.take_in(self._client.user_id, found, lambda _device_id: True)
        if state is IdentityState.SIGNED and self.contents is not None:
            self._keys.adopt_backup_key(self.contents)


def _device_of(content: Mapping[str, Any], user_id: str, device_id: str, signing_key: str) -> dict[str, Any] | None:
    """The device's keys in an answer, if they are this account's, and have signed themselves."""
    devices = content.get("device_keys")
    of_user = devices.get(user_id) if isinstance(devices, dict) else None
    device = of_user.get(device_id) if isinstance(of_user, dict) else None
    if not isinstance(device, dict) or not is_signed(device, user_id, signing_key, ALGORITHM + device_id):
        return None
    return {name: value for name, value in device.items() if name != "unsigned"}


def _is_part_of(theirs: PublicKeys, ours: PublicKeys) -> bool:
    """Whether every key that is there is ours; a master key always is there."""
    return (
        theirs.master == ours.master
        and theirs.self_signing in ("", ours.self_signing)
        and theirs.user_signing in ("", ours.user_signing)
    )


def _why_not_signed(answer: Answer, user_id: str, device_id: str) -> str:
    if not answer.is_ok:
        return answer.problem
    failures = answer.content.get("failures")
    of_user = failures.get(user_id) if isinstance(failures, dict) else None
    said = of_user.get(device_id) if isinstance(of_user, dict) else None
    return f"{said.get('errcode', '')} {said.get('error', '')}".strip() if isinstance(said, dict) else ""
