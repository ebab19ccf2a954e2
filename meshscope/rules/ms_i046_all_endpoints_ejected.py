"""Outlier detection has ejected every endpoint.

Symptom
    The caller gets 503 `no healthy upstream`; its sidecar logs `UH` with `no_healthy_upstream`.

Why it fails
    Every endpoint failed often enough in a row, and `maxEjectionPercent` lets outlier detection take all of them out for
    the ejection time. Until one comes back there is nowhere to send a request.

How meshscope knows
    Every host of the client's cluster has `failed_outlier_check` in `/clusters`, and panic mode is off. What the
    application answered before, if the log still has it, is in `caused_by`.

Fix
    Mend what made the endpoints fail. `maxEjectionPercent` below 100 keeps some endpoints in use whatever happens.

References
    Istio: DestinationRule OutlierDetection; Envoy: outlier detection.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.envoy.clusters import ClusterStatus
from meshscope.envoy.outliers import ejected, panics
from meshscope.facts.proxy import Proxy
from meshscope.istio.names import metadata_object
from meshscope.model.findings import CausedBy, Evidence, Fix, Unknown
from meshscope.rules.claims import CERTAIN, COUNTED, shown_by
from meshscope.rules.facts import EdgeFacts, Facts, symptom_evidence
from meshscope.rules.rule import Claim, Rule
from meshscope.sources.source import Part
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I046",
    cause="all-endpoints-ejected",
    title="Outlier detection has ejected every endpoint",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "counters", "config", "hosts", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        for proxy, status in edge.hosts():
            yield from _check(facts, edge, proxy, status)


def _check(facts: Facts, edge: EdgeFacts, proxy: Proxy, status: ClusterStatus) -> Iterable[Claim]:
    cluster = edge.client_cluster(status.name)
    out = ejected(status.hosts)
    if not out or len(out) < len(status.hosts) or (cluster is not None and panics(cluster, status.hosts)):
        return
    shown = shown_by(
        edge,
        client=lambda s: s.has("UH") and s.cluster in {"", status.name},
        client_stats=("upstream_cx_none_healthy", "outlier_detection_ejections_enforced_total"),
        cluster=status.name,
    )
    rule = metadata_object(cluster.metadata.istio()) if cluster is not None else None
    told = (*edge.on("client"), *facts.told_at(host.address for host in out))
    answers = tuple(s for s in told if s.details == "via_upstream" and s.code >= 500)
    tripped = CausedBy(
        "application-answer",
        f"{edge.edge.destination} failed often enough in a row to be ejected",
        tuple(symptom_evidence(s) for s in answers[:2]),
    )
    yield Claim(
        rule=RULE,
        subject=rule or edge.server_subject,
        stage=Stage.ENDPOINT,
        discriminator=status.name,
        title=f"{edge.edge}: outlier detection has ejected {'its only endpoint' if len(out) == 1 else f'all {len(out)} endpoints'}",
        explanation=f"every endpoint of {status.name} is ejected ({rule or 'outlier detection'}), so requests get 503 at once",
        evidence=(*shown.evidence, _flags(proxy, status)),
        fix=(
            Fix(
                "advice",
                f"find out why {edge.edge.destination} fails (its log, its own calls); the ejection ends by itself "
                "after the ejection time",
                "",
            ),
            Fix(
                "advice",
                "set maxEjectionPercent below 100 in the DestinationRule",
                "failing endpoints stay in use in part",
            ),
        ),
        confidence=CERTAIN if any(s.from_log for s in shown.symptoms) else COUNTED,
        affected=(edge.edge,),
        explains=(*shown.explains, *(s.id for s in answers)),
        caused_by=(tripped,),
    )


def _flags(proxy: Proxy, status: ClusterStatus) -> Evidence:
    quote = "; ".join(f"{host.address} failed_outlier_check" for host in ejected(status.hosts)[:4])
    return Evidence(f"proxy {proxy.id}", f"{proxy.path(Part.CLUSTERS)}: {status.name}", quote)
