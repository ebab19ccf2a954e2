"""The circuit breaker's connection limit refuses TCP connections.

Symptom
    A TCP client's connection is closed as soon as it is opened; its sidecar logs `0 UO`.

Why it fails
    A DestinationRule limits the connections to the host (`maxConnections`). For TCP each downstream connection needs one
    of its own; beyond the limit there is nothing to queue, so Envoy closes it.

How meshscope knows
    The client's log shows `UO` on a TCP connection, or `upstream_cx_overflow` rises for a cluster that carries TCP; the
    limit is read from the cluster that the client really holds.

Fix
    Raise `maxConnections` to the callers' pool sizes together (replicas × pool size), or make the pools smaller.

References
    Istio: DestinationRule ConnectionPoolSettings; Envoy: circuit breaking.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.facts.symptoms import is_tcp
from meshscope.istio.names import metadata_object
from meshscope.model.findings import Fix, Unknown
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import claims, shown_by
from meshscope.rules.facts import EdgeFacts, Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.destination_rules import patched
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I044",
    cause="max-connections-tcp",
    title="TCP connections are refused because there are too many",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "counters", "config", "walk", "kubernetes"),
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
        client=lambda s: s.cluster == name and s.has("UO") and s.example is not None and is_tcp(s.example),
        client_stats=("upstream_cx_overflow",),
        cluster=name,
    )
    if not any(s.from_log for s in shown.symptoms) and not (shown.moved and edge.is_tcp):
        return
    cluster = edge.client_cluster(name)
    rule = metadata_object(cluster.metadata.istio()) if cluster is not None else None
    most = cluster.thresholds().max_connections if cluster is not None else None
    limit = (
        "a limited number of connections" if most is None else f"{most} connection{'s' if most != 1 else ''}"
    )
    yield from claims(
        RULE,
        edge,
        shown,
        held=edge.holding(name, f"max_connections {most}"),
        telling=True,
        stage=Stage.CLUSTER,
        subject=rule or edge.server_subject,
        discriminator=name,
        title=f"{edge.edge}: the circuit breaker refuses TCP connections",
        explanation=f"{rule or 'the cluster'} allows {limit} to {name}; further ones are closed at once",
        fix=(_fix(rule, edge.host),),
    )


def _fix(rule: ObjectRef | None, host: str) -> Fix:
    effect = "the server gets more connections than now: check its own limit"
    pool = '{"connectionPool":{"tcp":{"maxConnections":1024}}}'
    return patched(rule, pool, f"raise the connection limit for {host}", effect)
