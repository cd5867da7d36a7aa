"""Secrets: pickles, tokens and passwords are in the database, and nowhere else."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

import pytest

from cryptostore import (
    Account,
    Batch,
    Changes,
    ConfigurationError,
    Mode,
    OlmAccount,
    SyncToken,
    Value,
    open_backend,
)
from cryptostore_contract.cases.base import CaseGroup
from cryptostore_contract.cases.batches import spoil
from cryptostore_contract.cases.nio_machines import Machine
from cryptostore_contract.handles import Handles, everything, put
from cryptostore_contract.harness import Ability, Harness
from cryptostore_contract.manifest import case
from cryptostore_contract.samples import ALICE, BOB, sample
from cryptostore_contract.waiting import HANGS, finishes

_CANARY = "canary0secret"

#: Of these nothing is stored, either.
_PICKLE_KEY = "canary0pickle0key"
_PLAINTEXT = "canary0plaintext"

_CAROL = Account("@carol:example.org", "CAROLDEVICE")


class SecretCases(CaseGroup):
    """Canaries, looked for where they must not sing."""

    @case("SECRETS-1", checks=("BACKEND-4",))
    def test_no_secret_is_in_logs_errors_or_reprs(
        self, handles: Handles, harness: Harness, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.DEBUG):
            seen = [*everything_said(handles), *everything_said_by_machines(harness)]
        if Ability.RAW_STORAGE in harness.abilities:
            raw = harness.raw_storage()
            assert _PICKLE_KEY.encode() not in raw
            assert _PLAINTEXT.encode() not in raw
        for secret in (*secrets_of(harness), _PICKLE_KEY, _PLAINTEXT):
            assert secret not in caplog.text
            for text in seen:
                assert secret not in text

    @case("SECRETS-2", checks=("BACKEND-4", "APPLY-5"), needs=(Ability.STOP_SERVER,))
    def test_no_secret_is_in_logs_or_errors_of_a_server_that_is_away(
        self, handles: Handles, harness: Harness, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.DEBUG):
            store = handles.own(deadline=1.5)
            harness.stop_server()
            seen = [
                error_of(lambda: store.apply(secret_batch())),
                error_of(lambda: store.get(OlmAccount, [()])),
                error_of(lambda: handles.open(deadline=1.5).accounts()),
            ]
            harness.start_server()
        for secret in secrets_of(harness):
            assert secret not in caplog.text
            for text in seen:
                assert secret not in text

    @case("SECRETS-3", checks=("BACKEND-5",), needs=(Ability.TLS,))
    def test_secrets_are_encrypted_on_their_way(self, harness: Harness) -> None:
        batch = secret_batch()
        with harness.encrypted() as server:
            with open_backend(server.trusting) as backend:
                backend.open_store(ALICE).apply(batch)
                connections = server.connections()
            assert connections
            assert all(connections)
            with open_backend(server.trusting) as backend:
                assert everything(backend, ALICE) == {kind: batch.puts(kind) for kind in batch.kinds()}

    @case("SECRETS-4", checks=("BACKEND-5",), needs=(Ability.TLS,))
    def test_a_server_with_a_strangers_certificate_is_told_nothing(self, harness: Harness) -> None:
        with harness.encrypted() as server:
            _assert_refused(server.distrusting)
            open_backend(server.trusting).close()

    @case("SECRETS-5", checks=("BACKEND-5",), needs=(Ability.TLS,))
    def test_encryption_that_only_one_side_demands_is_a_mistake_in_the_url(self, harness: Harness) -> None:
        with harness.encrypted() as server:
            _assert_refused(server.plain)
            open_backend(server.trusting).close()
        _assert_refused(server.trusting)


def _assert_refused(url: str) -> None:
    """It is refused at once, since trying again would change nothing, and told what to look at."""
    with pytest.raises(ConfigurationError, match=r"(?i)\b(tls|ssl|sslmode|encryption|certificate)\b"):
        finishes(lambda: open_backend(url, deadline=10 * HANGS))


def secret_batch() -> Changes:
    """A batch of nothing but secrets."""
    return Changes(
        [
            sample(OlmAccount, pickle=_CANARY.encode(), key_check=_CANARY.encode()),
            sample(SyncToken, token=_CANARY),
            sample(Value, value=_CANARY.encode()),
        ]
    )


def secrets_of(harness: Harness) -> list[str]:
    """What must not be said: the canary, as text and as a dump of bytes might show it, and the URL's password."""
    password = urlsplit(harness.url).password
    return [_CANARY, _CANARY.encode().hex(), *([password, unquote(password)] if password else [])]


def everything_said(handles: Handles) -> list[str]:
    """What a database says, in errors and reprs, while secrets go in and out of it."""
    backend = handles.open()
    store = backend.open_store(ALICE)
    batch = secret_batch()
    store.apply(batch)
    records = [*store.select(OlmAccount, [()])[()], *store.get(SyncToken, [()]).values(), *store.scan(Value)]
    spoilt = secret_batch()
    spoil(spoilt.puts(Value)[0])
    said = [repr(one) for one in (backend, store, batch, Batch(1, batch), records, store.ownership, backend.health())]
    said += [error_of(lambda: store.commit(Batch(9, batch), 5)), error_of(lambda: store.apply(spoilt))]
    put(handles.own(), sample(SyncToken))
    said += [
        error_of(lambda: store.apply(batch)),
        error_of(lambda: handles.read().apply(batch)),
        error_of(lambda: backend.open_store(BOB, Mode.READ)),
    ]
    backend.close()
    return [*said, error_of(lambda: store.apply(batch))]


def everything_said_by_machines(harness: Harness) -> list[str]:
    """What real encryption machines and their stores say, on which neither a pickle key nor a plaintext may be seen."""
    carol, bob = Machine(_CAROL, harness.url, _PICKLE_KEY), Machine(BOB, "memory://", _PICKLE_KEY)
    carol.meet(bob)
    bob.hear(carol.share_room_key(BOB.user_id))
    assert bob.hear(carol.say(_PLAINTEXT, 1)) is None, "Bob has not verified Carol, and still believes her"
    said = [repr(one) for one in (carol.store, carol.olm.account, *carol.olm.inbound_group_store)]
    carol.close()
    wrong = error_of(lambda: Machine(_CAROL, harness.url, f"{_PICKLE_KEY} that is wrong"))
    assert wrong, "a wrong pickle key opened the account"
    bob.close()
    return [*said, wrong]


def error_of(call: Callable[[], object]) -> str:
    """All that an error shows, its causes included; nothing where there is none."""
    try:
        call()
    except Exception as error:  # noqa: BLE001  # whatever is raised, its text is what the case is about
        return repr(error) + "".join(traceback.format_exception(error))
    return ""
