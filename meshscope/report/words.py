"""The words in which every form of a report says the same thing."""

from __future__ import annotations

from meshscope.model.findings import Finding, Report

_CONFIDENCE = ((0.95, "certain"), (0.8, "very likely"), (0.5, "likely"), (0.25, "possible"))


def confidence(finding: Finding) -> str:
    """How sure, in words; a cause without evidence is a guess however it was reckoned."""
    if not finding.evidence:
        return "a guess"
    return next((word for least, word in _CONFIDENCE if finding.confidence >= least), "a guess")


def counted(number: int, noun: str) -> str:
    """`1 error`, `2 errors`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def verdict(report: Report) -> str:
    """What is wrong, in one line: the title of the finding that ranks first, or that there is no failure."""
    if report.findings and report.findings[0].severity != "info":
        return report.findings[0].title
    if report.unknown:
        return "No failure found in what could be seen."
    return "No failure found." if report.scope.get("edges") != 0 else "No failure found, nor any call seen."


def tally(report: Report) -> str:
    """How many findings of each severity, and how much couldn't be seen: `1 error, 2 notices, 1 unknown`."""
    severities = [finding.severity for finding in report.findings]
    parts = [
        counted(severities.count(severity), noun)
        for severity, noun in (("error", "error"), ("warning", "warning"), ("info", "notice"))
        if severity in severities
    ]
    if report.unknown:
        parts.append(f"{len(report.unknown)} not seen")
    return ", ".join(parts)


def scope(report: Report) -> str:
    """What was looked at, as `name value` pairs; a name that ends in `_s` counts seconds."""
    pairs = []
    for name, value in report.scope.items():
        if name.endswith("_s") and isinstance(value, (int, float)):
            pairs.append(f"{name[:-2].replace('_', ' ')} {value:g} s")
        elif listed := _listed(value):
            pairs.append(f"{name.replace('_', ' ')} {listed}")
    return ", ".join(pairs)


def _listed(value: object) -> str:
    if value is None or value is False:
        return ""
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) if len(value) <= 5 else f"({len(value)})"
    return "yes" if value is True else str(value)


def remaining(total: int, shown: int) -> str:
    """`and 35 more`, or nothing."""
    return f"and {total - shown} more" if total > shown else ""
