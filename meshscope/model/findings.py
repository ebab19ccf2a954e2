"""What meshscope says: findings with their evidence and fixes, what was ruled out, what is unknown."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


class Evidence(msgspec.Struct, frozen=True):
    """A fact a reader can check: the source, where in it, and its own words."""

    source: str
    where: str
    quote: str


class Fix(msgspec.Struct, frozen=True):
    """What a person can do: a command or patch to paste, or advice; `effect` says what else it changes."""

    kind: Literal["command", "patch", "advice"]
    text: str
    effect: str = ""


class CausedBy(msgspec.Struct, frozen=True):
    """What made it come to a finding's cause, with its own evidence."""

    cause: str
    explanation: str
    evidence: tuple[Evidence, ...] = ()


class Edge(msgspec.Struct, frozen=True, order=True):
    """Who calls whom: workloads as NAME.NAMESPACE, the destination with its port where there is one."""

    source: str
    destination: str
    port: int | None = None

    def __str__(self) -> str:
        port = f":{self.port}" if self.port else ""
        return f"{self.source} → {self.destination}{port}"


class Finding(msgspec.Struct, frozen=True):
    """One root cause, with everything it affects."""

    code: str
    cause: str
    severity: Severity
    confidence: float
    subject: str
    affected: tuple[Edge | str, ...]
    title: str
    explanation: str
    caused_by: tuple[CausedBy, ...]
    evidence: tuple[Evidence, ...]
    fix: tuple[Fix, ...]
    also_known_as: tuple[str, ...]
    fingerprint: str


class RuledOut(msgspec.Struct, frozen=True):
    """A cause that was looked at and isn't it, with the reason."""

    cause: str
    why: str


class Unknown(msgspec.Struct, frozen=True, order=True):
    """What couldn't be seen or decided, why, and what would make it known."""

    what: str
    why: str
    remedy: str


class Report(msgspec.Struct, frozen=True):
    """What `diagnose` answers: findings ranked with the root cause first. `captured_at` is RFC 3339, UTC."""

    schema: int
    tool: dict[str, str]
    captured_at: str
    scope: dict[str, Any]
    findings: tuple[Finding, ...]
    ruled_out: tuple[RuledOut, ...]
    unknown: tuple[Unknown, ...]


class Unavailable(msgspec.Struct, frozen=True):
    """What a source can't give, as a value that is carried to the output."""

    what: str
    why: str
    remedy: str = ""

    def unknown(self) -> Unknown:
        return Unknown(self.what, self.why, self.remedy)
