"""The capabilities that a backend declares, and what the suite's cases say about each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cryptostore import BackendPlugin, Capability, Support

from .verdict import Judged, Outcome

#: The cases that show a capability where it is declared.
PRESENT: Final[Mapping[Capability, tuple[str, ...]]] = {
    Capability.SURVIVES_PROCESS_KILL: ("RESTART-2", "RESTART-3", "RESTART-4"),
    Capability.SURVIVES_POWER_LOSS: (),
    Capability.SURVIVES_SERVER_RESTART: ("FAULTS-3", "FAULTS-6", "FAULTS-7"),
    Capability.SEVERAL_PROCESSES: ("RESTART-6", "RESTART-7", "SCHEMA-5"),
    Capability.FENCING: ("OWNERSHIP-1", "OWNERSHIP-8", "CONCURRENCY-3"),
    Capability.SNAPSHOT_READS: ("CONCURRENCY-5", "CONCURRENCY-6"),
    Capability.BOUNDED_SCAN: ("SCANNING-4", "SCANNING-6"),
    Capability.SECURE_DELETE: ("ISOLATION-4", "ISOLATION-5"),
    Capability.TLS: ("SECRETS-3", "SECRETS-4", "SECRETS-5"),
}

#: Why no case shows a capability, where none can.
UNSHOWN: Final[Mapping[Capability, str]] = {
    Capability.SURVIVES_POWER_LOSS: "a test cannot cut the power, nor see whether a disk keeps what it said it wrote",
}

#: The cases that show its absence where it is declared to be absent.
ABSENT: Final[Mapping[Capability, tuple[str, ...]]] = {}


def capabilities(plugin: BackendPlugin, judged: list[Judged]) -> list[dict[str, str]]:
    """Each capability: what the backend says, why, and what the run says to that."""
    outcomes = {each.case.id: each.outcome for each in judged}
    rows = []
    for capability in Capability:
        claim = plugin.claim(capability)
        declared = claim.support in (Support.FULL, Support.VERSIONED)
        behind = (PRESENT if declared else ABSENT).get(capability, ())
        shown = _shown([outcomes[case_id] for case_id in behind], "present" if declared else "absent")
        if declared and not behind:
            shown += f": {UNSHOWN[capability]}"
        row = {"capability": capability.value, "declared": claim.support.value, "reason": claim.reason}
        rows.append(row | {"shown": shown, "cases": ", ".join(behind)})
    return rows


def _shown(outcomes: list[Outcome], what: str) -> str:
    if Outcome.FAILED in outcomes:
        return f"declared {what}, and found otherwise"
    return what if outcomes and set(outcomes) == {Outcome.PASSED} else "not verified"
