"""What a server's proxy met at its application (refused, closed, reset, nonsense), and who else could have seen it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from meshscope.envoy.config_dump import Cluster
from meshscope.facts.proxy import Proxy
from meshscope.facts.symptoms import Symptom, is_tcp
from meshscope.istio.names import is_inbound
from meshscope.model.findings import CausedBy, Evidence, Fix, RuledOut, Unavailable
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import COUNTED, LIKELY, PREDICTED, SEEN, Matches
from meshscope.rules.facts import EdgeFacts, Facts, Moved, symptom_evidence
from meshscope.rules.rule import Claim, Rule
from meshscope.walk.hops import Stage

TLS_STAGES = (Stage.TLS_OFFER, Stage.FILTER_CHAIN, Stage.TLS_ACCEPT)
MORE_OFTEN_THAN_NOT = 0.5


class Met(msgspec.Struct, frozen=True):
    """What shows it on one edge, and how sure that makes: the server's own line, its counters, or the caller's side."""

    symptoms: tuple[Symptom, ...]
    moved: tuple[Moved, ...]
    confidence: float
    guessed: bool = False
    """Only what the caller got speaks for it: the server's proxy wasn't read."""

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        lines = sorted(self.symptoms, key=lambda s: (s.side == "client", -s.count))
        return (*(symptom_evidence(s) for s in lines[:4]), *(m.evidence for m in self.moved[:3]))


def at_application(symptom: Symptom) -> bool:
    """Whether a server's line is of its way to its own application."""
    return is_inbound(symptom.cluster)


def met(
    edge: EdgeFacts,
    *,
    lines: Matches,
    counters: tuple[str, ...],
    codes: tuple[int, ...] = (503,),
    bodies: frozenset[int] = frozenset(),
) -> Met | None:
    """Whether the server's proxy met this at its application.

    `lines` says which of the server's lines show it, `counters` which of its inbound cluster's. The caller got one of
    `codes`; where nothing of the server's proxy could be read, a body of just the size that Envoy sends then (`bodies`)
    must do.
    """
    told = [s for s in edge.on("server") if s.from_log and lines(s)]
    moved = inbound_moved(edge, *counters)
    passed_on = [s for s in edge.on("client") if _passed_on(s, codes)]
    if told:
        passed_on += [s for s in edge.on("client") if _cut(s)] if any(_is_tcp(s) for s in told) else []
        return Met((*told, *passed_on), moved, SEEN)
    if edge.server_seen:
        return None
    if moved and (passed_on or not edge.client_seen):
        return Met(tuple(passed_on), moved, COUNTED)
    sized = [s for s in passed_on if s.from_log and _sized(s, bodies)]
    if sized and server_unread(edge):
        return Met(tuple(sized), (), PREDICTED, guessed=True)
    return None


def _passed_on(symptom: Symptom, codes: tuple[int, ...]) -> bool:
    if symptom.stat is not None:
        return symptom.stat[2] in {"upstream_rq_5xx", *(f"upstream_rq_{code}" for code in codes)}
    return symptom.code in codes and symptom.details == "via_upstream" and not symptom.flags


def _is_tcp(symptom: Symptom) -> bool:
    return symptom.example is not None and is_tcp(symptom.example)


def _cut(symptom: Symptom) -> bool:
    """A caller's TCP connection that ended without an answer, and nobody says why."""
    said = symptom.flags or symptom.details or symptom.termination
    return (
        not said
        and symptom.example is not None
        and is_tcp(symptom.example)
        and not symptom.example.bytes_sent
    )


def _sized(symptom: Symptom, bodies: frozenset[int]) -> bool:
    fitting = sum(1 for entry in symptom.entries if entry.bytes_sent in bodies)
    return fitting > MORE_OFTEN_THAN_NOT * len(symptom.entries)


def inbound_moved(edge: EdgeFacts, *stats: str) -> tuple[Moved, ...]:
    """Counters of the servers' clusters towards their own application that moved."""
    return tuple(m for m in edge.server_moved("cluster", *stats) if m.name.startswith("inbound|"))


def total(moved: Iterable[Moved]) -> float:
    return sum(m.by for m in moved)


def server_unread(edge: EdgeFacts) -> bool:
    """Whether the server has a proxy that took mesh TLS, and neither its log nor its counters could be read."""
    read = any(not isinstance(p.log, Unavailable) or p.moved is not None for p in edge.server_proxies)
    return not read and offers_tls(edge)


def offers_tls(edge: EdgeFacts) -> bool:
    """Whether the caller's proxy offers TLS to some endpoint: what answers there is another proxy."""
    return any(
        (hop := branch.at(Stage.TLS_OFFER)) is not None
        and (made := hop.detail.get("offer")) is not None
        and made.kind != "plaintext"
        for one in edge.walks
        for branch in one.branches
    )


def tls_fails(edge: EdgeFacts) -> bool:
    """Whether the walk predicts that some connection of this edge fails between the two proxies."""
    failures = [branch.failure for one in edge.walks for branch in one.branches]
    return any(hop is not None and hop.stage in TLS_STAGES for hop in failures)


GUESSED = "; the server's proxy wasn't read: the size of the answer is that of Envoy's own words for this"


def told(
    rule: Rule,
    edge: EdgeFacts,
    found: Met,
    *,
    title: str,
    explanation: str,
    fix: tuple[Fix, ...],
    subject: ObjectRef | None = None,
    stage: Stage = Stage.APPLICATION,
    discriminator: str = "",
    evidence: tuple[Evidence, ...] = (),
    caused_by: tuple[CausedBy, ...] = (),
    ruled_out: tuple[RuledOut, ...] = (),
    at_most: float = 1.0,
) -> Iterator[Claim]:
    """The claim that `rule` is the cause on this edge."""
    yield Claim(
        rule=rule,
        subject=subject or edge.server_subject,
        stage=stage,
        title=title,
        explanation=explanation + (GUESSED if found.guessed else ""),
        evidence=(*found.evidence, *evidence),
        fix=fix,
        confidence=min(found.confidence, at_most),
        affected=(edge.edge,),
        explains=tuple(s.id for s in found.symptoms),
        discriminator=discriminator or edge.host,
        caused_by=caused_by,
        ruled_out=ruled_out,
    )


def caller_lines(edge: EdgeFacts, lines: Matches, counters: tuple[str, ...] = ()) -> Met | None:
    """What the caller's own proxy says of its connections to the endpoint itself."""
    found = [s for s in edge.on("client") if s.from_log and lines(s)]
    if found:
        return Met(tuple(found), edge.client_moved(*counters), SEEN)
    if edge.client_seen:
        return None
    moved = edge.client_moved(*counters)
    if not moved:
        return None
    counted = [s for s in edge.on("client") if s.stat is not None and _counted(s, counters)]
    return Met(tuple(counted), moved, COUNTED)


def all_stale(edge: EdgeFacts, found: Met) -> bool:
    """Whether all this was met at addresses that Kubernetes doesn't list for the service (any more)."""
    stale = {one.hop.detail["address"] for one in edge.passing("proxy-endpoints-stale")}
    hosts = {e.upstream_host for s in found.symptoms for e in s.entries if e.upstream_host}
    return bool(stale) and hosts <= stale


FOLLOWING = (
    "upstream_rq_5xx",
    "upstream_rq_503",
    "upstream_cx_connect_fail",
    "upstream_rq_retry_limit_exceeded",
)
"""What else a connection that doesn't come about makes rise."""


def _counted(symptom: Symptom, counters: tuple[str, ...]) -> bool:
    return symptom.stat is not None and symptom.stat[2] in {*counters, *FOLLOWING}


def unsure(found: Met, *, at_most: float = LIKELY) -> Met:
    """The same, where what was seen fits another cause as well."""
    return msgspec.structs.replace(found, confidence=min(found.confidence, at_most))


def inbound_clusters(facts: Facts, edge: EdgeFacts, found: Met) -> Iterator[tuple[Proxy, Cluster]]:
    """The servers' clusters towards their application in which it was seen."""
    names = {s.cluster for s in found.symptoms if s.side == "server"} | {m.name for m in found.moved}
    for proxy in edge.server_proxies:
        config = facts.config(proxy)
        for name in sorted(names):
            cluster = config.clusters.get(name) if config is not None else None
            if cluster is not None:
                yield proxy, cluster


GONE = 0.7
"""Nobody is at an address that isn't an endpoint any more: that the caller's proxy still holds it explains more."""


def is_gone(facts: Facts, edge: EdgeFacts, found: Met) -> bool:
    """Whether all addresses that failed have left the Service, by Kubernetes' word."""
    service = facts.objects.service_of_host(edge.host)
    if service is None or not facts.objects.has_endpoints_of(service):
        return False
    called = {
        e.upstream_host.rpartition(":")[0] for s in found.symptoms for e in s.entries if e.upstream_host
    }
    there = {endpoint.address for endpoint in facts.objects.endpoints(service, edge.port)}
    return bool(called) and not called & there
