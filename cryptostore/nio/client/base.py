"""Every function of nio's client that is ours, each handed over to the part that it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from aiohttp import ClientResponse
from nio import (
    AsyncClient,
    AsyncClientConfig,
    ErrorResponse,
    JoinedMembersResponse,
    KeysQueryError,
    KeysQueryResponse,
    KeysUploadError,
    KeysUploadResponse,
    LoginResponse,
    RegisterResponse,
    Response,
    RoomSendError,
    RoomSendResponse,
    ShareGroupSessionResponse,
    SyncResponse,
    WhoamiResponse,
)
from nio.events import MegolmEvent

from cryptostore.plugins.urls import redact
from cryptostore.records import Account, WithheldKey

from .flushing import Flusher
from .gate import Gate, body_of
from .homeserver import Homeserver
from .identity import Identity
from .key_files import KeyFiles
from .key_queries import Claimed, KeyQueries
from .login import Login
from .machine import ProductionOlm
from .prefetch import Prefetching, Wanted, wanted_by
from .reaching import Reaching, Shared
from .session import Intervals, Opened, Session
from .sharing import RoomKeySharing
from .sharing_turns import SharingTurns
from .store import ProductionStore
from .sync_answer import SyncAnswer
from .uploading import KeyUploads
from .withholding import Withholding


class BaseClient(AsyncClient):
    """What a client does beside its syncs."""

    def __init__(
        self,
        homeserver: str,
        user: str,
        device_id: str | None,
        url: str,
        pickle_key: str,
        config: AsyncClientConfig | None,
        intervals: Intervals,
        homeserver_deadline: float,
        **connection: Any,
    ) -> None:
        # The pickle key stays out of the config: that is a dataclass, and its repr shows everything.
        ours = replace(config or AsyncClientConfig(), store=ProductionStore, store_sync_tokens=True)
        super().__init__(homeserver, user, device_id, redact(url), ours, **connection)
        if user.startswith("@"):
            self.user_id = user
        self._make_account_parts(url, pickle_key, intervals, homeserver_deadline)
        self._make_sharing_parts()

    def _make_account_parts(self, url: str, pickle_key: str, intervals: Intervals, deadline: float) -> None:
        self._session = Session(
            url, pickle_key, intervals, on_open=self._use, on_close=self._forget, close_connections=super().close
        )
        self.statistics = self._session.statistics
        homeserver = Homeserver(self, deadline)
        self._key_uploads = KeyUploads(self, self._session, self.check_identity, super().keys_upload)
        self._identity = Identity(
            self,
            self._session,
            homeserver,
            open_account=self.open,
            whoami=self.whoami,
            send=self._send,
            on_confirmed=self._key_uploads.start_over,
        )
        self._login = Login(self, self._session, self._identity, homeserver, self.flush)
        self._gate = Gate(self, self._session, self._identity, self._key_uploads, super().send)

    def _make_sharing_parts(self) -> None:
        self._prefetching = Prefetching(self._session)
        self._key_queries = KeyQueries(self, self._session, self._send)
        self._key_files = KeyFiles(self._session, self.flush)
        turns = SharingTurns(self.sharing_session)
        withholding = Withholding(self, self._session, self._send)
        self._reaching = Reaching(
            self, self._session, turns, self._prefetching, withholding, self._key_queries.claim, self._send
        )
        self._sharing = RoomKeySharing(
            self, self._session, self, turns, self._prefetching, withholding, self._reaching, self._send
        )

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
        this process has lost to another one.

        Raises ConfigurationError, WrongPickleKey and BackendUnavailable, and what else `Backend.open_store` raises;
        FencedOut for an account that this process has lost; AccessTokenRejected and HomeserverUnavailable; StoreClosed
        if `close` is called meanwhile. After an error nothing is taken over.
        """
        self._session.begin()
        if self.store is None and self.user_id and self.device_id:
            account = Account(self.user_id, self.device_id)
            await self._session.open(account, self._identity.look, take_over=take_over)

    async def login_or_restore(
        self, password: str | None = None, device_name: str = "", token: str | None = None, *, take_over: bool = False
    ) -> LoginResponse:
        """Log in once; later, on any host with the same database and pickle key, restore that login.

        Without a device id, the one device of this user in the database is meant, and in a database without one a
        new device id is chosen and saved before the homeserver hears of it. A token that the homeserver rejects leads
        to a new login as the same device. `token` is a login token (single sign-on), in place of a password.
        `take_over` takes an account back that this process has lost to another one.

        Everything that can be checked is checked before the account is taken over. After an error nothing is taken
        over, and no account is left behind; but a new device, whose login had no answer, keeps its id and its keys.

        Raises ConfigurationError if the homeserver refuses, if the database holds several devices of this user and
        none was named, and if homeserver and database do not belong together. Raises HomeserverUnavailable if the
        homeserver gives no usable answer inside the deadline: calling this again later may work. Raises what `open`
        raises.
        """
        return await self._login.log_in_or_restore(password, device_name, token, take_over=take_over)

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

    async def check_identity(self) -> ErrorResponse | None:
        """Compare this account with the device whose access token this is, and its keys with those that the homeserver
        has for the device: once for each token. Opens the account if `restore_login` has named it alone.

        Returns None if they are the same, and the homeserver's answer if it gave no usable one. Raises
        ConfigurationError if the token is another device's, or if the homeserver knows other keys: this database is not
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

    async def close(self) -> None:
        """Flush, and give the connections and the account back. Closing twice is no error.

        An opening that is under way is given up and awaited. Raises what `flush` raises, after everything was given
        back.
        """
        self._identity.forget_tokens()
        await self._session.close()

    @property
    def production_store(self) -> ProductionStore:
        """The open store. Raises StoreClosed if there is none."""
        return self._session.store

    @property
    def machine(self) -> ProductionOlm:
        """The encryption machine. Raises StoreClosed if the store is not open."""
        return self._session.machine

    def _use(self, opened: Opened) -> None:
        self.user_id, self.device_id = opened.store.user_id, opened.store.device_id
        self.store, self.olm = opened.store, opened.machine
        self.encrypted_rooms = opened.encrypted_rooms
        # What an earlier opening of this client knew may be out of date: another process may have had the account.
        self.next_batch, self.loaded_sync_token = "", opened.token or ""
        self.rooms.clear()
        self.invited_rooms.clear()
        self._identity.go_on()

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
        # nio leaves out what a sync says of fallback keys.
        return await super()._send(SyncAnswer if response_class is SyncResponse else response_class, *args, **kwargs)

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
            await super().receive_response(response)

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

    async def keys_upload(self) -> KeysUploadResponse | KeysUploadError:
        """As nio's. The keys count as published before they leave, and go out once; one upload waits for another.

        Raises what `check_identity` and `flush` raise, and as nio's LocalProtocolError if there is nothing to upload.
        """
        return await self._key_uploads.upload()

    async def keys_query(self) -> KeysQueryResponse | KeysQueryError:
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
    ) -> RoomSendResponse | RoomSendError:
        """As nio's. The ratchet is durable before the message leaves.

        Raises what `flush` raises, with nothing sent, GroupEncryptionError if the room's key could not be shared, and
        MembersSyncError if the homeserver did not say who is in the room.
        """
        # Without an open account nio would send plaintext.
        await self.open_restored()
        await self._sharing.make_ready(room_id, ignore_unverified_devices)
        sent: RoomSendResponse | RoomSendError = await super().room_send(
            room_id, message_type, content, tx_id, ignore_unverified_devices
        )
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

    def why_undecryptable(self, event: MegolmEvent) -> WithheldKey | None:
        """What the sender of a message said of its key, which it did not send; None if it said nothing.

        `code` is one of the specification, such as `m.unverified`, or another. It and `reason` are the sender's texts,
        of at most 256 characters. The database is not asked. Raises StoreClosed if the client is not open.
        """
        return self.machine.withheld.about(event)

    async def import_keys(self, infile: str, passphrase: str) -> None:
        """As nio's, piece by piece: every key is durable when this returns.

        Raises LocalProtocolError before the client is open; EncryptionError for another passphrase or a damaged file,
        with nothing imported; errors of the file; and what `flush` raises: importing it again takes in what is missing.
        """
        await self._key_files.take_in(infile, passphrase)

    def prefetched(self, wanted: Wanted) -> AbstractAsyncContextManager[None]:
        """Have what is wanted in memory inside the block. Raises BackendUnavailable."""
        return self._prefetching.of(wanted)

    def _buffer(self) -> Flusher:
        return self._session.flusher
