"""What the doctor found, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from cryptostore.cli.output import flush_output, print_hanging, print_json, print_line
from cryptostore.plugins.findings import Finding, Level
from cryptostore.plugins.loading import shown_url

from .checks import Group

_STYLES: Final = {Level.OK: "green", Level.NOTE: "cyan", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}
#: As wide as the longest level and the longest name of a check.
_LEVEL_WIDTH: Final = 7
_CHECK_WIDTH: Final = 13


def report(url: str, groups: Iterable[Group], *, as_json: bool) -> list[Group]:
    """Write the groups to standard output, for people each as it comes. Returns all of them."""
    if as_json:
        found = list(groups)
        print_json({"database": shown_url(url), "findings": list(_documents(found))})
        return found
    found = []
    for group in groups:
        found.append(group)
        print_line(group.title, style="bold")
        for finding in _in_short(group) if group.is_in_short else group.findings:
            _print(finding)
        # Whoever waits for the rest, and gives up, has seen this.
        flush_output()
    print_line(_summary(found))
    return found


def _in_short(group: Group) -> list[Finding]:
    """What is not as it should be, or that all is."""
    amiss = [each for each in group.findings if each.level is not Level.OK]
    return amiss or [Finding("all", Level.OK, f"{len(group.findings)} checks")]


def _print(finding: Finding) -> None:
    before = f"  {finding.level:<{_LEVEL_WIDTH}}  {finding.check:<{_CHECK_WIDTH}}  "
    print_hanging(before, finding.seen, _STYLES[finding.level])
    indent = " " * (2 + _LEVEL_WIDTH)
    if finding.remedy:
        print_hanging(f"{indent}  -> ", finding.remedy + ":" * bool(finding.commands))
    # Whole, whatever their length: they are there to be copied.
    for command in finding.commands:
        print_line(f"{indent}     {command}")


def _summary(groups: Sequence[Group]) -> str:
    counted = Counter(each.level for group in groups for each in group.findings)
    told = {
        "ok": counted[Level.OK],
        f"note{'s' * (counted[Level.NOTE] != 1)}": counted[Level.NOTE],
        f"warning{'s' * (counted[Level.WARNING] != 1)}": counted[Level.WARNING],
        f"problem{'s' * (counted[Level.PROBLEM] != 1)}": counted[Level.PROBLEM],
    }
    return ", ".join(f"{number:,} {what}" for what, number in told.items())


def _documents(groups: Iterable[Group]) -> Iterable[dict[str, Any]]:
    for group in groups:
        for finding in group.findings:
            yield {
                "about": group.title,
                "check": finding.check,
                "level": finding.level,
                "seen": finding.seen,
                "remedy": finding.remedy or None,
                "commands": list(finding.commands),
            }
