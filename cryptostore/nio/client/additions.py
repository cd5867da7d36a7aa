"""What the client has that nio's has not. It overrides nothing of nio's."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self

from nio import ErrorResponse, Event, LoginResponse
from nio.events import MegolmEvent
from nio.events.misc import BadEventType

from cryptostore.nio.trust.backup_restore import Progress, RestoredBackup
from cryptostore.nio.trust.key_backup import KeyBackupState
from cryptostore.nio.trust.own_steps import IdentityState
from cryptostore.nio.trust.policies import TrustPolicy
from cryptostore.nio.trust.policies import policy as policy_named
from cryptostore.nio.trust.secret_storage import RecoveryKey
from cryptostore.nio.trust.senders import SenderTrust
from cryptostore.nio.trust.trust import Trust
from cryptostore.nio.trust.verification import Verification
from cryptostore.nio.trust.verifications import VerificationCallback
from cryptostore.records import Account, IdentityChange, MissedEvents, WithheldKey

from .gap_client import GapHandling, IdentityChangeCallback, MissedCallback
from .identity import Identity
from .login import Login
from .machine import ProductionOlm
from .prefetch import Prefetching, Wanted
from .session import Session
from .statistics import Statistics
from .store import ProductionStore


class Additions:
    """An account that is opened and closed, who it belongs to, and what is known of its keys and events."""

    user: str
    user_id: str
    device_id: str | None

    #: What this client counts.
    statistics: Statistics

    #: As the client's, and nio's.
    close: Callable[[], Coroutine[Any, Any, None]]
    invalidate_outbound_session: Callable[[str], None]

    _session: Session
    _identity: Identity
    _login: Login
    _prefetching: Prefetching
    _gaps: GapHandling
    _trust: Trust

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.user_id or self.user} {self.device_id or 'without a device'}>"

    async def __aenter__(self) -> Self:
        self._session.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self, *, take_over: bool = False) -> None:
        """Take the account over, if user and device id are known; else `login_or_restore` finds out.

        With an access token, from `restore_login`, it asks the homeserver before: see `check_identity`. Without one
        nothing is asked, and a program that works offline needs no homeserver. `take_over` takes an account back that
        this process has lost to another one. A client that lost its account while it was open is closed before.

        Raises ConfigurationError, WrongPickleKey and BackendUnavailable, and what else `Backend.open_store` raises;
        FencedOut for an account that this process has lost; DatabaseWentBack for one whose database was put back, as
        the homeserver's anchor shows; AccessTokenRejected and HomeserverUnavailable; StoreClosed if `close` is called
        meanwhile. After an error nothing is taken over.
        """
        await self._session.end_lost(self.close)
        self._session.begin()
        if not self._session.is_open and self.user_id and self.device_id:
            account = Account(self.user_id, self.device_id)
            await self._session.open(account, self._identity.look, take_over=take_over)

    async def login_or_restore(
        self,
        password: str | None = None,
        device_name: str = "",
        token: str | None = None,
        *,
        take_over: bool = False,
        recovery_key: str | None = None,
        new_recovery_key_file: str | os.PathLike[str] | None = None,
    ) -> LoginResponse:
        """Log in once; later, on any host with the same database and pickle key, restore that login.

        Without a device id, the one device of this user in the database is meant, and in a database without one a
        new device id is chosen and saved before the homeserver hears of it. A token that the homeserver rejects leads
        to a new login as the same device. `token` is a login token (single sign-on), in place of a password.
        `take_over` takes an account back that this process has lost to another one.

        Everything that can be checked is checked before the account is taken over. After an error nothing is taken
        over, and no account is left behind; but a new device, whose login had no answer, keeps its id and its keys.

        Then this device is signed by the account's cross-signing identity, unless the client has `cross_signing=False`.
        Where the account has no identity, one is made, with secret storage that `recovery_key` will open, else a new
        recovery key: `new_recovery_key_file` is made for it, else `cryptostore identity recovery-key` shows it. Where
        another client made it, `recovery_key` opens the account's secret storage; it may be a passphrase. Without one
        the device stays unsigned, as `identity_state` says. An identity is never replaced; see `reset_identity`. What
        was cut short the next call completes, with the same keys.

        Raises ConfigurationError if the homeserver refuses, if the database holds several devices of this user and
        none was named, and if homeserver and database do not belong together. Raises HomeserverUnavailable if the
        homeserver gives no usable answer inside the deadline: calling this again later may work. Raises what `open`
        raises. Raises ConfigurationError for a recovery key that is mistyped, before anything; with the account open
        for one that opens nothing, and for a file that cannot be made.
        """
        given = RecoveryKey(recovery_key) if recovery_key else None
        await self._session.end_lost(self.close)
        answer = await self._login.log_in_or_restore(password, device_name, token, take_over=take_over)
        await self._trust.logged_in(password, given, new_recovery_key_file)
        return answer

    async def reset_identity(self, password: str | None = None, *, recovery_key: str | None = None) -> None:
        """Replace the account's cross-signing identity by a new one, whoever made it, and sign this device.

        **It costs**: everybody who verified the account is warned, and has to verify it again; other sessions of the
        account are not signed any more; the former recovery key opens nothing, and what only it opened is lost, such as
        the key of a backup that this client does not have. For when the seeds are lost or known to others. Secret
        storage gets a new key, which `recovery_key` will open, else a new recovery key.

        `password` is sent only if that is all that the homeserver wants. Where a person has to approve, the error says
        where; calling this again goes on with the same keys, and so does the next start if this one is cut short.

        Raises ConfigurationError if the homeserver refuses, HomeserverUnavailable, and what `flush` raises.
        """
        given = RecoveryKey(recovery_key) if recovery_key else None
        await self._trust.own.reset(password, given)
        await self._trust.key_backup.after_reset()

    @property
    def identity_state(self) -> IdentityState:
        """How far the account's cross-signing identity, and its signature of this device, have come."""
        return self._trust.own.state

    async def sign_before_room_keys(self) -> None:
        """Complete the signature of this device that an earlier start began; sending calls it.

        Raises HomeserverUnavailable, and what `flush` raises.
        """
        await self._trust.own.before_room_keys()

    async def check_identity(self) -> ErrorResponse | None:
        """Compare this account with the device whose access token this is, and its keys with those that the homeserver
        has for the device: once for each token. Opens the account if `restore_login` has named it alone.

        Returns None if they are the same, and the homeserver's answer if it gave no usable one. Raises DatabaseWentBack
        for an account that was opened without a token, and whose database was put back, and ConfigurationError if the
        token is another device's, or if the homeserver knows other keys: this database is not
        the device's. Until then nothing of a new identity is written. Raises what `open` raises.
        """
        return await self._identity.check()

    async def open_restored(self) -> None:
        """Open the account whose login was restored, if it is not open. Raises what `open` raises."""
        await self._identity.open_restored()

    async def flush(self) -> None:
        """Make everything durable that changed before this call. A new identity is written only after `check_identity`.

        Raises BackendUnavailable or StorageFull with everything kept for the next flush; FencedOut when another
        process has the account; DatabaseWentBack when a backup was put back under this client. Raises what
        `check_identity` raises, too, and HomeserverUnavailable if the homeserver gives no usable answer.
        """
        await self._identity.confirm()
        await self._session.flush()

    async def check_ownership(self) -> None:
        """Ask the database whether another process has taken the account over, in a thread.

        Raises FencedOut, naming who has it, DatabaseWentBack, and AccountNotFound if it was deleted; nothing is sent
        after that.
        """
        await self._session.check_ownership()

    @property
    def production_store(self) -> ProductionStore:
        """The open store. Raises StoreClosed if there is none."""
        return self._session.store

    @property
    def machine(self) -> ProductionOlm:
        """The encryption machine. Raises StoreClosed if the store is not open."""
        return self._session.machine

    @property
    def key_backup(self) -> KeyBackupState:
        """Which backup on the homeserver this account's room keys go to, or why to none."""
        return self._trust.key_backup.state

    async def back_up(self) -> None:
        """Upload every room key that is not in the backup on the homeserver yet. Beside syncs that is done anyway.

        Raises ConfigurationError if there is no backup that may be used, which is one of the account's own, or if the
        homeserver refuses; HomeserverUnavailable if it does not answer; and what `flush` raises.
        """
        await self.open_restored()
        await self._trust.key_backup.back_up()

    async def replace_backup(self) -> None:
        """Make a new key backup with the account's own key, where the homeserver's present one is another's.

        What is in the other one stays there, but nobody adds to it any more. Nothing is done where the present one is
        the account's own. Raises what `back_up` raises.
        """
        await self.open_restored()
        await self._trust.key_backup.replace()

    async def decrypt_with_backup(self, event: MegolmEvent) -> Event | BadEventType | None:
        """Ask the key backup for the key of a message, and decrypt it; None where that cannot be done.

        For messages that the client was not given by a sync, such as those of `room_messages`: for others this happens
        anyway. Raises HomeserverUnavailable, and what `flush` raises.
        """
        await self.open_restored()
        wanted = Wanted()
        wanted.add_message(event, event.room_id)
        async with self._prefetching.of(wanted):
            return await self._trust.key_backup.decrypted(event)  # type: ignore[no-any-return]  # nio has no annotation

    async def restore_backup(
        self, progress: Progress | None = None, *, recovery_key: str | None = None
    ) -> RestoredBackup:
        """Take in all room keys of the account's backup on the homeserver. Durable when it returns; it may be repeated.

        `progress` is called with the number of keys that were read, and of those that there are. `recovery_key` is that
        of the account's secret storage, its passphrase, or the backup's own; without one the private key in the
        database is used. Entries that are of no use are reported in the log, counted and left out.

        Raises ConfigurationError if there is no backup, or no key for it; HomeserverUnavailable if the homeserver does
        not send all of it, with what came saved; and what `flush` raises.
        """
        await self.open_restored()
        return await self._trust.key_backup.restore(progress, recovery_key)

    def why_undecryptable(self, event: MegolmEvent) -> WithheldKey | None:
        """What the sender of a message said of its key, which it did not send; None if it said nothing.

        `code` is one of the specification, such as `m.unverified`, or another. It and `reason` are the sender's texts,
        of at most 256 characters. The database is not asked. Raises StoreClosed if the client is not open.
        """
        return self.machine.withheld.about(event)

    def sender_trust(self, event: Any) -> SenderTrust:
        """What is known now of the device that sent an event of a room, as this client's callbacks see it.

        For a message that was not decrypted although its key is there it is the reason: see `accept`. The database is
        asked only for what was read long ago. Raises StoreClosed if the client is not open.
        """
        return self.machine.sender_trust(event)

    def prefetched(self, wanted: Wanted) -> AbstractAsyncContextManager[None]:
        """Have what is wanted in memory inside the block. Raises BackendUnavailable."""
        return self._prefetching.of(wanted)

    def add_missed_events_callback(self, callback: MissedCallback) -> None:
        """Call `callback` with a `MissedEvents` for events of a room that reach no other callback, with the cause.

        Each is kept in the database until all these callbacks have returned for it, also over restarts. They run
        between syncs, and may be functions or coroutine functions.
        """
        self._gaps.add_callback(MissedEvents, callback)

    def add_identity_change_callback(self, callback: IdentityChangeCallback) -> None:
        """Call `callback` with an `IdentityChange` for a user whose master key is not the one that was seen first.

        Until `accept_identity` or a new verification, no room keys go to a user who was verified before. Each change
        is kept in the database until all these callbacks have returned for it, also over restarts. They run between
        syncs, and may be functions or coroutine functions.
        """
        self._gaps.add_callback(IdentityChange, callback)

    def set_room_keys_policy(self, room_id: str, policy: str | None) -> None:
        """Say which devices get this room's keys: a `TrustPolicy`, or None for that of the client.

        Kept in the database, and durable before the next send, which uses a new key. Raises ConfigurationError for
        another word, InvalidRecord for what is no room id, and StoreClosed if the client is not open.
        """
        chosen = None if policy is None else policy_named(policy, "policy")
        self.production_store.room_policies.set(room_id, chosen)
        self.invalidate_outbound_session(room_id)

    def room_keys_policy(self, room_id: str) -> TrustPolicy:
        """Which devices get this room's keys. Raises StoreClosed if the client is not open."""
        return self.machine.recipients.policy_of(room_id)

    def accept_identity(self, user_id: str) -> bool:
        """Go on with a user's present identity. One that takes the place of a verified one is not verified itself, and
        neither is any device of the user.

        Returns whether there was something to accept. Raises StoreClosed if the client is not open.
        """
        is_new = self.production_store.identities.accept(user_id)
        if is_new:
            # One that could not be read is learned anew.
            self.machine.users_for_key_query.add(user_id)
            self._unverify_devices(user_id)
        return is_new

    def withdraw_verification(self, user_id: str) -> bool:
        """A user and all devices of the user count as not verified from now on, and the present identity as accepted.

        Returns False for a user who was not verified. Raises StoreClosed if the client is not open.
        """
        is_withdrawn = self.production_store.identities.withdraw_verification(user_id)
        if is_withdrawn:
            self._unverify_devices(user_id)
        return is_withdrawn

    def _unverify_devices(self, user_id: str) -> None:
        """A verification by emoji verified a device, too."""
        for device in list(self.machine.device_store.active_user_devices(user_id)):
            if device.verified:
                self.machine.unverify_device(device)

    def on_verification(self, callback: VerificationCallback | None) -> None:
        """Let `callback`, a function or coroutine function, decide when somebody asks for a verification.

        It gets a `Verification` and runs in a task of its own, so it may wait for people: `await
        verification.accept()`, then show what `await verification.comparison()` returns, then `confirm` or `mismatch`.
        It may also keep the verification for later. What it raises is logged, and ends the verification. Without a
        callback, requests of other users are declined, and those of the account's other sessions, too, if none of them
        could answer.
        """
        self._trust.verifications.on_verification(callback)

    async def request_verification(
        self, user_id: str, room_id: str | None = None, device_id: str | None = None
    ) -> Verification:
        """Ask a user to verify this account, and to be verified: in a room, which may be encrypted, or between devices.

        Without a room all of the user's devices are asked, or the one named. The user may be the account's own: then
        another session of it is verified. Await `comparison()` and `finished()` of what is returned.

        Raises ConfigurationError if the homeserver does not let the user be asked or if there is no device to ask, and
        HomeserverUnavailable. Raises what `open` raises.
        """
        await self.open_restored()
        return await self._trust.verifications.request(user_id, room_id, device_id)

    @property
    def missed_events(self) -> list[MissedEvents]:
        """What no callback for missed events was told yet. Raises StoreClosed if the client is not open."""
        return list(self.production_store.gaps.missed.rows.values())
