"""The circuit breaker's limit on active requests overflows.

Symptom
    The caller gets 503 at once; its sidecar logs `UO` with `upstream_reset_before_response_started{overflow}`, this time
    with an upstream host.

Why it fails
    A DestinationRule limits how many requests may be under way to the host (`http2MaxRequests`, which counts HTTP/1.1
    requests too). The limit is reached, and Envoy refuses the next request rather than queue it.

How meshscope knows
    `upstream_rq_active_overflow` of the client's cluster rises, or its log shows `UO` with an upstream host; the limit is
    read from the cluster that the client really holds.

Fix
    Raise `http2MaxRequests` to what the callers' concurrency needs, or make the server faster.

References
    Istio: DestinationRule ConnectionPoolSettings; Envoy: circuit breaking.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.facts.symptoms import Symptom
from meshscope.istio.names import metadata_object
from meshscope.model.findings import Fix, Unknown
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import claims, shown_by
from meshscope.rules.facts import EdgeFacts, Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.destination_rules import patched
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I042",
    cause="max-requests",
    title="Requests are refused because too many are under way",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "counters", "config", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        for name in edge.clusters:
            yield from _overflowing(edge, name)


def _overflowing(edge: EdgeFacts, name: str) -> Iterable[Claim]:
    shown = shown_by(
        edge,
        client=lambda s: s.cluster == name and s.has("UO") and "overflow" in s.details and has_host(s),
        client_stats=("upstream_rq_active_overflow",),
        cluster=name,
    )
    if not shown:
        return
    cluster = edge.client_cluster(name)
    rule = metadata_object(cluster.metadata.istio()) if cluster is not None else None
    most = cluster.thresholds().max_requests if cluster is not None else None
    limit = (
        "a limited number of requests" if most is None else f"{most} active request{'s' if most != 1 else ''}"
    )
    yield from claims(
        RULE,
        edge,
        shown,
        held=edge.holding(name, f"max_requests {most}"),
        telling=True,
        stage=Stage.CLUSTER,
        subject=rule or edge.server_subject,
        discriminator=name,
        title=f"{edge.edge}: the circuit breaker refuses requests (limit of active requests)",
        explanation=f"{rule or 'the cluster'} allows {limit} to {name}; further ones are refused at once with 503",
        fix=(_fix(rule, edge.host),),
    )


def has_host(symptom: Symptom) -> bool:
    """An active-request overflow happens after a host was chosen; a pending overflow before."""
    return symptom.example is not None and bool(symptom.example.upstream_host)


def _fix(rule: ObjectRef | None, host: str) -> Fix:
    effect = "the server gets more concurrent requests than now: check that it bears them"
    pool = '{"connectionPool":{"http":{"http2MaxRequests":1024}}}'
    return patched(rule, pool, f"raise the limit of active requests for {host}", effect)
