"""Showing the demo while it runs."""

from __future__ import annotations

from typing import Any, Self

from cryptostore.cli.output import bars, messages, say


class Audience:
    """People at a terminal see bars; a log file gets plain lines. Both on standard error."""

    def __init__(self, total: int) -> None:
        self._console = messages()
        self._total = total
        self._bars = bars(self._console)
        self._tasks: dict[str, Any] = {}

    def say(self, text: str) -> None:
        """One thing happened."""
        say(text, self._console)

    def progress(self, sender: str, done: int) -> None:
        """So many of the sender's messages are with the recipient."""
        if self._console.is_terminal:
            if sender not in self._tasks:
                self._tasks[sender] = self._bars.add_task(f"from {sender}", total=self._total)
            self._bars.update(self._tasks[sender], completed=done)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bars.stop()
