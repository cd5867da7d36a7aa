"""Times as databases keep them: microseconds since 1970 (UTC)."""

from __future__ import annotations

import time


def microseconds_now() -> int:
    """The time now."""
    return time.time_ns() // 1_000
