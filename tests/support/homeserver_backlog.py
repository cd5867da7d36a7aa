"""Messages in several rooms that a bot has to answer, and whether it did."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from homeserver_api import encrypted
from homeserver_bed import Bed, Device
from homeserver_client import Client

#: Seconds without any new answer after which none is expected.
_PATIENCE: Final = 40.0


@dataclass
class Backlog:
    """What Alice asked, by room, in order: each event's id and text."""

    bed: Bed
    alice: Device
    bot: Device
    asked: dict[str, dict[str, str]]

    def ask(self, client: Client, messages: int, keys: int = 0, room: str | None = None) -> None:
        """Say so much in every room, or in one; the first `keys` messages have a room key of their own."""
        for each in self.asked if room is None else [room]:
            said = len(self.asked[each])
            texts = [f"question {said + number}" for number in range(messages)]
            for chunk, rotate in ((texts[:keys], True), (texts[keys:], False)):
                self.asked[each] |= client.call("say_all", room=each, texts=chunk, rotate=rotate)

    @property
    def total(self) -> int:
        """All questions."""
        return sum(map(len, self.asked.values()))

    def answered(self) -> int:
        """How many messages the homeserver has of the bot."""
        timelines = (self.bed.api.timeline(self.alice.user, room) for room in self.asked)
        return sum(len(encrypted(timeline, self.bot.user.user_id)) for timeline in timelines)

    def wait(self) -> None:
        """Wait until there is an answer to everything, or none comes any more."""
        self.wait_for(None)

    def wait_for(self, answers: int | None) -> None:
        """Wait until there are so many answers, one for each question if None, or none comes any more."""
        seen, ends = self.answered(), time.monotonic() + _PATIENCE
        while seen < (self.total if answers is None else answers) and time.monotonic() < ends:
            time.sleep(0.2)
            if (now := self.answered()) > seen:
                seen, ends = now, time.monotonic() + _PATIENCE

    def answers(self, client: Client, room: str) -> list[str]:
        """What the bot said in a room, in order, as Alice reads it."""
        texts = client.call("history", room=room)
        ids = encrypted(self.bed.api.timeline(self.alice.user, room), self.bot.user.user_id)
        return [str(texts[event_id]) for event_id in ids]

    def assert_answered(self, client: Client, answer: Callable[[str, str], str]) -> None:
        """Fail unless every message has one answer, and the answers of each room are in its order."""
        self.wait()
        client.call("sync")
        wanted = {room: [answer(*each) for each in asked.items()] for room, asked in self.asked.items()}
        answers = {room: self.answers(client, room) for room in self.asked}
        found = sum(len(set(wanted[room]) & set(answers[room])) for room in wanted)
        assert answers == wanted, f"{found} of {self.total} answered; {sum(map(len, answers.values()))} answers"


def backlog(bed: Bed, rooms: int = 1, store: str | None = None) -> tuple[Backlog, Client]:
    """Alice and a bot's user in so many rooms. Alice's client runs, the bot's does not; its keys are in `store`."""
    alice, account = bed.device("alice"), bed.device("bot", store=store)
    asked = {bed.api.encrypted_room(alice.user, account.user): dict[str, str]() for _ in range(rooms)}
    client = bed.start(alice)
    client.call("sync")
    return Backlog(bed, alice, account, asked), client


def met_bot(questions: Backlog, alice: Client) -> Client:
    """The bot's first process, which has answered one message in each room, and answers what comes."""
    bot = questions.bed.start(questions.bot)
    for client in (bot, alice):
        client.call("sync")
    bot.call("answer", derived=True)
    bot.call("sync_forever")
    questions.ask(alice, 1)
    questions.wait()
    return bot


def answering(questions: Backlog) -> Client:
    """A new process of the bot, which answers what comes."""
    bot = questions.bed.start(questions.bot)
    bot.call("answer", derived=True)
    bot.call("sync_forever")
    return bot
