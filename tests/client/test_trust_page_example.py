"""The program on the page about trust verifies people, and declines strangers."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from client_pairs import Person
from cryptostore import VerificationCancelled
from verifying import ALICE, BOB, ended, is_verified, syncing, town, until

PAGE = (Path(__file__).parents[2] / "docs" / "trust.md").read_text()


def program(person: Person, answer: str, operators: set[str]) -> dict[str, Any]:
    """What the page's program defines, begun for this person's client, and a terminal where this is answered."""
    (block,) = [each for each in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "on_verification" in each]
    names: dict[str, Any] = {"client": person.client, "input": lambda _question: answer}
    exec(block, names)
    names["OPERATORS"].clear()
    names["OPERATORS"].update(operators)
    return names


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_an_operator_verifies_the_bot_and_is_verified(
    memory_url: str, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            program(place.bob, answer, {ALICE.user_id})
            alices = await place.alice.client.request_verification(BOB.user_id)
            shown = await alices.comparison()
            if answer == "yes":
                await alices.confirm()
                assert [each.user for each in await ended(alices)] == [True]
            else:
                with pytest.raises(VerificationCancelled, match="did not match"):
                    await ended(alices)
            written = ""

            def has_ended() -> bool:
                nonlocal written
                written += capsys.readouterr().out
                return ("the user is verified" if answer == "yes" else "did not match") in written

            await until(has_ended)
            assert written.startswith(" ".join(each.name for each in shown.emoji))
            assert is_verified(place.bob, place.alice) == (answer == "yes")

    asyncio.run(scenario())


def test_strangers_are_declined_and_the_bot_may_ask(memory_url: str) -> None:
    async def scenario() -> None:
        async with town(memory_url) as place, syncing(place.alice, place.bob):
            bobs = program(place.bob, "yes", set())
            alices = await place.alice.client.request_verification(BOB.user_id)
            with pytest.raises(VerificationCancelled, match=r"m\.user"):
                await ended(alices)
            program(place.alice, "yes", {BOB.user_id})
            async with asyncio.timeout(20):
                shown = await bobs["ask"](ALICE.user_id, None)
            assert len(shown.decimals) == 3

    asyncio.run(scenario())
