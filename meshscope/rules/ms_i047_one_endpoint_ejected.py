"""Outlier detection has ejected some of the endpoints; the others carry the traffic.

Symptom
    Nothing fails any more, or little does: before the ejection some requests failed, and the remaining endpoints have more
    to do.

Why it fails
    One endpoint failed often enough in a row and was taken out for the ejection time: its pod is broken, or alone in
    not reaching what it needs.

How meshscope knows
    Some, not all, hosts of the client's cluster have `failed_outlier_check` in `/clusters` now.

Fix
    Look at that pod: its log, its own calls, its node. It comes back by itself after the ejection time, and is ejected for
    longer each time it fails again.

References
    Istio: DestinationRule OutlierDetection; Envoy: outlier detection.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.envoy.clusters import ClusterStatus
from meshscope.envoy.outliers import ejected
from meshscope.facts.proxy import Proxy
from meshscope.facts.symptoms import Symptom
from meshscope.istio.names import metadata_object
from meshscope.model.findings import CausedBy, Evidence, Fix, Unknown
from meshscope.rules.claims import CERTAIN
from meshscope.rules.facts import EdgeFacts, Facts, symptom_evidence
from meshscope.rules.rule import Claim, Rule
from meshscope.sources.source import Part
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I047",
    cause="one-endpoint-ejected",
    title="Outlier detection has ejected an endpoint",
    severity="warning",
    mesh="istio",
    inputs=("symptoms", "config", "hosts", "kubernetes"),
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
    if not out or len(out) == len(status.hosts):
        return
    addresses = {host.address for host in out}
    answers = (
        *(s for s in edge.on("client") if s.code >= 500 and {e.upstream_host for e in s.entries} & addresses),
        *(s for s in facts.told_at(addresses) if s.code >= 500),
    )
    others_fail = any(host.stats.get("rq_error", 0) for host in status.hosts if host not in out)
    totals = () if others_fail else _counted(edge, status)
    rule = metadata_object(cluster.metadata.istio()) if cluster is not None else None
    quote = "; ".join(
        f"{host.address} failed_outlier_check, rq_error {host.stats.get('rq_error', 0)} of {host.stats.get('rq_total', 0)}"
        for host in out
    )
    counted = Evidence(f"proxy {proxy.id}", f"{proxy.path(Part.CLUSTERS)}: {status.name}", quote)
    failed = CausedBy(
        "application-answer",
        f"{', '.join(sorted(addresses))} failed often enough in a row",
        tuple(map(symptom_evidence, answers[:2])) or (counted,),
    )
    yield Claim(
        rule=RULE,
        subject=rule or edge.server_subject,
        stage=Stage.ENDPOINT,
        discriminator=status.name,
        title=f"{edge.edge}: {len(out)} of {len(status.hosts)} endpoints {'is' if len(out) == 1 else 'are'} ejected",
        explanation=f"outlier detection took {', '.join(sorted(addresses))} out of {status.name}; the others carry the traffic",
        evidence=(counted,),
        fix=(
            Fix(
                "command",
                f"kubectl get pods -A -o wide --field-selector status.podIP={sorted(addresses)[0].rpartition(':')[0]}",
                "shows the pod behind the ejected endpoint",
            ),
        ),
        confidence=CERTAIN,
        affected=(edge.edge,),
        explains=tuple(s.id for s in (*answers, *totals)),
        caused_by=(failed,),
    )


def _counted(edge: EdgeFacts, status: ClusterStatus) -> tuple[Symptom, ...]:
    """The cluster's failures as counters tell them: where no other host failed they were the ejected one's."""
    return tuple(
        s
        for s in edge.on("client")
        if s.stat is not None
        and s.cluster == status.name
        and s.stat[2] in {"upstream_rq_5xx", "outlier_detection_ejections_enforced_total"}
    )
