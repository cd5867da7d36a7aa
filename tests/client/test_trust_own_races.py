"""First starts at the same moment, in many orders of their requests: one identity, whoever was first."""

from __future__ import annotations

import asyncio
import random

import pytest

from cryptostore.nio import IdentityState, ProductionMatrixClient
from cryptostore.trust import recovery_key
from own_identities import USER, assert_whole, client_at, identities, kept_key, kept_seeds
from small_homeserver import Request

#: Turns of the event loop that a request, or its answer, waits at most, and that the second start comes later.
_TURNS = 30
_LATER = 200


@pytest.mark.parametrize("takes_all", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_two_first_starts_leave_one_identity(memory_url: str, seed: int, takes_all: bool) -> None:
    chance = random.Random(seed)

    async def wait(_: Request) -> None:
        await _turns(chance.randrange(_TURNS))

    async def start(client: ProductionMatrixClient, later: int) -> None:
        await _turns(later)
        await client.login_or_restore("password")

    async def scenario() -> None:
        async with identities() as (server, known):
            known.takes_all_first_ones = takes_all
            server.pauses.append(wait)
            urls = [f"{memory_url}{number}" for number in range(2)]
            async with client_at(server, urls[0]) as one, client_at(server, urls[1]) as other:
                clients = [one, other]
                await asyncio.gather(start(one, 0), start(other, chance.randrange(_LATER)))
                # What others put into secret storage comes with the next sync, and so does what then was put there.
                for client in clients * 2:
                    await client.sync()
                (winner,) = [client for client in clients if client.identity_state is IdentityState.SIGNED]
                assert_whole(known, winner)
                (loser,) = [client for client in clients if client is not winner]
                assert kept_seeds(loser) is None
                await _takes_over(loser, winner)
                assert_whole(known, loser)
                assert_whole(known, winner)
            assert len(known.used_keys(USER)) == 3

    asyncio.run(scenario())


async def _turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def _takes_over(loser: ProductionMatrixClient, winner: ProductionMatrixClient) -> None:
    await loser.login_or_restore(recovery_key=recovery_key.encode(kept_key(winner)))
