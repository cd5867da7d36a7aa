"""The acceptance list that this project began with: ten rows, each standing on cases of the suite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .verdict import Judged, Outcome

#: What each row stands on; it passes if every one of these cases does.
ROWS: Final[Mapping[str, tuple[str, ...]]] = {
    "unit_olm_account": ("RECORDS-1", "RECORDS-6", "RECORDS-8", "NIO-2"),
    "unit_megolm_session": ("RECORDS-1", "RECORDS-4", "READING-13", "NIO-2"),
    "unit_device_keys": ("RECORDS-1", "RECORDS-4", "RECORDS-8", "RECORDS-10"),
    "unit_sync_token": ("RECORDS-1", "RECORDS-8", "BATCHES-1", "OWNERSHIP-6"),
    "integration_client": ("NIO-1", "NIO-2"),
    "integration_restart": ("RESTART-1", "RESTART-2", "RESTART-3", "NIO-1"),
    "integration_recovery": ("RESTART-4", "NUMBERING-5", "NUMBERING-6", "NUMBERING-7"),
    "performance_bulk": ("PERFORMANCE-1",),
    "error_handling": ("BATCHES-3", "BATCHES-9", "LIFECYCLE-1", "OWNERSHIP-3", "RECORDS-5", "SEALED-1"),
    "data_consistency": ("BACKUPS-2", "CONCURRENCY-1", "CONCURRENCY-3", "CONCURRENCY-7", "ISOLATION-1", "NUMBERING-2"),
}


def acceptance(judged: list[Judged]) -> dict[str, str]:
    """PASS, FAIL or NOT VERIFIED for each row; PASS only where all that is behind it was run and passed."""
    outcomes = {each.case.id: each.outcome for each in judged}
    return {row: _result([outcomes[case_id] for case_id in behind]) for row, behind in ROWS.items()}


def _result(outcomes: list[Outcome]) -> str:
    if Outcome.FAILED in outcomes:
        return "FAIL"
    return "PASS" if set(outcomes) == {Outcome.PASSED} else "NOT VERIFIED"
