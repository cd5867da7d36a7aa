"""A bot whose database is put back under it, everything that it ever sent, and the command that makes it safe."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from typing import Final

import pytest

from command_line import Ended, run_process
from cryptostore.nio.client.anchor import event_type
from driven import ClientFailed
from homeserver_bed import Bed
from homeserver_proxy import HomeserverProxy
from patience import PATIENCE
from peer_story import Story
from put_back import backup_of
from ratchet_uses import Use, megolm_use, olm_uses, used_twice

#: Messages of each side that the backup does not know.
LOST: Final = 25


class PutBack:
    """A person with Element and a bot, whose homeserver is reached through a proxy that keeps what it sends."""

    def __init__(self, bed: Bed, proxy: HomeserverProxy, lost: int = LOST) -> None:
        self._proxy = proxy
        self.story = Story(bed, homeserver=proxy.url)
        self.story.both_are_read_and_green("before")
        self.story.bot.call("back_up")
        self.story.bot.call("close")
        self._put_back = backup_of(self.url)
        self.start()
        for number in range(lost):
            # The first ones go on with what the backup knows.
            if number % 10 == 3:
                self.story.bot.call("rotate", room=self.story.room)
                self.story.person.call("rotate", room=self.story.room)
            self.story.both_are_read_and_green(f"lost {number}")
        self.story.bot.call("back_up")
        self.put_back()

    @property
    def url(self) -> str:
        """The bot's database."""
        return self.story.device.config.store

    def put_back(self) -> None:
        """The bot dies, and its database is as it was."""
        self.story.bot.kill()
        self._put_back()

    def start(self) -> None:
        """A new process of the bot."""
        self.story.bot = self.story.bed.start(self.story.device, homeserver=self._proxy.url)
        self.story.bot.call("sync")

    def killed_start(self, seconds: float) -> None:
        """A new process of the bot starts and syncs, and is killed after so many seconds."""
        ends = time.monotonic() + seconds
        client = self.story.bed.spawn(self.story.device, homeserver=self._proxy.url)
        with suppress(FutureTimeout):
            for command in ("start", "sync", "sync"):
                client.begin(command).result(timeout=max(0.0, ends - time.monotonic()))
        time.sleep(max(0.0, ends - time.monotonic()))
        client.kill()

    def is_refused(self) -> str:
        """What a start says that is refused."""
        client = self.story.bed.spawn(self.story.device, homeserver=self._proxy.url)
        with pytest.raises(ClientFailed) as refused:
            client.call("start")
        client.kill()
        assert refused.value.kind == "DatabaseWentBack"
        return str(refused.value)

    def restored(self) -> Ended:
        """Run the command."""
        config = self.story.device.config
        return run_process("restored", self.url, "--yes", "--watch", "0", env=self.environment(config.pickle_key))

    @staticmethod
    def environment(pickle_key: str) -> dict[str, str]:
        """Where the command finds the pickle key."""
        return {"CRYPTOSTORE_PICKLE_KEY": pickle_key}

    def catches_up(self, text: str) -> None:
        """The person says something, and the bot syncs until it has read that.

        Synapse answers a sync that it was asked for before with the same answer, from its cache: those of the lost time
        come once more, one after the other.
        """
        asked = self.story.ask(text)
        ends = time.monotonic() + PATIENCE
        while self.story.bot.texts().get(asked) != text:
            assert time.monotonic() < ends, self.story.bot.told[-3:]
            self.story.bot.call("sync")

    def is_whole(self) -> None:
        """Wait until the bot has replaced what was lost."""
        ends = time.monotonic() + PATIENCE
        while not self.story.bot.call("is_whole"):
            assert time.monotonic() < ends, self.story.bot.tail()
            time.sleep(0.05)

    def goes_on_unnoticed(self) -> list[object]:
        """Without an anchor the bot goes on with the older database: what it uses twice. Then that is put back again.

        What Element runs reads such a message, and says nothing.
        """
        self._hide_anchor()
        self.start()
        self.story.answer("with a key that was used")
        # The bot itself refuses a second message with one index.
        self.story.said.popitem()
        used = self.used_twice()
        self.put_back()
        return used

    def _hide_anchor(self) -> None:
        """Another session of the bot's user takes the anchor away."""
        api, device = self.story.bed.api, self.story.device
        path = f"/_matrix/client/v3/user/{device.user.user_id}/account_data/{event_type(self.story.device_id)}"
        api._ask("PUT", path, {}, device.user)

    def used_twice(self) -> list[object]:
        """The positions of Olm and Megolm ratchets with which the bot encrypted more than one thing."""
        return list(used_twice(self._uses()))

    def _uses(self) -> Iterator[Use]:
        for request in self._proxy.asked_for("m.room.encrypted"):
            if request.method == "PUT" and "/send/" in request.path:
                yield megolm_use(json.loads(request.body))
            elif request.method == "PUT":
                yield from olm_uses(json.loads(request.body)["messages"])
