"""The connection limit makes requests wait for each other; none is refused.

Symptom
    Latency rises with concurrency although the server isn't busy; everything is 200.

Why it fails
    A DestinationRule limits the connections to the host (`maxConnections`). HTTP requests beyond them queue in the caller's
    sidecar until a connection is free: with HTTP/1.1 one request at a time has each connection.

How meshscope knows
    `upstream_cx_overflow` of the client's cluster rises, or all allowed connections are in use while requests are
    pending, and no request is refused. `cx_open` of 1 on an idle pool is no sign: it only says that the limit is reached.

Fix
    Raise `maxConnections` to the callers' concurrency, or let the connection be HTTP/2 (`h2UpgradePolicy: UPGRADE`).

References
    Istio: DestinationRule ConnectionPoolSettings; Envoy: circuit breaking, connection pooling.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.envoy.config_dump import Cluster, in_words
from meshscope.istio.names import metadata_object
from meshscope.model.findings import Evidence, Fix, Unknown
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import CERTAIN, shown_by
from meshscope.rules.facts import EdgeFacts, Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.destination_rules import patched
from meshscope.sources.source import Part
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I045",
    cause="max-connections-queueing",
    title="Requests wait for each other because connections are limited",
    severity="warning",
    mesh="istio",
    inputs=("symptoms", "counters", "config", "hosts", "walk", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        for name in edge.clusters:
            yield from _overflowing(edge, name)


def _overflowing(edge: EdgeFacts, name: str) -> Iterable[Claim]:
    cluster = edge.client_cluster(name)
    shown = shown_by(edge, client_stats=("upstream_cx_overflow",), cluster=name)
    refused = any(s.has("UO") for s in edge.symptoms) or edge.client_moved("upstream_rq_pending_overflow")
    waiting = tuple(_waiting(edge, name, cluster))
    if cluster is None or refused or edge.is_tcp or not (shown or waiting):
        return
    rule = metadata_object(cluster.metadata.istio())
    limits = cluster.thresholds()
    held = edge.holding(name, f"max_connections {limits.max_connections}")
    yield Claim(
        rule=RULE,
        subject=rule or edge.server_subject,
        stage=Stage.CLUSTER,
        discriminator=name,
        title=f"{edge.edge}: requests queue for {limits.max_connections} connection{'s' if limits.max_connections != 1 else ''}",
        explanation=f"{rule or 'the cluster'} allows only {limits.max_connections} "
        f"connection{'s' if limits.max_connections != 1 else ''} to {name}; requests beyond wait in the caller's sidecar "
        f"({in_words(limits.max_pending_requests)} may) and take longer, none is refused",
        evidence=(*shown.evidence, *waiting, *((held,) if held is not None else ())),
        fix=(_fix(rule, edge.host),),
        confidence=CERTAIN,
        affected=(edge.edge,),
        explains=shown.explains,
    )


def _waiting(edge: EdgeFacts, name: str, cluster: Cluster | None) -> Iterable[Evidence]:
    """Current state: every allowed connection is in use and requests are pending."""
    for proxy, status in edge.hosts():
        active = sum(host.stats.get("cx_active", 0) for host in status.hosts)
        pending = sum(host.stats.get("rq_pending_active", 0) for host in status.hosts)
        if (
            status.name == name
            and cluster is not None
            and pending
            and active >= cluster.thresholds().max_connections
        ):
            quote = f"cx_active {active}, rq_pending_active {pending}, max_connections {cluster.thresholds().max_connections}"
            yield Evidence(f"proxy {proxy.id}", f"{proxy.path(Part.CLUSTERS)}: {name}", quote)


def _fix(rule: ObjectRef | None, host: str) -> Fix:
    effect = "the server gets more connections at once: check that it bears them"
    pool = '{"connectionPool":{"tcp":{"maxConnections":1024}}}'
    return patched(rule, pool, f"raise the connection limit for {host}", effect)
