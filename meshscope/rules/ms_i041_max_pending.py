"""The circuit breaker's limit on pending requests overflows.

Symptom
    The caller gets 503 at once, its sidecar logs `UO` with `upstream_reset_before_response_started{overflow}` and no
    upstream host; the response carries `x-envoy-overloaded: true`.

Why it fails
    A DestinationRule limits the connection pool. All connections are busy (`maxConnections`), so requests queue, and
    the queue is full: `http1MaxPendingRequests` are waiting already. Envoy refuses the next one.

How meshscope knows
    `upstream_rq_pending_overflow` of the client's cluster rises, or its log shows `UO` without an upstream host, and
    the limit is read from the cluster the client really holds.

Fix
    Raise `http1MaxPendingRequests` and `maxConnections` in the DestinationRule to what the callers' bursts need, or
    make the server faster. A limit of 1 refuses ordinary bursts.

References
    Istio: DestinationRule ConnectionPoolSettings; Envoy: circuit breaking.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.envoy.config_dump import in_words
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
    code="MS-I041",
    cause="max-pending",
    title="Requests are refused because too many are waiting for a connection",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "counters", "config", "walk", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40", "Istio 1.32"),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        for name in edge.clusters:
            yield from _overflowing(edge, name)


def _overflowing(edge: EdgeFacts, name: str) -> Iterable[Claim]:
    shown = shown_by(
        edge,
        client=lambda s: s.cluster == name and s.has("UO") and refused_before_a_host(s),
        client_stats=("upstream_rq_pending_overflow",),
        cluster=name,
    )
    if not shown or edge.is_tcp:
        return
    cluster = edge.client_cluster(name)
    limits = cluster.thresholds() if cluster is not None else None
    rule = metadata_object(cluster.metadata.istio()) if cluster is not None else None
    waiting = (
        f"{limits.max_pending_requests} wait while {in_words(limits.max_connections)} may be under way"
        if limits
        else "a limited number wait for a connection"
    )
    yield from claims(
        RULE,
        edge,
        shown,
        held=edge.holding(name, f"max_pending_requests {limits.max_pending_requests}") if limits else None,
        telling=True,
        stage=Stage.CLUSTER,
        subject=rule or edge.server_subject,
        discriminator=name,
        title=f"{edge.edge}: the circuit breaker refuses requests (pending limit)",
        explanation=f"{rule or 'the cluster'} lets {waiting}; further requests to {name} are refused at once with 503",
        fix=(_fix(rule, edge.host),),
    )


def refused_before_a_host(symptom: Symptom) -> bool:
    """A pending overflow happens before a host is chosen; one of active requests after."""
    return symptom.example is not None and not symptom.example.upstream_host


def _fix(rule: ObjectRef | None, host: str) -> Fix:
    effect = "the server gets more concurrent requests than now: check that it bears them"
    pool = '{"connectionPool":{"http":{"http1MaxPendingRequests":1024},"tcp":{"maxConnections":1024}}}'
    return patched(rule, pool, f"raise the pending and connection limits for {host}", effect)
