"""SIGKILL at random moments of a bot's first start: one identity, never two, on the homeserver and in the database."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from driven import ClientDied
from homeserver_bed import Bed, Device, Figure
from homeserver_identities import assert_whole, identity_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

#: Kills that one bot's first start has to survive, one after the other, before it is left alone.
_KILLS_PER_BOT = 4
#: Beyond the first start that is not killed, so that some kills come when all is done.
_LONGER = 1.2


def test_random_kills_of_first_starts_leave_one_identity(bed: Bed, figure: Figure) -> None:
    _kill_first_starts(bed, kills=40, figure=figure)


@pytest.mark.soak
@pytest.mark.timeout(14_400)
def test_many_random_kills_of_first_starts_leave_one_identity(bed: Bed, figure: Figure) -> None:
    _kill_first_starts(bed, kills=300, figure=figure)


def _kill_first_starts(bed: Bed, kills: int, figure: Figure) -> None:
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)
    seconds = _seconds_of_a_start(bed) * _LONGER
    reached: list[str] = []
    try:
        for _ in range(kills // _KILLS_PER_BOT):
            reached += _killed_first_start(bed, chance, seconds)
    except AssertionError as error:
        error.add_note(f"seed {seed}")
        raise
    places = ", ".join(f"{reached.count(place)} {place}" for place in sorted(set(reached)))
    figure(f"{kills} kills of first starts, one identity each; {places}; seed {seed}")


def _seconds_of_a_start(bed: Bed) -> float:
    client = bed.spawn(bed.device("bot"))
    client.call("passed")
    began = time.monotonic()
    client.call("start")
    ended = time.monotonic()
    client.kill()
    return ended - began


def _killed_first_start(bed: Bed, chance: random.Random, seconds: float) -> list[str]:
    """How far the start of one bot was when it was killed, each time."""
    device = bed.device("bot")
    masters: set[str] = set()
    reached = []
    for _ in range(_KILLS_PER_BOT):
        _kill_a_start(bed, device, chance.uniform(0, seconds))
        identity = identity_of(bed.api, device.user)
        masters |= {identity.master_key} if identity else set()
        reached.append(_reached(bed, device))
    client = bed.start(device)
    shown = client.call("own_identity")
    assert (shown["state"], shown["has_seeds"]) == ("SIGNED", True)
    identity = assert_whole(bed.api, device.user, device.config.device_id, shown["recovery_key"])
    assert masters <= {identity.master_key}
    client.kill()
    return reached


def _kill_a_start(bed: Bed, device: Device, seconds: float) -> None:
    client = bed.spawn(device)
    # Until it has imported everything.
    client.call("passed")
    answer: Any = client.begin("start")
    time.sleep(seconds)
    client.kill()
    try:
        answer.result(60)
    except ClientDied:
        return


def _reached(bed: Bed, device: Device) -> str:
    """What the homeserver has after a kill."""
    answer = bed.api.keys_of(device.user, device.user)
    of_device = answer["device_keys"].get(device.user.user_id, {}).get(device.config.device_id)
    if answer["master_keys"]:
        signatures = of_device["signatures"][device.user.user_id] if of_device else {}
        return "signed" if len(signatures) > 1 else "with the identity"
    if bed.api.account_data(device.user, "m.secret_storage.default_key"):
        return "with secret storage"
    if bed.api.account_data(device.user, "m.cross_signing.master"):
        return "with half of secret storage"
    return "with device keys" if of_device else "with nothing"
