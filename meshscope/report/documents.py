"""The documents that commands print beside the report: a trace, the catalogue of rules."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from meshscope import __version__
from meshscope.model.findings import Evidence
from meshscope.report.safe import REDACTED, SECRET_HEADERS
from meshscope.rules.rule import LoadedRule
from meshscope.walk.hops import Branch, Hop, Outcome, Walk

SCHEMA = 1


def tool() -> dict[str, str]:
    """What wrote a document."""
    return {"name": "meshscope", "version": __version__}


class TraceHop(msgspec.Struct, frozen=True):
    """One decision. `proxy` is NAMESPACE/POD, `kubernetes` KIND.GROUP/NAMESPACE/NAME; "" if there is none."""

    stage: str
    outcome: Outcome
    decision: str
    proxy: str
    object: str
    kubernetes: str
    cause: str
    evidence: tuple[Evidence, ...]


class TraceBranch(msgspec.Struct, frozen=True):
    """One way the request can go. `share` is 0 to 1 of the requests."""

    share: float
    outcome: Outcome
    hops: tuple[TraceHop, ...]


class TraceWalk(msgspec.Struct, frozen=True):
    """One request and every way it can go; the shares add up to 1.

    `method` is "" for plain TCP. The values of headers that hold credentials are left out.
    """

    source: str
    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    host: str
    port: int
    branches: tuple[TraceBranch, ...]


class Trace(msgspec.Struct, frozen=True):
    """What `trace` answers. `captured_at` is RFC 3339, UTC."""

    schema: int
    tool: dict[str, str]
    captured_at: str
    walks: tuple[TraceWalk, ...]


class RuleEntry(msgspec.Struct, frozen=True):
    """A rule as `rules` lists it. `inputs` are the facts it reads."""

    code: str
    cause: str
    title: str
    severity: str
    mesh: str
    since: str
    inputs: tuple[str, ...]
    verified_on: tuple[str, ...]
    also_known_as: tuple[str, ...]


class Rules(msgspec.Struct, frozen=True):
    """What `rules` answers."""

    schema: int
    tool: dict[str, str]
    rules: tuple[RuleEntry, ...]


class FaultEntry(msgspec.Struct, frozen=True):
    """A fault of the demo mesh, named for its cause. `reason` says why one can't be made on loopback."""

    name: str
    title: str
    section: str
    available: bool
    reason: str


class Faults(msgspec.Struct, frozen=True):
    """What `demo --list` answers."""

    schema: int
    tool: dict[str, str]
    faults: tuple[FaultEntry, ...]


def faults_of(entries: Iterable[FaultEntry]) -> Faults:
    """The demo mesh's faults as the public document."""
    return Faults(SCHEMA, tool(), tuple(entries))


def trace_of(walks: Iterable[Walk], captured_at: datetime) -> Trace:
    """Walks as the public document. `captured_at` is in UTC."""
    return Trace(SCHEMA, tool(), captured_at.strftime("%Y-%m-%dT%H:%M:%SZ"), tuple(map(_walk, walks)))


def rules_of(loaded: Iterable[LoadedRule]) -> Rules:
    """The catalogue as the public document."""
    return Rules(SCHEMA, tool(), tuple(map(_entry, loaded)))


def _walk(walk: Walk) -> TraceWalk:
    request = walk.request
    return TraceWalk(
        source=walk.source,
        method=request.method,
        url=_url(walk),
        headers=tuple(
            (name, REDACTED if name.lower() in SECRET_HEADERS else value) for name, value in request.headers
        ),
        host=walk.host,
        port=walk.port,
        branches=tuple(map(_branch, walk.branches)),
    )


def _url(walk: Walk) -> str:
    request = walk.request
    is_tcp = not request.method
    return (
        f"tcp://{walk.host}:{walk.port}"
        if is_tcp
        else f"{request.scheme}://{request.authority}{request.path}"
    )


def _branch(branch: Branch) -> TraceBranch:
    return TraceBranch(branch.share, branch.outcome, tuple(map(_hop, branch.hops)))


def _hop(hop: Hop) -> TraceHop:
    return TraceHop(
        stage=hop.stage.name.lower(),
        outcome=hop.outcome,
        decision=hop.decision,
        proxy=str(hop.proxy or ""),
        object=hop.object,
        kubernetes=str(hop.kubernetes or ""),
        cause=hop.cause,
        evidence=hop.evidence,
    )


def _entry(loaded: LoadedRule) -> RuleEntry:
    rule = loaded.rule
    return RuleEntry(
        rule.code,
        rule.cause,
        rule.title,
        rule.severity,
        rule.mesh,
        rule.since,
        rule.inputs,
        rule.verified_on,
        rule.also_known_as,
    )
