"""A caller connects to a port of the sidecar itself instead of the application's.

Symptom
    The connection is accepted and closed (or reset) at once, without an answer. The caller's sidecar logs a TCP line with
    `PassthroughCluster` and no bytes sent back; the server's logs nothing.

Why it fails
    15001 and 15006 are the two ends at which the sidecar takes redirected traffic. What is sent straight to them would go
    round in circles, so they lead it to `BlackHoleCluster`; 15000 and 15004 listen inside the pod only. Somebody took the
    number from a proxy's own listing (`ss`, a scan, a misread dashboard) for the service's.

How meshscope knows
    The caller's log shows the address with that port; or connections to `BlackHoleCluster` move at a server's proxy whose
    outbound policy doesn't use it otherwise.

Fix
    Call the Service and its port. For metrics use 15020 or 15090, for readiness 15021.

References
    Istio: "Ports used by Istio sidecar".
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.envoy.config_dump import ConfigDump, TcpProxy
from meshscope.facts.proxy import Proxy
from meshscope.istio.names import BLACK_HOLE, PASSTHROUGH
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.rules.claims import COUNTED, claims, shown_by
from meshscope.rules.facts import EdgeFacts, Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.walk.hops import Stage
from meshscope.walk.outbound import CLOSED_PROXY_PORTS

RULE = Rule(
    code="MS-I058",
    cause="connect-to-proxy-port",
    title="A request goes straight to the sidecar's own port",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "config"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    seen: set[str] = set()
    for edge in facts.edges:
        if edge.port in CLOSED_PROXY_PORTS:
            yield from _called(facts, edge, seen)
    for proxy in facts.proxies:
        yield from _taken(facts, proxy, seen)


def _called(facts: Facts, edge: EdgeFacts, seen: set[str]) -> Iterable[Claim]:
    shown = shown_by(edge, client=lambda s: s.cluster in {"", PASSTHROUGH, BLACK_HOLE})
    for found in edge.predicted(RULE.cause)[:1]:
        seen.update(str(pod.id) for pod in edge.server_proxies)
        server = facts.workload_at(edge.host)
        seen.add(str(server))
        yield from claims(
            RULE,
            edge,
            shown,
            predicted=found,
            subject=edge.client_subject,
            discriminator=f"{edge.host}:{edge.port}",
            title=f"{edge.client} calls {server} at {edge.port}, a port of the sidecar itself",
            explanation=f"{found.hop.decision}; the sidecar of {server} closes such connections",
            fix=_fix(f"let {edge.client} call the Service of {server} at its own port"),
            ruled_out=(
                RuledOut("app-closes-connection", "the connection never reaches the application"),
                RuledOut(
                    "nothing-listens-at-endpoint", "the sidecar takes the connection before it closes it"
                ),
            ),
        )


def _taken(facts: Facts, proxy: Proxy, seen: set[str]) -> Iterable[Claim]:
    """The server's side alone: connections that went into its black hole while no outbound policy leads there."""
    config = facts.config(proxy)
    moved = facts.moved(proxy, "cluster", "upstream_cx_none_healthy").get(BLACK_HOLE)
    workload = facts.workload(proxy)
    if moved is None or config is None or f"{workload.name}.{workload.namespace}" in seen or blocks(config):
        return
    yield Claim(
        rule=RULE,
        subject=workload,
        stage=Stage.CAPTURE,
        explanation=f"connections straight to 15006 or 15001 of {proxy.id} end in its BlackHoleCluster; "
        "who makes them isn't known, as no log of a caller shows them",
        evidence=(moved.evidence,),
        fix=_fix(f"find who calls {workload.name} at 15006 or 15001 and let it call the Service instead"),
        confidence=COUNTED,
        affected=(str(workload),),
        discriminator="15006",
        title=f"somebody calls {workload.name}.{workload.namespace} at a port of the sidecar itself",
    )


def blocks(config: ConfigDump) -> bool:
    """Whether the outbound policy leads unknown hosts into the black hole, too."""
    listener = config.listeners.get("virtualOutbound")
    for chain in listener.filter_chains if listener is not None else ():
        tcp = chain.network_filter("TcpProxy")
        match = chain.filter_chain_match
        if tcp is not None and (match is None or not match.destination_port):
            return tcp.decode(TcpProxy).cluster == BLACK_HOLE
    return False


def _fix(text: str) -> tuple[Fix, ...]:
    return (Fix("advice", f"{text}; metrics are at 15020 and 15090, readiness at 15021", ""),)
