"""Whether something is open."""

from __future__ import annotations

from cryptostore.errors import StoreClosed


class OpenFlag:
    """Whether something is open. Closing the flag that it is `within` closes it too."""

    def __init__(self, name: str, within: OpenFlag | None = None) -> None:
        self._name = name
        self._within = within
        self._open = True

    def close(self) -> bool:
        """Close, and say whether this was open until now."""
        was_open, self._open = self._open, False
        return was_open

    def check(self) -> None:
        """Raise StoreClosed unless this and everything around it is open."""
        if self._within is not None:
            self._within.check()
        if not self._open:
            raise StoreClosed(f"{self._name} was closed; open it again to use it")
