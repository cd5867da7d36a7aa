"""The one promise about time: bulk work is quick enough for a client's start. No other case looks at a clock."""

from __future__ import annotations

import time
from typing import Final

from cryptostore import InboundGroupSession
from cryptostore_contract.cases.base import CaseGroup
from cryptostore_contract.handles import Handles, put
from cryptostore_contract.manifest import case
from cryptostore_contract.samples import samples

_SESSIONS: Final = 50
_SECONDS_TO_SAVE: Final = 10.0
_SECONDS_TO_LOAD: Final = 5.0


class PerformanceCases(CaseGroup):
    """Far above what any database needs, so that only a mistake in kind fails: a fold more round trips, or a lock."""

    @case("PERFORMANCE-1", checks=("APPLY-6", "SCAN-1"))
    def test_fifty_sessions_are_saved_one_by_one_and_loaded(self, handles: Handles) -> None:
        sessions = samples(InboundGroupSession, _SESSIONS)
        store = handles.own()
        started = time.monotonic()
        for session in sessions:
            put(store, session)
        saved = time.monotonic() - started
        reader = handles.read()
        started = time.monotonic()
        loaded = list(reader.scan(InboundGroupSession))
        took = time.monotonic() - started
        assert loaded == sessions
        assert saved < _SECONDS_TO_SAVE
        assert took < _SECONDS_TO_LOAD
