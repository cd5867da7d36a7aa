"""The report on a run: one document, written as JSON or Markdown or shown at the end of pytest's output."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from cryptostore import INTERFACE_VERSION
from cryptostore.plugins import InstalledBackend, installed_backends
from cryptostore.shown import shown

from .acceptance import ROWS, acceptance
from .evidence import capabilities
from .manifest import Case
from .observed import Observed
from .verdict import DID_NOT_RUN, Judged, Outcome, judge, manifest, overall, verdict_on

#: How many reasons the terminal shows; the file has all.
_REASONS_SHOWN: Final = 20

Document = dict[str, Any]


def document(contracts: Iterable[Observed]) -> Document:
    """All that is known about a run, ready for JSON."""
    observed = list(contracts)
    found = [_contract(each) for each in observed]
    return {
        "verdict": overall(observed).value,
        "suite": {"version": metadata.version("matrix-cryptostore-contract"), "cases": len(manifest())},
        "core": {"version": metadata.version("matrix-cryptostore"), "interface": ".".join(map(str, INTERFACE_VERSION))},
        "python": platform.python_version(),
        "contracts": found,
    }


def write_report(path: Path, contracts: Iterable[Observed]) -> None:
    """Write the report in the form that the path's suffix names."""
    found = document(contracts)
    text = json.dumps(found, indent=2) + "\n" if path.suffix == ".json" else markdown(found)
    path.write_text(text, encoding="utf-8")


def terminal_lines(contracts: Iterable[Observed], *, narrowed: bool) -> Iterator[str]:
    """The report in plain lines; of a run that was narrowed by hand, without those on what was left out."""
    yield from map(shown, _terminal_lines(document(contracts), narrowed))


def _terminal_lines(found: Document, narrowed: bool) -> Iterator[str]:
    for contract in found["contracts"]:
        yield f"{contract['contract']}: {headline(contract)}"
        for reason, count in contract["harness_not_made"].items():
            yield f"  the harness could not be made for {count} tests: {reason}"
        if contract["counts"]["passed"] + contract["counts"]["failed"]:
            yield from (f"  {line}" for line in _details(contract, narrowed))
    yield "  ".join(f"{name} {version}" for name, version in _versions(found))


def headline(contract: Document) -> str:
    """The verdict and the counts that it must not be read without."""
    counts = contract["counts"]
    said = [f"{counts[outcome.value]} {outcome.value}" for outcome in Outcome if counts[outcome.value]]
    return f"{contract['verdict']} ({', '.join(said)})"


def markdown(found: Document) -> str:
    """The report as a page."""
    lines = [f"# Contract report: {found['verdict']}", "", *_table(["part", "version"], _versions(found))]
    for contract in found["contracts"]:
        lines += ["", f"## `{contract['contract']}`: {headline(contract)}", "", *_markdown_sections(contract)]
    return "\n".join(map(shown, lines)) + "\n"


def _contract(observed: Observed) -> Document:
    judged = judge(observed)
    backend = _backend(observed.scheme)
    return {
        "contract": observed.name,
        "harness": observed.harness,
        "backend": observed.scheme,
        "distribution": backend.distribution if backend else "",
        "version": backend.version if backend else "",
        "server": observed.server,
        "verdict": verdict_on(judged).value,
        "harness_not_made": dict(observed.unmade),
        "counts": _counts(judged),
        "failed": [each.case.id for each in judged if each.outcome is Outcome.FAILED],
        "advice": {each.case.id: _advice(each.case) for each in judged if each.outcome is Outcome.FAILED},
        "incomplete": _reasons(judged, Outcome.INCOMPLETE),
        "not_verified": _reasons(judged, Outcome.NOT_VERIFIED),
        "soak": [each.case.id for each in judged if each.outcome is Outcome.SOAK],
        "groups": _groups(judged),
        "capabilities": capabilities(backend.plugin, judged) if backend and backend.plugin else [],
        "acceptance": acceptance(judged),
    }


def _backend(scheme: str) -> InstalledBackend | None:
    return next((backend for backend in installed_backends() if backend.name == scheme), None)


def _counts(judged: list[Judged]) -> dict[str, int]:
    return {outcome.value: sum(each.outcome is outcome for each in judged) for outcome in Outcome}


def _reasons(judged: list[Judged], outcome: Outcome) -> dict[str, str]:
    return {each.case.id: each.reason for each in judged if each.outcome is outcome}


def _advice(case: Case) -> str:
    """The clauses that a case checks, and the page that says where to look when it fails."""
    group = case.id.rpartition("-")[0].lower()
    return f"{', '.join(sorted(case.checks))}; see contract/{group} in the documentation"


def _groups(judged: list[Judged]) -> dict[str, dict[str, int]]:
    groups: dict[str, list[Judged]] = {}
    for each in judged:
        groups.setdefault(each.case.id.rpartition("-")[0], []).append(each)
    return {name: _counts(members) for name, members in groups.items()}


def _versions(found: Document) -> list[tuple[str, str]]:
    return [
        ("suite", f"{found['suite']['version']} ({found['suite']['cases']} cases)"),
        ("core", found["core"]["version"]),
        ("interface", found["core"]["interface"]),
        ("python", found["python"]),
    ]


def _details(contract: Document, narrowed: bool) -> Iterator[str]:
    yield f"{_origin(contract)}; server: {contract['server'] or 'not asked'}"
    for name, counts in contract["groups"].items():
        yield f"{name.lower():14}" + ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    for row in contract["capabilities"]:
        reason = f" ({row['reason']})" if row["reason"] else ""
        yield f"capability {row['capability']}: {row['declared']}{reason}: {row['shown']}"
    for name, result in contract["acceptance"].items():
        yield f"{name}: {result}"
    for case_id, advice in contract["advice"].items():
        yield f"failed: {case_id} ({advice})"
    yield from _incomplete(contract["incomplete"], narrowed)
    for case_id, reason in contract["not_verified"].items():
        yield f"not verified: {case_id} ({reason})"
    if contract["soak"]:
        yield f"not run: {len(contract['soak'])} soak cases; run them with -m soak"


def _incomplete(reasons: dict[str, str], narrowed: bool) -> Iterator[str]:
    left_out = [case_id for case_id, reason in reasons.items() if narrowed and reason == DID_NOT_RUN]
    told = [(case_id, reason) for case_id, reason in reasons.items() if case_id not in left_out]
    yield from (f"incomplete: {case_id} ({reason})" for case_id, reason in told[:_REASONS_SHOWN])
    if len(told) > _REASONS_SHOWN:
        yield f"incomplete: and {len(told) - _REASONS_SHOWN} more"
    if left_out:
        yield f"incomplete: {len(left_out)} cases did not run in this run, which the command line narrowed"


def _origin(contract: Document) -> str:
    distribution = " ".join(filter(None, (contract["distribution"], contract["version"])))
    return f"{contract['backend']} of {distribution or 'no installed distribution'}, harness {contract['harness']}"


def _markdown_sections(contract: Document) -> Iterator[str]:
    yield f"{_origin(contract)}; server: {contract['server'] or 'not asked'}."
    for reason, count in contract["harness_not_made"].items():
        yield from ("", f"The harness could not be made for {count} tests: {reason}")
    outcomes = [outcome.value for outcome in Outcome]
    groups = [(name.lower(), *(str(counts[one]) for one in outcomes)) for name, counts in contract["groups"].items()]
    yield from ("", *_table(["group", *outcomes], groups))
    yield from ("", *_table(["capability", "declared", "reason", "shown", "cases"], _rows(contract["capabilities"])))
    acceptance_rows = [(row, result, ", ".join(ROWS[row])) for row, result in contract["acceptance"].items()]
    yield from ("", *_table(["acceptance", "result", "cases"], acceptance_rows))
    told = [(case_id, "failed", advice) for case_id, advice in contract["advice"].items()]
    told += [(case_id, "incomplete", reason) for case_id, reason in contract["incomplete"].items()]
    told += [(case_id, "not verified", reason) for case_id, reason in contract["not_verified"].items()]
    told += [(case_id, "soak", "not run") for case_id in contract["soak"]]
    yield from ("", *_table(["case", "outcome", "reason"], told))


def _rows(documents: list[dict[str, str]]) -> list[tuple[str, ...]]:
    return [tuple(each.values()) for each in documents]


def _table(columns: list[str], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
