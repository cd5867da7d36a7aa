"""What a test commands a client about trust: its identity, its backup, and whom it believes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptostore.trust import recovery_key


class TrustCommands:
    """Commands of one client of ours."""

    def __init__(self, client: Any, tell: Callable[..., None]) -> None:
        self._client = client
        self._tell = tell
        self._verifications: dict[str, Any] = {}
        client.add_identity_change_callback(self._tell_change)
        client.on_verification(self._tell_verification)

    async def do_own_identity(self) -> dict[str, Any]:
        """How far the account's identity has come, whether its seeds are here, and the recovery key."""
        keys, state = self._client._trust.own._keys, self._client.identity_state
        held = keys.storage_key
        kept = None if held is None else recovery_key.encode(held.key)
        return {"state": state.name, "has_seeds": keys.seeds is not None, "recovery_key": kept}

    async def do_reset_identity(self, password: str | None) -> None:
        """Replace the account's identity."""
        await self._client.reset_identity(password)

    async def do_accept_identity(self, user: str) -> bool:
        """Go on with a user's present identity."""
        return bool(self._client.accept_identity(user))

    async def do_withdraw_verification(self, user: str) -> bool:
        """Count a user as not verified."""
        return bool(self._client.withdraw_verification(user))

    async def do_room_keys(self, room: str, policy: str) -> None:
        """Say who gets a room's keys."""
        self._client.set_room_keys_policy(room, policy)

    async def do_back_up(self) -> None:
        """Upload every room key that is not in the backup."""
        await self._client.back_up()

    async def do_hold_backup(self, most: int) -> None:
        """Upload nothing before `back_up`, and then so many sessions a request."""
        self._client._trust.key_backup.longest_delay = 3600.0
        self._client._trust.key_backup._uploads._most = most

    async def do_is_whole(self) -> bool:
        """Whether what a backup lacked that was put back is replaced."""
        await self._client.flush()
        return not self._client.production_store.restored.rows

    async def do_restore_backup(self) -> dict[str, int]:
        """Take in the whole backup."""
        restored = await self._client.restore_backup()
        return {"total": restored.total, "taken_in": restored.taken_in, "skipped": restored.skipped}

    async def do_request_verification(self, user: str, room: str | None = None, device: str | None = None) -> str:
        """Ask a user, or a device, to be verified; the transaction."""
        return self._keep(await self._client.request_verification(user, room, device))

    async def do_accept(self, verification: str) -> None:
        """Take a request."""
        await self._verifications[verification].accept()

    async def do_emoji(self, verification: str) -> list[str]:
        """What to compare, once it is known."""
        return [each.symbol for each in (await self._verifications[verification].comparison()).emoji]

    async def do_confirm(self, verification: str, share_secrets: bool = False) -> None:
        """The people see the same."""
        await self._verifications[verification].confirm(share_secrets=share_secrets)

    async def do_mismatch(self, verification: str) -> None:
        """They do not."""
        await self._verifications[verification].mismatch()

    async def do_cancel(self, verification: str) -> None:
        """End it."""
        await self._verifications[verification].cancel()

    async def do_finished(self, verification: str) -> dict[str, bool]:
        """Whether the user, and the device, are verified at the end."""
        verified = await self._verifications[verification].finished()
        return {"user": verified.user, "device": verified.device}

    def _keep(self, verification: Any) -> str:
        self._verifications[verification.transaction_id] = verification
        return str(verification.transaction_id)

    def _tell_verification(self, verification: Any) -> None:
        self._tell(event="verification", id=self._keep(verification), user=verification.user_id)

    def _tell_change(self, change: Any) -> None:
        self._tell(event="identity change", user=change.user_id, was_verified=change.was_verified)
