"""Too few endpoints are healthy, so Envoy sends requests to all of them.

Symptom
    Requests go on failing although outlier detection (or health checks) took the failing endpoints out; no `UH` is logged.

Why it fails
    Below the panic threshold (`minHealthPercent`) Envoy ignores health and spreads requests over all endpoints: it takes
    the health information for wrong rather than send everything to the few that are left.

How meshscope knows
    The share of healthy hosts in the client's `/clusters` is below the threshold of the cluster it holds, and
    `lb_healthy_panic` rises or requests fail at ejected hosts.

Fix
    Mend what makes the endpoints fail. Without `minHealthPercent` (Istio's default of 0) there is no panic mode, and
    requests get 503 `UH` instead.

References
    Istio: DestinationRule OutlierDetection minHealthPercent; Envoy: panic threshold.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.envoy.clusters import ClusterStatus
from meshscope.envoy.outliers import panic_percent, panics
from meshscope.facts.proxy import Proxy
from meshscope.istio.names import metadata_object
from meshscope.model.findings import CausedBy, Evidence, Fix, Unknown
from meshscope.rules.claims import CERTAIN, COUNTED, shown_by
from meshscope.rules.facts import EdgeFacts, Facts, symptom_evidence
from meshscope.rules.rule import Claim, Rule
from meshscope.sources.source import Part
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I048",
    cause="panic-mode",
    title="Too few endpoints are healthy: requests go to all of them",
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
    if cluster is None or not panics(cluster, status.hosts):
        return
    sick = {host.address for host in status.hosts if not host.healthy}
    shown = shown_by(
        edge,
        client=lambda s: s.code >= 500 and s.example is not None and s.example.upstream_host in sick,
        server=lambda s: s.code >= 500 and s.details == "via_upstream",
        client_stats=("lb_healthy_panic", "upstream_rq_5xx"),
        cluster=status.name,
    )
    others = tuple(s.id for s in facts.told_at(sick) if s.code >= 500 and s.details == "via_upstream")
    rule = metadata_object(cluster.metadata.istio())
    quote = (
        "; ".join(f"{address} unhealthy" for address in sorted(sick)[:5])
        + f"; panic below {panic_percent(cluster):g} %"
    )
    answered = CausedBy(
        "application-answer",
        f"{edge.edge.destination} fails often enough to be taken out",
        tuple(symptom_evidence(s) for s in shown.symptoms if s.side == "server")[:2],
    )
    yield Claim(
        rule=RULE,
        subject=rule or edge.server_subject,
        stage=Stage.ENDPOINT,
        discriminator=status.name,
        title=f"{edge.edge}: panic mode, {len(sick)} of {len(status.hosts)} endpoints are unhealthy",
        explanation=f"fewer than {panic_percent(cluster):g} % of the endpoints of {status.name} are healthy, so Envoy ignores "
        "health and sends requests to the failing ones too",
        evidence=(
            *shown.evidence,
            Evidence(f"proxy {proxy.id}", f"{proxy.path(Part.CLUSTERS)}: {status.name}", quote),
        ),
        fix=(
            Fix("advice", f"find out why {edge.edge.destination} fails", ""),
            Fix(
                "advice",
                "remove minHealthPercent from the DestinationRule",
                "requests get 503 at once instead of being tried",
            ),
        ),
        confidence=CERTAIN if any(s.from_log for s in shown.symptoms) else COUNTED,
        affected=(edge.edge,),
        explains=tuple(dict.fromkeys((*shown.explains, *others))),
        caused_by=(answered,),
    )
