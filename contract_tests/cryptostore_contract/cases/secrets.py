"""Secrets: what is in the database is sealed, and neither keys nor values are anywhere else."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import product
from urllib.parse import unquote, urlsplit

import pytest

from cryptostore import (
    Account,
    Batch,
    Changes,
    ConfigurationError,
    InboundGroupSession,
    OlmAccount,
    SyncToken,
    Value,
    new_pickle_key,
    open_backend,
)
from cryptostore.plugins.urls import redact
from cryptostore_contract.cases.base import CaseGroup
from cryptostore_contract.cases.batches import with_a_bad_value
from cryptostore_contract.cases.nio_machines import ROOM, Machine
from cryptostore_contract.handles import Handles, everything, own, put, read
from cryptostore_contract.harness import Ability, Harness
from cryptostore_contract.listening import listening
from cryptostore_contract.manifest import case
from cryptostore_contract.raw import RawOwner, found
from cryptostore_contract.samples import ALICE, BOB, KEY, sample
from cryptostore_contract.waiting import HANGS, finishes

#: In records.
_CANARY = "canary0secret"
_ACCESS_TOKEN = "canary0access0token"  # noqa: S105  # a canary

#: In rows that nothing has sealed: a backend must not say them either.
_RAW_KEY = "canary0raw0key"
_RAW_VALUE = "canary0raw0value"

#: Of this nothing is stored.
_PLAINTEXT = "canary0plaintext"

#: In URLs that are not to be opened.
_PASSWORD = "canary0password"  # noqa: S105  # a canary

_CAROL = Account("@carol:example.org", "CAROLDEVICE")

_MEBIBYTE = 2**20


class SecretCases(CaseGroup):
    """Canaries, looked for where they must not sing."""

    @case("SECRETS-1", checks=("DATABASE-4",))
    def test_no_secret_is_in_logs_errors_or_reprs(
        self, handles: Handles, harness: Harness, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with listening(capfd) as said:
            said += [*everything_said(handles), *everything_said_of_urls(harness.url)]
            with conversation(harness.url) as carol:
                said += [repr(one) for one in (carol.store, carol.olm.account, *carol.olm.inbound_group_store)]
                room_key = room_key_of(carol)
            wrong = error_of(lambda: Machine(_CAROL, harness.url, new_pickle_key()))
            said.append(wrong)
        assert wrong, "a wrong pickle key opened the account"
        _assert_unsaid({**secrets_of(harness), "the room key": room_key}, said)

    @case("SECRETS-2", checks=("DATABASE-4", "APPLY-5"), needs=(Ability.STOP_SERVER,))
    def test_no_secret_is_in_logs_or_errors_of_a_server_that_is_away(
        self, handles: Handles, harness: Harness, capfd: pytest.CaptureFixture[str]
    ) -> None:
        url = with_option(harness.url, "deadline=1.5")
        with listening(capfd) as said, conversation(url) as carol:
            store, room_key = handles.own(deadline=1.5), room_key_of(carol)
            raw = handles.raw(BOB)
            harness.stop_server()
            errors = [
                error_of(lambda: raw.database.commit(raw.row.id, secret_rows(raw), 1.5)),
                error_of(lambda: raw.database.get(raw.row.id, [_RAW_KEY.encode()], 1.5)),
                error_of(lambda: store.apply(secret_batch())),
                error_of(lambda: store.get(OlmAccount, [()])),
                error_of(lambda: handles.open(deadline=1.5).accounts()),
                error_of(carol.publish_one_time_key),
                error_of(lambda: Machine(_CAROL, url, KEY)),
            ]
            said += [*errors, error_of(lambda: carol.hear(carol.say(_PLAINTEXT, 2)))]
            harness.start_server()
        assert all(errors), "a server that was away was not missed"
        _assert_unsaid({**secrets_of(harness), "the room key": room_key}, said)

    @case("SECRETS-3", checks=("DATABASE-5",), needs=(Ability.TLS,))
    def test_secrets_are_encrypted_on_their_way(self, harness: Harness) -> None:
        batch = secret_batch()
        with harness.encrypted() as server:
            with open_backend(server.trusting) as backend:
                own(backend, ALICE).apply(batch)
                connections = server.connections()
            assert connections
            assert all(connections)
            with open_backend(server.trusting) as backend:
                assert everything(backend, ALICE) == {kind: batch.puts(kind) for kind in batch.kinds()}

    @case("SECRETS-4", checks=("DATABASE-5",), needs=(Ability.TLS,))
    def test_a_server_with_a_strangers_certificate_is_told_nothing(self, harness: Harness) -> None:
        with harness.encrypted() as server:
            _assert_refused(server.distrusting)
            open_backend(server.trusting).close()

    @case("SECRETS-5", checks=("DATABASE-5",), needs=(Ability.TLS,))
    def test_encryption_that_only_one_side_demands_is_a_mistake_in_the_url(self, harness: Harness) -> None:
        with harness.encrypted() as server:
            _assert_refused(server.plain)
            open_backend(server.trusting).close()
        _assert_refused(server.trusting)

    @case("SECRETS-9", checks=("DATABASE-5",), needs=(Ability.TLS,))
    def test_a_server_whose_certificate_is_for_another_name_is_told_nothing(self, harness: Harness) -> None:
        with harness.encrypted() as server:
            _assert_refused(server.misnamed)
            open_backend(server.trusting).close()

    @case("SECRETS-6", checks=("DATABASE-4", "SCHEMA-2"), needs=(Ability.NEWER_SCHEMA, Ability.REOPEN))
    def test_no_secret_is_in_the_refusal_of_a_newer_schema(
        self, handles: Handles, harness: Harness, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with handles.open() as backend:
            own(backend, ALICE).apply(secret_batch())
        harness.claim_newer_schema()
        with listening(capfd) as said:
            refusal = error_of(handles.open)
            said.append(refusal)
        assert "SchemaTooNew" in refusal
        _assert_unsaid(secrets_of(harness), said)

    @case("SECRETS-7", checks=("DATABASE-4", "APPLY-6"), needs=(Ability.FULL_DISK,))
    def test_no_secret_is_in_logs_or_errors_of_a_full_disk(
        self, handles: Handles, harness: Harness, capfd: pytest.CaptureFixture[str]
    ) -> None:
        raw = handles.raw()
        with listening(capfd) as said, harness.full_disk():
            refusal = error_of(lambda: finishes(lambda: raw.commit(secret_rows(raw, size=8 * _MEBIBYTE))))
            said.append(refusal)
        assert "StorageFull" in refusal
        _assert_unsaid(secrets_of(harness), said)

    @case("SECRETS-8", checks=("DATABASE-4",), needs=(Ability.RAW_STORAGE,))
    def test_no_secret_is_in_storage(self, handles: Handles, harness: Harness) -> None:
        with handles.open() as backend:
            own(backend, ALICE).apply(secret_batch())
        with conversation(harness.url) as carol:
            room_key = room_key_of(carol)
        raw = harness.raw_storage()
        # Logins and keys of records are stored in the clear.
        shown = [word for word in (ALICE.user_id, ALICE.device_id, "client\0access token") if word.encode() in raw]
        assert len(shown) == 3, "raw_storage does not show what is stored"
        secrets = {"a record": _CANARY, "an access token": _ACCESS_TOKEN, "a plaintext": _PLAINTEXT}
        secrets |= {"a pickle key": KEY, "a room key": room_key}
        found = [name for name, secret in secrets.items() if secret.encode() in raw]
        assert not found, f"in the storage: {found}"


def _assert_unsaid(secrets: Mapping[str, str], said: list[str]) -> None:
    """None of the secrets is in what was said. A failure tells their names: one may be the password of a live URL."""
    # Or pytest would list the arguments.
    __tracebackhide__ = True
    for (name, secret), text in product(secrets.items(), said):
        place = text.find(secret)
        # Asserted by its place: pytest would compare the texts letter by letter to show how they differ, for minutes.
        assert place < 0, f"{name} was said, after: {_without(secrets, text[:place])[-100:]}"


def _without(secrets: Mapping[str, str], text: str) -> str:
    for name, secret in secrets.items():
        text = text.replace(secret, f"({name})")
    return text


def _assert_refused(url: str) -> None:
    """It is refused at once, since trying again would change nothing, and told what to look at."""
    with pytest.raises(ConfigurationError, match=r"(?i)\b(tls|ssl|sslmode|encryption|certificate)\b"):
        # Closed at once where it opens by mistake: what it holds would be reported in a later test.
        finishes(lambda: open_backend(url, deadline=10 * HANGS).close())


def secret_batch() -> Changes:
    """A batch of nothing but secrets."""
    return Changes(
        [
            sample(OlmAccount, pickle=_CANARY.encode()),
            sample(InboundGroupSession, session_key=_CANARY.encode()),
            sample(SyncToken, token=_CANARY),
            Value("client", "access token", _ACCESS_TOKEN.encode()),
        ]
    )


def secret_rows(raw: RawOwner, size: int = 1) -> Batch:
    """A batch of rows with secrets in their keys and values, of so many bytes or more."""
    repeated = max(1, size // 8 // len(_RAW_VALUE) + 1)
    return raw.batch({f"{_RAW_KEY} {number}".encode(): _RAW_VALUE.encode() * repeated for number in range(8)})


def secrets_of(harness: Harness) -> dict[str, str]:
    """What must not be said, as text and as a dump of bytes might show it: the canaries, and the URL's password."""
    secrets = {
        "a record": _CANARY,
        "the access token": _ACCESS_TOKEN,
        "a raw key": _RAW_KEY,
        "a raw value": _RAW_VALUE,
        "the pickle key": KEY,
        "the plaintext": _PLAINTEXT,
        "a stranger's password": _PASSWORD,
    }
    password = urlsplit(harness.url).password
    # One that is the user's or the database's name as well is said without being given away.
    if password and password not in redact(harness.url):
        secrets |= {"the URL's password": password, "the URL's password, unquoted": unquote(password)}
    return secrets | {f"{name} in hexadecimal": secret.encode().hex() for name, secret in secrets.items()}


def everything_said(handles: Handles) -> list[str]:
    """What a database says, in errors and reprs, while secrets go in and out of it."""
    backend = handles.open()
    store = own(backend, ALICE)
    batch = secret_batch()
    store.apply(batch)
    records = [*store.select(OlmAccount, [()])[()], *store.get(SyncToken, [()]).values(), *store.scan(Value)]
    said = [repr(one) for one in (backend, backend.database, store, batch, records, store.ownership, backend.health())]
    said += [error_of(lambda: store.get(Value, [(_CANARY,)])), error_of(lambda: store.select(Value, [(_CANARY * 20,)]))]
    put(handles.own(), sample(SyncToken))
    said += [
        error_of(lambda: store.apply(batch)),
        error_of(lambda: handles.read().apply(batch)),
        error_of(lambda: read(backend, BOB)),
    ]
    backend.close()
    said.append(error_of(lambda: store.apply(batch)))
    return [*said, *everything_said_of_rows(handles), *everything_said_of_values()]


def everything_said_of_rows(handles: Handles) -> list[str]:
    """What a database says of a batch that it takes, one that it refuses, and one that comes too late."""
    raw = handles.raw()
    batch = secret_rows(raw)
    refused = error_of(lambda: raw.commit(with_a_bad_value(batch, 4)))
    raw.row = found(raw.database)
    raw.put(dict(batch.puts))
    handles.raw()
    return [refused, error_of(lambda: raw.commit(raw.batch(dict(batch.puts)))), repr(raw.database)]


def everything_said_of_values() -> list[str]:
    """How records refuse secrets that have the wrong form."""
    return [
        error_of(lambda: sample(OlmAccount, pickle=_CANARY)),
        error_of(lambda: sample(SyncToken, token=f"{_CANARY}\0")),
        error_of(lambda: sample(SyncToken, token=f"{_CANARY}\ud800")),
        error_of(lambda: sample(Value, value=[_CANARY])),
    ]


def everything_said_of_urls(url: str) -> list[str]:
    """What is said of a stranger's login, and of a password that stands where none belongs."""
    parts = urlsplit(url)
    place = url.removeprefix(f"{parts.scheme}://").removeprefix(f"{parts.netloc.rpartition('@')[0]}@")
    return [
        error_of(lambda: open_backend(f"{parts.scheme}://nobody:{_PASSWORD}@{place}", deadline=2).close()),
        error_of(lambda: open_backend(with_option(url, f"password={_PASSWORD}&password={_PASSWORD}")).close()),
    ]


def with_option(url: str, option: str) -> str:
    """The URL with an option more."""
    return f"{url}{'&' if '?' in url else '?'}{option}"


@contextmanager
def conversation(url: str) -> Iterator[Machine]:
    """Carol's encryption machine, with its store on the database, after it has told Bob's the plaintext."""
    with closing(Machine(_CAROL, url, KEY)) as carol, closing(Machine(BOB, "memory://", KEY)) as bob:
        carol.meet(bob)
        bob.hear(carol.share_room_key(BOB.user_id))
        assert bob.hear(carol.say(_PLAINTEXT, 1)) is None, "Bob has not verified Carol, and still believes her"
        yield carol


def room_key_of(machine: Machine) -> str:
    """What is the same in every export of the room's key from its beginning: most of its ratchet."""
    session_id = machine.olm.outbound_group_sessions[ROOM].id
    session = machine.olm.inbound_group_store.get(ROOM, machine.identity_keys["curve25519"], session_id)
    assert session is not None
    return str(session.export_session(0)[8:100])


def error_of(call: Callable[[], object]) -> str:
    """All that an error says, its causes included; nothing where there is none."""
    try:
        call()
    except Exception as error:  # noqa: BLE001  # whatever is raised, its text is what the case is about
        return "".join(_texts(error))
    return ""


def _texts(error: BaseException) -> Iterator[str]:
    # Without the places in the code: their paths are no secret, and may hold a word that is somebody's password.
    yield repr(error) + "".join(traceback.format_exception_only(error))
    if error.__cause__ is not None:
        yield from _texts(error.__cause__)
    elif error.__context__ is not None and not error.__suppress_context__:
        yield from _texts(error.__context__)
