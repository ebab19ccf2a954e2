"""The server's own sidecar limits what it passes on to its application, and the limit is reached.

Symptom
    The caller gets 503 `via_upstream`; the server's sidecar logs `UO` with
    `upstream_reset_before_response_started{overflow}` on its inbound cluster.

Why it fails
    A Sidecar resource with `inboundConnectionPool` (or an EnvoyFilter) gives the inbound cluster a circuit breaker:
    more requests than that, from all callers together, are refused by the server's own sidecar.

How meshscope knows
    The server's sidecar says `UO`, or the overflow counters of its inbound cluster rise; the limits are read from that
    cluster.

Fix
    Raise the limits to what the application bears, or give it more replicas.

References
    Istio: Sidecar inboundConnectionPool; Envoy: circuit breaking.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.envoy.local_replies import reset_bodies
from meshscope.istio.kubernetes import dicts, selects, strings
from meshscope.model.findings import Evidence, Fix, RuledOut, Unknown
from meshscope.model.names import ObjectRef
from meshscope.rules.facts import EdgeFacts, Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.application import Met, at_application, inbound_clusters, met, told
from meshscope.sources.source import Part
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I073",
    cause="app-overloaded-by-proxy-limit",
    title="The server's sidecar limits what it passes on to its application",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "config", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)

UNLIMITED = 4294967295


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        found = met(
            edge,
            lines=lambda s: at_application(s) and s.has("UO"),
            counters=("upstream_rq_pending_overflow", "upstream_rq_active_overflow"),
            bodies=reset_bodies("overflow"),
        )
        if found is not None:
            yield from _limited(facts, edge, found)


def _limited(facts: Facts, edge: EdgeFacts, found: Met) -> Iterable[Claim]:
    limits, evidence = "a limit", []
    for proxy, cluster in inbound_clusters(facts, edge, found):
        held = cluster.thresholds()
        numbers = {
            "connections": held.max_connections,
            "waiting requests": held.max_pending_requests,
            "requests": held.max_requests,
        }
        limits = (
            ", ".join(f"{limit} {what}" for what, limit in numbers.items() if limit < UNLIMITED) or limits
        )
        where = f"{proxy.path(Part.CONFIG_DUMP)}: cluster {cluster.name}"
        evidence.append(Evidence(f"proxy {proxy.id}", where, f"circuit breaker: {limits}"))
    sidecar = _sidecar(facts, edge)
    yield from told(
        RULE,
        edge,
        found,
        subject=sidecar,
        stage=Stage.INBOUND_CLUSTER,
        title=f"{edge.edge}: the server's sidecar refuses what exceeds its limit towards the application",
        explanation=f"{sidecar or 'its configuration'} lets the server's sidecar pass on {limits}; it refuses the rest "
        "with 503, whoever calls",
        evidence=tuple(evidence[:2]),
        fix=(_fix(sidecar, edge.host),),
        ruled_out=(RuledOut("max-pending", "the server's own sidecar refuses, not the caller's"),),
    )


def _sidecar(facts: Facts, edge: EdgeFacts) -> ObjectRef | None:
    """The Sidecar resource with an inbound connection pool that selects the server's pods."""
    service = facts.objects.service_of_host(edge.host)
    pods = facts.objects.pods_selected(service) if service is not None else ()
    for item in facts.objects.of("Sidecar"):
        limits = item.spec.get("inboundConnectionPool") or any(
            entry.get("connectionPool") for entry in dicts(item.spec.get("ingress"))
        )
        labels = strings((item.spec.get("workloadSelector") or {}).get("labels"))
        for pod in pods if limits else ():
            if item.metadata.namespace == pod.metadata.namespace and selects(labels, pod.metadata.labels):
                return item.ref
    return None


def _fix(sidecar: ObjectRef | None, host: str) -> Fix:
    effect = "the application gets more concurrent requests than now: check that it bears them"
    if sidecar is None:
        return Fix("advice", f"raise the connection pool's limits of the inbound cluster of {host}", effect)
    patch = '{"spec":{"inboundConnectionPool":{"http":{"http1MaxPendingRequests":1024},"tcp":{"maxConnections":1024}}}}'
    return Fix(
        "command",
        f"kubectl patch sidecars.networking.istio.io {sidecar.name} -n {sidecar.namespace} --type merge -p '{patch}'",
        effect,
    )
