"""A bot's own cross-signing identity on a real homeserver: made once, kept in the database, restored without it."""

from __future__ import annotations

import pytest

from driven import ClientFailed
from homeserver_bed import Bed
from homeserver_client import Client
from homeserver_identities import assert_whole, identity_of, is_signed, opened
from homeserver_proxy import HomeserverProxy, PassOn

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def started(bed: Bed, user: object = None, **changes: object) -> tuple[Client, str]:
    """A process whose device is made by the client itself, and the device's id."""
    device = bed.device("bot") if user is None else bed.device_of(user)  # type: ignore[arg-type]
    client = bed.spawn(device, device_id="", **changes)
    return client, client.call("start")["device_id"]


def test_a_first_start_makes_an_identity_that_later_hosts_keep(bed: Bed) -> None:
    device = bed.device("bot")
    first = bed.start(device)
    shown = first.call("own_identity")
    assert (shown["state"], shown["has_seeds"]) == ("SIGNED", True)
    identity = assert_whole(bed.api, device.user, device.config.device_id, shown["recovery_key"])
    first.kill()
    second = bed.start(device, password="")
    assert second.call("own_identity") == shown
    second.call("sync")
    assert assert_whole(bed.api, device.user, device.config.device_id, shown["recovery_key"]) == identity


def test_without_the_database_the_recovery_key_makes_a_new_device_of_the_same_user(bed: Bed) -> None:
    device = bed.device("bot")
    first = bed.start(device)
    kept = first.call("own_identity")["recovery_key"]
    identity = assert_whole(bed.api, device.user, device.config.device_id, kept)
    first.kill()
    second, device_id = started(bed, device.user, recovery_key=kept)
    assert device_id != device.config.device_id
    assert second.call("own_identity") == {"state": "SIGNED", "has_seeds": True, "recovery_key": kept}
    assert assert_whole(bed.api, device.user, device_id, kept) == identity


def test_without_database_and_recovery_key_the_bot_goes_on_unsigned_and_replaces_nothing(any_bed: Bed) -> None:
    device = any_bed.device("bot")
    kept = any_bed.start(device).call("own_identity")["recovery_key"]
    identity = assert_whole(any_bed.api, device.user, device.config.device_id, kept)
    second, device_id = started(any_bed, device.user)
    shown = second.call("own_identity")
    assert (shown["state"], shown["has_seeds"]) == ("OTHER_IDENTITY", False)
    assert not is_signed(any_bed.api, device.user, device_id)
    assert "CRYPTOSTORE_RECOVERY_KEY" in second.tail()
    assert assert_whole(any_bed.api, device.user, device.config.device_id, kept) == identity


def test_a_device_id_that_had_another_store_cannot_be_signed_again_and_the_text_says_so(any_bed: Bed) -> None:
    device = any_bed.device("bot")
    first = any_bed.start(device)
    kept = first.call("own_identity")["recovery_key"]
    first.kill()
    any_bed.api.delete_device(device.user, device.config.device_id)
    again = any_bed.start(device, store=any_bed.new_url(), recovery_key=kept)
    assert again.call("own_identity")["state"] == "STALE_SIGNATURE"
    assert "log in as a new device" in again.tail()


def test_two_first_starts_at_once_leave_one_identity(bed: Bed) -> None:
    one = bed.device("bot")
    devices = [one, bed.device_of(one.user)]
    clients = [bed.spawn(device) for device in devices]
    for client in clients:
        client.call("passed")
    for answer in [client.begin("start") for client in clients]:
        answer.result(120)
    # Whoever lost may have written over what the other one put into secret storage; both look when it changes.
    for client in clients * 2:
        client.call("sync")
    shown = {client: client.call("own_identity") for client in clients}
    winners = [client for client in clients if shown[client]["state"] == "SIGNED"]
    assert len(winners) == 1, shown
    (loser,) = set(clients) - set(winners)
    assert (shown[loser]["state"], shown[loser]["has_seeds"]) == ("OTHER_IDENTITY", False)
    kept = shown[winners[0]]["recovery_key"]
    assert_whole(bed.api, one.user, winners[0].config.device_id, kept)
    loser.kill()
    restored = bed.spawn(devices[clients.index(loser)], recovery_key=kept)
    restored.call("start")
    assert restored.call("own_identity")["state"] == "SIGNED"
    assert_whole(bed.api, one.user, restored.config.device_id, kept)


def test_a_reset_wants_the_password_and_replaces_the_identity(any_bed: Bed) -> None:
    device = any_bed.device("bot")
    client = any_bed.start(device)
    before = client.call("own_identity")["recovery_key"]
    identity = assert_whole(any_bed.api, device.user, device.config.device_id, before)
    for password, problem in ((None, "give it as password="), ("wrong", "password is wrong")):
        with pytest.raises(ClientFailed, match=problem):
            client.call("reset_identity", password=password)
        assert identity_of(any_bed.api, device.user) == identity
    client.call("reset_identity", password=device.user.password)
    shown = client.call("own_identity")
    assert shown["state"] == "SIGNED"
    after = assert_whole(any_bed.api, device.user, device.config.device_id, shown["recovery_key"])
    assert after.master_key != identity.master_key
    with pytest.raises(ValueError, match="not the one of the secret storage key"):
        opened(any_bed.api, device.user, before)


def test_an_identity_that_the_homeserver_stored_in_part_is_completed(any_bed: Bed, proxy: HomeserverProxy) -> None:
    device = any_bed.device("bot")

    def stores_the_master_key_alone(_: PassOn) -> None:
        # Synapse stores the three keys in three transactions, between which it may die.
        request = proxy.asked_for("device_signing")[-1]
        token = request.headers["Authorization"].removeprefix("Bearer ")
        any_bed.api.upload_identity(token, {"master_key": request.content["master_key"]})

    first = any_bed.spawn(device, homeserver=proxy.url)
    fault = proxy.fault("device_signing", stores_the_master_key_alone)
    with fault, pytest.raises(ClientFailed, match="HomeserverUnavailable"):
        first.call("start")
    first.kill()
    master_key = any_bed.api.master_key(device.user)
    assert master_key
    client = any_bed.start(device)
    assert any_bed.api.master_key(device.user) == master_key
    assert_whole(any_bed.api, device.user, device.config.device_id, client.call("own_identity")["recovery_key"])
