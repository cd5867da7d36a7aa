"""An account of which everything is as it should be, and ways to spoil one thing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from nio.crypto import OlmAccount

from cryptostore import (
    Account,
    Changes,
    CrossSigningKeys,
    CryptoStore,
    FallbackKey,
    InboundGroupSession,
    KeyBackup,
    Record,
    Secret,
    SyncToken,
    open_backend,
    records,
)
from cryptostore.nio.pickles import Pickles
from cryptostore.trust.cross_signing import Seeds
from example_records import example

SEEDS: Final = Seeds(*(bytes([number]) * 32 for number in (1, 2, 3)))
MADE_AT: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OTHERS_KEY: Final = Seeds(*(bytes([number]) * 32 for number in (7, 8, 9))).public.master


def save(url: str, account: Account, pickle_key: str, *, owner: str = "its client") -> None:
    """Make a bot of which everything is as it should be."""
    with open_backend(url, owner=owner) as backend, backend.open_store(account, pickle_key=pickle_key) as store:
        olm_account = replace(Pickles(account).account_record(OlmAccount()), shared=True)
        store.apply(Changes([olm_account, SyncToken("s1")]))
        store.apply(Changes([*identity(store), *kept(store)]))


def identity(store: CryptoStore) -> Iterable[Record]:
    """An identity that has signed the device, with its private keys."""
    public = SEEDS.public
    keys = (public.master, public.self_signing, public.master, public.user_signing)
    yield CrossSigningKeys(store.account.user_id, *keys, signed_devices={store.account.device_id: signing_key(store)})
    for name, seed in SEEDS.by_name().items():
        yield Secret(name, store.secrets.seal(name, seed), MADE_AT)


def kept(store: CryptoStore) -> Iterable[Record]:
    """A fallback key, a key backup and a session."""
    key = signing_key(store)
    yield FallbackKey("signed_curve25519", "AAAA", key, "a signature", MADE_AT, confirmed=True)
    yield KeyBackup("7", "backup's public key", is_walked=True)
    yield example(InboundGroupSession, room_id="!room:example.org")


def signing_key(store: CryptoStore) -> str:
    """The device's Ed25519 key."""
    record = store.get(records.OlmAccount, [()])[()]
    return str(Pickles(store.account).account(record).identity_keys["ed25519"])
