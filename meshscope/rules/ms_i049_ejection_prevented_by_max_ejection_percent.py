"""An endpoint fails often enough to be ejected, and may not be.

Symptom
    A steady share of the requests fails, always at the same endpoint, although the DestinationRule has outlier detection.

Why it fails
    `maxEjectionPercent` (10 by default) limits how many of the endpoints may be out at once. With few endpoints one is more
    than that: with two and 10 %, none can ever be ejected.

How meshscope knows
    `outlier_detection.ejections_overflow` rises; or the client's log shows more failures in a row at one host than the
    detection allows, the host isn't ejected, and one more host would exceed the percentage in the cluster it holds.

Fix
    Raise `maxEjectionPercent` (100 lets all go; 50 suits two endpoints), and mend the failing pod.

References
    Istio: DestinationRule OutlierDetection; Envoy: outlier detection.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.envoy.clusters import ClusterStatus
from meshscope.envoy.outliers import ejected, may_eject_another
from meshscope.facts.proxy import Proxy
from meshscope.istio.names import metadata_object
from meshscope.model.findings import CausedBy, Evidence, Fix, Unknown
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import CERTAIN, COUNTED
from meshscope.rules.facts import EdgeFacts, Facts, symptom_evidence
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.destination_rules import patched
from meshscope.sources.source import Part
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I049",
    cause="ejection-prevented-by-max-ejection-percent",
    title="A failing endpoint may not be ejected",
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
    detection = cluster.outlier_detection if cluster is not None else None
    if (
        cluster is None
        or detection is None
        or may_eject_another(detection, len(status.hosts), len(ejected(status.hosts)))
    ):
        return
    if status.hosts and len(ejected(status.hosts)) == len(status.hosts):
        return
    overflows = edge.client_moved("outlier_detection_ejections_overflow")
    moved = tuple(found for found in overflows if found.name == status.name)
    failing = failing_hosts(edge, status, detection.consecutive_5xx)
    if not moved and not failing:
        return
    answers = tuple(
        s
        for s in edge.symptoms
        if s.code >= 500 and (s.side == "server" or (s.example and s.example.upstream_host in failing))
    )
    answers += tuple(s for s in facts.told_at(failing) if s.code >= 500 and s not in answers)
    counted = tuple(s for s in edge.symptoms if s.stat is not None and s.stat[2] in COUNTERS)
    rule = metadata_object(cluster.metadata.istio())
    limit = f"{detection.max_ejection_percent} % of {len(status.hosts)} endpoints"
    said = (
        f"outlier_detection.max_ejection_percent {detection.max_ejection_percent}, {len(status.hosts)} hosts"
    )
    yield Claim(
        rule=RULE,
        subject=rule or edge.server_subject,
        stage=Stage.ENDPOINT,
        discriminator=status.name,
        title=f"{edge.edge}: a failing endpoint can't be ejected ({limit} is less than one)",
        explanation=f"{', '.join(sorted(failing)) or 'an endpoint'} fails often enough in a row, but "
        f"{rule or 'the cluster'} allows only {limit} to be out at once, so it keeps getting requests",
        evidence=(
            *(symptom_evidence(s) for s in answers[:3]),
            *(m.evidence for m in moved[:2]),
            Evidence(f"proxy {proxy.id}", f"{proxy.path(Part.CONFIG_DUMP)}: cluster {status.name}", said),
        ),
        fix=(_fix(rule, edge.host),),
        confidence=CERTAIN if moved or answers else COUNTED,
        affected=(edge.edge,),
        explains=tuple(s.id for s in (*answers, *counted)),
        caused_by=(
            CausedBy(
                "application-answer",
                "that endpoint answers with errors",
                tuple(symptom_evidence(s) for s in answers[:1]),
            ),
        ),
    )


COUNTERS = frozenset({"outlier_detection_ejections_overflow", "upstream_rq_5xx"})


def failing_hosts(edge: EdgeFacts, status: ClusterStatus, in_a_row: int) -> set[str]:
    """Hosts that failed at least so often in the window, more than they succeeded."""
    counts: dict[str, int] = {}
    for symptom in edge.on("client"):
        for entry in symptom.entries:
            if entry.upstream_host and entry.response_code >= 500:
                counts[entry.upstream_host] = counts.get(entry.upstream_host, 0) + 1
    out = {host.address for host in ejected(status.hosts)}
    return {host for host, count in counts.items() if count >= in_a_row and host not in out}


def _fix(rule: ObjectRef | None, host: str) -> Fix:
    effect = "failing endpoints are taken out; the others must carry the load"
    pool = '{"outlierDetection":{"maxEjectionPercent":50}}'
    return patched(rule, pool, f"raise maxEjectionPercent for {host}", effect)
