"""The client that bots and bridges use: every function of nio's that is ours, each handed over to its part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Unpack

from aiohttp import ClientResponse
from nio import (
    AsyncClient,
    AsyncClientConfig,
    JoinedMembersResponse,
    LocalProtocolError,
    LoginResponse,
    RegisterResponse,
    Response,
    ShareGroupSessionResponse,
    SyncResponse,
    WhoamiResponse,
)

from cryptostore.nio.configuration import ClientSettings, StoreArguments, client_settings
from cryptostore.nio.trust.trust import Trust
from cryptostore.plugins.urls import redact
from cryptostore.records import Account

from .additions import Additions
from .gap_client import GapHandling, GapSettings
from .gate import Gate, body_of
from .handling import Handling
from .homeserver import Homeserver
from .identity import Identity
from .key_files import KeyFiles
from .key_queries import Claimed, KeyQueries, Queried
from .login import Login
from .prefetch import Prefetching, wanted_by
from .reaching import Reaching
from .responses import OURS, Shared
from .rooms import Rooms
from .session import Callbacks, Intervals, Opened, Session
from .sharing import RoomKeySharing, Sent
from .sharing_turns import SharingTurns
from .store import ProductionStore
from .sync_loop import Rounds, SyncLoop, all_of
from .syncs import Synced, Syncs
from .to_device import ToDevicePages
from .uploading import KeyUploads, Uploaded
from .windows import RoomCalls, Windows
from .withholding import Withholding


class ProductionMatrixClient(Additions, AsyncClient):
    """An AsyncClient that can be killed at any moment, started on another host, and read everything it was ever sent.

    `store` is the URL of a database, and `pickle_key` protects what is kept in it. The account is that of `user` and
    `device_id`. Without a device id `login_or_restore` finds or makes it. `use_postgres` and `pg_config` name a
    PostgreSQL database by its parts. What is not given comes from the environment and from `env_file`: see
    `cryptostore.nio.configuration`. What changes outside a sync or a send, such as a verification, is durable after
    `flush_interval` seconds at the latest. A start that gets no usable answer from the homeserver ends after
    `homeserver_deadline` seconds. A process that writes nothing asks the database after a sync whether the account is
    still its own, at most once in `ownership_check_interval` seconds.

    `room_keys` says who gets room keys, and `accept` who is read (`TrustPolicy`). `ssl` and `proxy` are nio's.

    Raises ConfigurationError for settings that are missing, unknown or given twice.
    """

    def __init__(
        self,
        homeserver: str = "",
        user: str = "",
        device_id: str | None = None,
        *,
        config: AsyncClientConfig | None = None,
        flush_interval: float = 1.0,
        ownership_check_interval: float = 10.0,
        homeserver_deadline: float = 30.0,
        gap_limit: int | None = None,
        gap_age: float | None = None,
        ssl: Any = None,
        proxy: str | None = None,
        **given: Unpack[StoreArguments],
    ) -> None:
        settings = client_settings(homeserver, user, device_id, **given)
        # The pickle key stays out of the config: that is a dataclass, and its repr shows everything.
        ours = replace(config or AsyncClientConfig(), store=ProductionStore, store_sync_tokens=True)
        place = redact(settings.store)
        super().__init__(settings.homeserver, settings.user_id, settings.device_id, place, ours, ssl=ssl, proxy=proxy)
        if settings.user_id.startswith("@"):
            self.user_id = settings.user_id
        intervals = Intervals(flush_interval, ownership_check_interval)
        self._make_account_parts(settings, intervals, homeserver_deadline)
        self._make_sharing_parts()
        self._make_sync_parts(GapSettings(gap_limit, gap_age))

    def _make_account_parts(self, settings: ClientSettings, intervals: Intervals, deadline: float) -> None:
        own = Callbacks(self._use, self._forget, super().close)
        self._session = session = Session(settings.store, settings.pickle_key, intervals, own, settings.policies)
        self.statistics = session.statistics
        homeserver = Homeserver(self, deadline)
        self._trust = trust = Trust(self, session, homeserver, settings)
        self._key_uploads = uploads = KeyUploads(self, session, self.check_identity, super().keys_upload)
        self._identity = Identity(self, session, homeserver, self, self._send, uploads.start_over, trust.anchoring.look)
        self._login = Login(self, session, self._identity, homeserver, self.flush)
        self._gate = Gate(self, session, self._identity, uploads, trust.restoring.replace_keys, super().send)

    def _make_sharing_parts(self) -> None:
        session, send, turns = self._session, self._send, SharingTurns(self.sharing_session)
        self._key_files = KeyFiles(session, self.flush)
        self._prefetching = prefetching = Prefetching(session)
        self._key_queries = KeyQueries(self, session, send)
        withholding = Withholding(self, session, send)
        self._reaching = Reaching(self, session, turns, prefetching, withholding, self._key_queries.claim, send)
        self._sharing = RoomKeySharing(self, session, self, turns, prefetching, withholding, self._reaching, send)

    def _make_sync_parts(self, gaps: GapSettings) -> None:
        session, handling = self._session, Handling()
        self._rooms = Rooms(self, session)
        calls = RoomCalls(
            apply_state=self._handle_joined_state,
            invalidate_session=self._invalidate_session_for_member_event,
            decrypt=self._handle_timeline_event,
            on_event=self._trust.before_room_event(self._on_event),
            on_ephemeral=self._on_ephemeral,
            on_account_data=self._on_room_account_data,
            learn_encrypted=self._rooms.learn_encrypted,
            follow=self._rooms.follow,
        )
        self._windows = Windows(calls)
        self._gaps = GapHandling(self, gaps, calls, handling.inside)
        self._trust.hand_on_with(self._gaps.hand_on_late)
        self._syncs = Syncs(self, session, handling, self._gaps, self._rooms, super().sync, super()._handle_sync)
        self._sync_loop = SyncLoop(self, self._syncs, self._gaps)
        self._to_device = ToDevicePages(
            self,
            session,
            send=self._send,
            decrypt=self._handle_decrypt_to_device,
            on_event=self._trust.before_to_device(self._on_to_device),
            presence=lambda: self._presence,
            failures=lambda: self._syncs.failures,
        )

    def restore_login(self, user_id: str, device_id: str, access_token: str) -> None:
        """As nio's, but it reads nothing from the database: `open` does, or the first request.

        Raises ConfigurationError if this client was opened for another account, InvalidRecord for ids that no account
        has, and LocalProtocolError while it is being opened.
        """
        self._session.check_account(Account(user_id, device_id))
        self._session.check_openings()
        self.user_id, self.device_id, self.access_token = user_id, device_id, access_token
        self._session.begin()

    def load_store(self) -> None:
        """Open the store here and now, as nio does: on the event loop, if it is called there. `open` uses a thread.

        It takes the account over without asking the homeserver. On the event loop it does not wait for its turn,
        however often the account changes hands.
        """
        if self.store is None:
            self._session.check_openings()
            self._session.open_here(Account(self.user_id, self.device_id or ""))

    async def close(self) -> None:
        """Flush, and give the connections and the account back. Closing twice is no error.

        An opening that is under way is given up and awaited. Raises what `flush` raises, after everything was given
        back.
        """
        self._gaps.has_rooms = False
        try:
            await self._trust.closing()
        finally:
            self._identity.forget_tokens()
            await self._session.close()

    def _use(self, opened: Opened) -> None:
        self.user_id, self.device_id = opened.store.user_id, opened.store.device_id
        self.store, self.olm = opened.store, opened.machine
        self.encrypted_rooms = opened.encrypted_rooms
        # What an earlier opening of this client knew may be out of date: another process may have had the account.
        self.next_batch, self.loaded_sync_token = "", opened.token or ""
        self.rooms.clear()
        self.invited_rooms.clear()
        self._identity.go_on()
        self._trust.opened()

    def _forget(self) -> None:
        self.store, self.olm = None, None

    async def send(
        self,
        method: str,
        path: str,
        data: Any = None,
        headers: dict[str, str] | None = None,
        trace_context: Any | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # nio's own parameter
    ) -> ClientResponse:
        """Send a request, after everything that changed until now is durable.

        The one way to the homeserver. Raises what `flush` raises, with nothing sent, and ConfigurationError for a
        client that is logged in without a store: nio would send plaintext.
        """
        return await self._gate.send(method, path, data, headers, trace_context, timeout)

    async def _send(self, response_class: type, *args: Any, **kwargs: Any) -> Any:
        return await super()._send(OURS.get(response_class, response_class), *args, **kwargs)

    async def parse_body(self, transport_response: ClientResponse) -> Any:
        """As nio's, but an answer that is not JSON is an error: nio takes it for an empty one, and so for a success."""
        return await body_of(transport_response, super().parse_body)

    async def receive_response(self, response: Response) -> None:
        """As nio's, after what it will look up was fetched in a thread."""
        if self.store is None:
            if isinstance(response, LoginResponse | RegisterResponse):
                self.restore_login(response.user_id, response.device_id, response.access_token)
                await self.open()
            await super().receive_response(response)
            return
        async with self._prefetching.of(wanted_by(response, self.machine)):
            await self._key_queries.receive(response, super().receive_response)

    async def _collect_key_requests(self) -> None:
        await super()._collect_key_requests()  # type: ignore[no-untyped-call]  # nio has no annotation
        await self._prefetching.keep_for_requests()

    def _handle_whoami_response(self, response: WhoamiResponse) -> None:
        self._identity.note_owner(response)
        super()._handle_whoami_response(response)

    @property
    def should_upload_keys(self) -> bool:
        """As nio's, but after a failure not before a pause, longer each time: every upload takes new keys."""
        return bool(super().should_upload_keys) and self._key_uploads.is_due

    async def keys_upload(self) -> Uploaded:
        """As nio's. The keys count as published before they leave, and go out once; one upload waits for another.

        Raises what `check_identity` and `flush` raise, and as nio's LocalProtocolError if there is nothing to upload.
        """
        return await self._key_uploads.upload()

    async def keys_query(self) -> Queried:
        """As nio's; users who change while the question is under way are asked about again."""
        return await self._key_queries.query()

    @property
    def should_claim_keys(self) -> bool:
        """As nio's, but not while all devices that lack a one-time key are to be left alone."""
        return self.store is not None and bool(self._reaching.due_for_claiming())

    def get_users_for_key_claiming(self) -> dict[str, list[str]]:
        """As nio's, without devices whose pause is not over. Raises LocalProtocolError if there are none."""
        return self._reaching.users_for_claiming()

    async def keys_claim(self, user_set: Mapping[str, Iterable[str]]) -> Claimed:
        """As nio's, which raises TypeError where the homeserver refuses.

        Devices that nio asks for, and that have no one-time key, are left alone for a while.
        """
        return await self._reaching.claim(user_set)

    async def room_send(
        self,
        room_id: str,
        message_type: str,
        content: dict[Any, Any],
        tx_id: str | None = None,
        ignore_unverified_devices: bool = False,
    ) -> Sent:
        """As nio's. The ratchet is durable before the message leaves.

        Raises what `flush` raises, with nothing sent, GroupEncryptionError if the room's key could not be shared, and
        MembersSyncError if the homeserver did not say who is in the room.
        """
        # Without an open account nio would send plaintext.
        await self.open_restored()
        await self._sharing.make_ready(room_id, ignore_unverified_devices)
        sent: Sent = await super().room_send(room_id, message_type, content, tx_id, ignore_unverified_devices)
        return sent

    async def share_group_session(self, room_id: str, ignore_unverified_devices: bool = False) -> Shared:
        """As nio's, but an error that the server answers is returned, and one of the store is raised.

        The session counts as shared only when every active device of every member has its key, is blacklisted, or
        offers no one-time key to send it with. Members whose devices the homeserver does not know are not waited for.

        Raises MembersSyncError if the homeserver does not say who is in the room.
        """
        return await self._sharing.share(room_id, ignore_unverified_devices)

    def invalidate_outbound_session(self, room_id: str) -> None:
        """Never use the room's key again. Durable before the next send."""
        self._sharing.invalidate(room_id)

    def _invalidate_session_for_member_event(self, room_id: str) -> None:
        # The first sync makes every member new; a session of an earlier process is judged by the members instead.
        if self.olm is not None:
            self._sharing.invalidate_live(room_id)

    def _handle_joined_members(self, response: JoinedMembersResponse) -> None:
        self._sharing.note_members(response, super()._handle_joined_members)

    def _handle_olm_response(self, response: Any) -> None:
        # nio credits whatever session the room has when the answer comes; our sharing the one that was shared.
        if not isinstance(response, ShareGroupSessionResponse):
            super()._handle_olm_response(response)

    async def import_keys(self, infile: str, passphrase: str) -> None:
        """As nio's, piece by piece: every key is durable when this returns.

        Entries of no use are left out, and what the keys read is INDIRECT. Raises LocalProtocolError before the client
        is open; EncryptionError for another passphrase or a damaged file; errors of the file; and what `flush` raises.
        """
        await self._key_files.take_in(infile, passphrase)

    async def export_keys(self, outfile: str, passphrase: str, count: int = 500_000) -> None:
        """As nio's, in a thread, with the rounds and the UTF-8 of Element; the new file is there whole or not at all.

        Raises LocalProtocolError before the client is open, ConfigurationError or StorageFull where the file cannot be
        written, and what `flush` raises.
        """
        await self._key_files.write_out(outfile, passphrase, count)

    async def sync(
        self,
        timeout: int | None = 0,  # noqa: ASYNC109  # nio's own parameter
        sync_filter: Any = None,
        since: str | None = None,
        full_state: bool | None = None,
        set_presence: str | None = None,
    ) -> Synced:
        """As nio's; the first sync of a process asks for the full state, and one sync waits for another.

        The answer's keys and token are one batch, durable when this returns. If a callback raises, or the task is
        cancelled, the token stays where it was and the server sends the events again. What the homeserver left out of
        a timeline is asked for after that; events of such a room that the answer brings are neither decrypted nor
        handed on with it, but with those before them. Outside of `sync_forever` this returns when that is done; a
        room that the homeserver does not answer for at present is left to the next sync.

        Nothing is asked before `check_identity` has had an answer; what it got instead is the SyncError returned.

        Raises LocalProtocolError inside a callback: the request would acknowledge events that are not handled yet.
        Raises what `check_identity`, `check_ownership` and `flush` raise.
        """
        return await self._syncs.sync(timeout, sync_filter, since, full_state, set_presence)

    async def sync_forever(
        self,
        timeout: int | None = None,  # noqa: ASYNC109  # nio's own parameter
        sync_filter: Any = None,
        since: str | None = None,
        full_state: bool | None = None,
        loop_sleep_time: int | None = None,
        first_sync_filter: Any = None,
        set_presence: str | None = None,
    ) -> None:
        """As nio's, but when it ends, with any error, everything that it started has ended too.

        Raises FencedOut, which names the process that has the account now, DatabaseWentBack, AccessTokenRejected, after
        which `login_or_restore` logs in again, BackendUnavailable and StorageFull, after which it may be called again,
        and what callbacks raise. A sync that the homeserver refuses otherwise is logged and repeated.
        """
        if not self.logged_in:
            raise LocalProtocolError("Not logged in.")
        presence = set_presence or self._presence
        how = Rounds(timeout, sync_filter, since, full_state, loop_sleep_time, first_sync_filter, presence)
        try:
            await self._sync_loop.run(how, lambda: self._stop_sync_forever)
        finally:
            self._stop_sync_forever = False

    async def send_to_device_messages(self) -> list[Any]:
        """As nio's, but when one message fails the others are awaited before its error is raised."""
        return await all_of([self.to_device(message) for message in list(self.outgoing_to_device_messages)])

    async def _handle_sync(self, response: SyncResponse) -> None:
        if await self._syncs.handle(response):
            await self._trust.synced(response)

    async def _handle_to_device(self, response: SyncResponse) -> None:
        await self._to_device.handle(response, self._syncs.held)

    def _handle_decrypt_to_device(self, to_device_event: Any) -> Any:
        return self._to_device.decrypted(to_device_event, super()._handle_decrypt_to_device)

    async def _handle_joined_rooms(self, response: SyncResponse) -> None:
        await self._windows.handle(response, self.rooms, self.user_id, self._syncs.held)

    def _handle_timeline_event(self, event: Any, room_id: str, *_others: Any) -> Any:
        return self._rooms.decrypted(event, room_id)

    def _handle_olm_events(self, response: SyncResponse) -> None:
        self._rooms.note_devices(response)
