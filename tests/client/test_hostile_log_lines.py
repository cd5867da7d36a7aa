"""Ids that strangers chose, on their way from a homeserver or a database into the log of a client."""

from __future__ import annotations

import logging
from typing import Final

import pytest

from cryptostore import Account, Changes, Mode, Row, TrackedUser, new_pickle_key, open_backend
from cryptostore.nio.client.device_keys import DeviceKeysResponse
from cryptostore.store.keys import encode_key
from hostile_text import HOSTILE, raw_in

FORMAT: Final = logging.Formatter("%(levelname)s:%(name)s:%(message)s")
NAMES: Final = pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)


def log_of(caplog: pytest.LogCaptureFixture) -> str:
    """What a file would hold; there is something."""
    assert caplog.records
    return "\n".join(map(FORMAT.format, caplog.records))


@NAMES
def test_a_device_whose_keys_are_malformed(name: str, caplog: pytest.LogCaptureFixture) -> None:
    DeviceKeysResponse.from_dict({"device_keys": {f"@{name}:x": {name: "no keys"}}, "failures": {}})
    assert raw_in(log_of(caplog), lines=True) == []


@NAMES
def test_an_account_with_a_damaged_row(name: str, caplog: pytest.LogCaptureFixture) -> None:
    account, key = Account("@bot:example.org", name), new_pickle_key()
    with open_backend("memory://") as backend:
        with backend.open_store(account, pickle_key=key) as store:
            store.apply(Changes([TrackedUser(name)]))
            store.put_rows([Row(encode_key(TrackedUser, (name,)), b"damaged")])
        with backend.open_store(account, Mode.READ, pickle_key=key) as store:
            list(store.scan(TrackedUser))
    assert raw_in(log_of(caplog), lines=True) == []
