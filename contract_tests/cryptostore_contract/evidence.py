"""The capabilities that a backend declares, and what the suite's cases say about each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cryptostore import BackendPlugin, Capability, Support

from .verdict import Judged, Outcome

_DECLARED: Final = (Support.FULL, Support.VERSIONED)

#: The cases that show a capability where it is declared.
PRESENT: Final[Mapping[Capability, tuple[str, ...]]] = {
    Capability.SURVIVES_PROCESS_KILL: ("RESTART-2", "RESTART-3", "RESTART-4"),
    Capability.SURVIVES_POWER_LOSS: (),
    Capability.SURVIVES_SERVER_RESTART: ("FAULTS-3", "FAULTS-6", "FAULTS-7"),
    Capability.SEVERAL_PROCESSES: ("RESTART-6", "RESTART-7", "SCHEMA-5"),
    Capability.FENCING: ("OWNERSHIP-1", "OWNERSHIP-8", "BACKUPS-2", "CONCURRENCY-3"),
    Capability.SNAPSHOT_READS: ("CONCURRENCY-5", "CONCURRENCY-6", "CONCURRENCY-7"),
    Capability.BOUNDED_SCAN: ("SCANNING-4", "SCANNING-6"),
    Capability.SECURE_DELETE: ("ISOLATION-4", "ISOLATION-5"),
    Capability.TLS: ("SECRETS-3", "SECRETS-4", "SECRETS-5"),
}

#: The cases that show its absence where it is declared to be absent.
ABSENT: Final[Mapping[Capability, tuple[str, ...]]] = {
    Capability.SURVIVES_PROCESS_KILL: ("CAPABILITIES-1",),
    Capability.SURVIVES_SERVER_RESTART: ("FAULTS-6",),
    Capability.SEVERAL_PROCESSES: ("CAPABILITIES-2",),
    Capability.FENCING: ("CAPABILITIES-3",),
    Capability.SNAPSHOT_READS: ("CAPABILITIES-3",),
    Capability.BOUNDED_SCAN: ("CAPABILITIES-3",),
}

#: Why no case shows a capability, where none can.
UNSHOWN: Final[Mapping[Capability, str]] = {
    Capability.SURVIVES_POWER_LOSS: "a test cannot cut the power, nor see whether a disk keeps what it said it wrote",
}

#: Why no case shows its absence, where none can, or none did.
UNSHOWN_ABSENCE: Final[Mapping[Capability, str]] = {
    **UNSHOWN,
    Capability.SURVIVES_SERVER_RESTART: "the harness has no server that it could kill",
    Capability.SECURE_DELETE: "how long deleted bytes stay is chance, so that finding none proves nothing",
    Capability.TLS: "that nothing listens for TLS cannot be shown from here",
}


def capabilities(plugin: BackendPlugin, judged: list[Judged]) -> list[dict[str, str]]:
    """Each capability: what the backend says, why, and what the run says to that."""
    outcomes = {each.case.id: each.outcome for each in judged}
    rows = []
    for capability in Capability:
        claim = plugin.claim(capability)
        behind = _behind(plugin, capability)
        row = {"capability": capability.value, "declared": claim.support.value, "reason": claim.reason}
        shown = _shown(capability, claim.support, [outcomes[case_id] for case_id in behind])
        rows.append(row | {"shown": shown, "cases": ", ".join(behind)})
    return rows


def _behind(plugin: BackendPlugin, capability: Capability) -> tuple[str, ...]:
    support = plugin.claim(capability).support
    if support is Support.UNKNOWN:
        return ()
    if support in _DECLARED:
        return PRESENT.get(capability, ())
    if capability is Capability.SURVIVES_POWER_LOSS and _ends_with_its_process(plugin):
        # What does not outlive its process does not outlive the machine.
        return ABSENT[Capability.SURVIVES_PROCESS_KILL]
    return ABSENT.get(capability, ())


def _ends_with_its_process(plugin: BackendPlugin) -> bool:
    support = plugin.claim(Capability.SURVIVES_PROCESS_KILL).support
    return support in (Support.UNSUPPORTED, Support.NOT_IMPLEMENTED)


def _shown(capability: Capability, support: Support, outcomes: list[Outcome]) -> str:
    if support is Support.UNKNOWN:
        return "not declared"
    what = "present" if support in _DECLARED else "absent"
    if Outcome.FAILED in outcomes:
        return f"declared {what}, and found otherwise"
    if outcomes and set(outcomes) == {Outcome.PASSED}:
        return what
    reason = (UNSHOWN if support in _DECLARED else UNSHOWN_ABSENCE).get(capability)
    return f"not verified: {reason}" if reason and set(outcomes) <= {Outcome.NOT_VERIFIED} else "not verified"
