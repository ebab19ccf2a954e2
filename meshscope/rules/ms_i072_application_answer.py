"""The application itself answers with the error; the mesh carried it faithfully.

Symptom
    The caller gets a 5xx. Both sidecars log it as `via_upstream` without a flag.

Why it fails
    The application decided so: a bug, a database it can't reach, a dependency outside the mesh. No proxy took part.

How meshscope knows
    The server's sidecar got the status from its own application, and no failing call of that application at the same
    time explains it. Where the server's sidecar wasn't read, it may have answered in the application's place: then
    this is only likely.

Fix
    Look into the application's log at the times of the quoted lines; the `x-request-id` is in both sidecars' logs.

References
    Envoy: response code details (`via_upstream`).
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.envoy.outliers import ejected
from meshscope.facts.symptoms import Symptom
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.rules.claims import COUNTED, LIKELY
from meshscope.rules.facts import EdgeFacts, Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.application import (
    Met,
    at_application,
    inbound_moved,
    offers_tls,
    server_unread,
    told,
    total,
)

RULE = Rule(
    code="MS-I072",
    cause="application-answer",
    title="The application itself answers with an error",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "hosts", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)

ANSWERED = 0.8
"""Below the certainty of a proxy's own decision: whatever made the application answer so isn't known."""

MADE_BY_PROXY = (
    "upstream_rq_pending_failure_eject",
    "upstream_rq_pending_overflow",
    "upstream_cx_destroy_remote_with_active_rq",
    "upstream_cx_protocol_error",
    "upstream_rq_timeout",
)
"""Counters of an inbound cluster whose requests the proxy answered itself."""


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        found = None if _explained_by_caller(edge) else _answered(edge)
        if found is not None:
            codes = ", ".join(sorted({str(s.code) for s in found.symptoms if s.code})) or "5xx"
            unread = server_unread(edge)
            yield from told(
                RULE,
                edge,
                found,
                title=f"{edge.edge}: the application answers {codes}",
                explanation=f"the application behind {edge.edge.destination} answers {codes} itself, and the mesh carries it"
                + ("; its sidecar wasn't read and may have answered in its place" if unread else ""),
                fix=_fix(edge, found),
                ruled_out=() if unread else (RuledOut("app-not-listening", "the application answered"),),
            )


def _answered(edge: EdgeFacts) -> Met | None:
    roots = {s.id for s in edge.root_symptoms}
    out = _ejected(edge)
    answers = [s for s in edge.on("server") if s.from_log and at_application(s) and _passed_on(s)]
    own = [
        s for s in answers if s.id in roots and not (s.example and s.example.downstream_local_address in out)
    ]
    theirs = [s for s in edge.on("client") if s.from_log and _passed_on(s)]
    if own:
        return Met((*own, *(s for s in theirs if _likewise(s, own))), (), ANSWERED)
    if edge.server_seen:
        return None
    if (counted := _counted(edge)) is not None:
        return counted
    root = [s for s in theirs if s.id in roots]
    if not root:
        return None
    if server_unread(edge):
        return Met(tuple(root), (), LIKELY)
    return None if edge.server_proxies and offers_tls(edge) else Met(tuple(root), (), ANSWERED)


def _passed_on(symptom: Symptom) -> bool:
    return symptom.code >= 500 and symptom.details == "via_upstream" and not symptom.flags


def _likewise(symptom: Symptom, own: list[Symptom]) -> bool:
    return symptom.code in {s.code for s in own}


def _counted(edge: EdgeFacts) -> Met | None:
    """5xx that the server's proxy counts and didn't make itself."""
    failed = inbound_moved(edge, "upstream_rq_5xx")
    if total(failed) <= total(inbound_moved(edge, *MADE_BY_PROXY)):
        return None
    counted = tuple(
        s
        for s in edge.on("client")
        if s.id in {root.id for root in edge.root_symptoms}
        and (_passed_on(s) or (s.stat is not None and s.stat[2].startswith("upstream_rq_5")))
    )
    return Met(counted, failed, min(COUNTED, ANSWERED)) if counted or not edge.client_seen else None


def _explained_by_caller(edge: EdgeFacts) -> bool:
    """Whether retries, a breaker or outlier detection at the caller answer for these failures, and say what tripped them."""
    if any(s.has("UO") or (s.has("URX") and s.details == "via_upstream") for s in edge.on("client")):
        return True
    if not edge.client_seen and edge.client_moved(
        "upstream_rq_retry_limit_exceeded", "upstream_rq_retry_overflow"
    ):
        return True
    if edge.client_moved("outlier_detection_ejections_overflow"):
        return True
    answering = {s.example.downstream_local_address for s in edge.on("server") if s.example and _passed_on(s)}
    out = _ejected(edge)
    return bool(out) and answering <= out


def _ejected(edge: EdgeFacts) -> frozenset[str]:
    """The addresses that outlier detection has taken out: what they answered is the reason, and told there."""
    return frozenset(host.address for _, status in edge.hosts() for host in ejected(status.hosts))


def _fix(edge: EdgeFacts, found: Met) -> tuple[Fix, ...]:
    ids = [e.request_id for s in found.symptoms for e in s.entries if e.request_id]
    search = f" for x-request-id {ids[-1]}" if ids else ""
    return (
        Fix(
            "advice",
            f"look into the application's log of {edge.edge.destination}{search}: the mesh is innocent",
        ),
    )
