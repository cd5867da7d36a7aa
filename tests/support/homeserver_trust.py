"""What a test commands a client about trust: its identity, its backup, and whom it believes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class TrustCommands:
    """Commands of one client of ours."""

    def __init__(self, client: Any, password: str, tell: Callable[..., None]) -> None:
        self._client = client
        self._password = password
        self._tell = tell
        client.add_identity_change_callback(self._tell_change)

    async def do_identity_state(self) -> str:
        """How far the account's cross-signing identity has come."""
        return str(self._client.identity_state.name)

    async def do_reset_identity(self) -> None:
        """Replace the account's cross-signing identity."""
        await self._client.reset_identity(self._password)

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

    async def do_restore_backup(self) -> None:
        """Take in the whole backup."""
        await self._client.restore_backup()

    def _tell_change(self, change: Any) -> None:
        self._tell(event="identity change", user=change.user_id, was_verified=change.was_verified)
