"""A server takes plaintext beside mTLS, and somebody uses that.

Symptom
    None: the requests succeed. They travel readable, and the server can't tell who calls: policies that ask for a
    principal or a namespace never match them.

Why it fails
    The PeerAuthentication in force is PERMISSIVE (Istio's default) or DISABLE, and the caller has no sidecar, bypasses
    it, or is told to send plaintext. While a mesh is being migrated that is meant to be so; afterwards it is easily
    forgotten.

How meshscope knows
    Requests of the window reach the server through a filter chain without TLS: its log shows no server name for them
    and its listener takes plaintext on the port, or its connection manager counts connections that aren't TLS.
    It is a notice; with `--require-mtls` it is a warning.

Fix
    Give the callers a sidecar, then set the PeerAuthentication to STRICT. STRICT first cuts them off.

References
    Istio: PeerAuthentication, "Mutual TLS migration".
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.envoy.access_log import AccessLogEntry
from meshscope.facts.proxy import Proxy
from meshscope.model.findings import Fix, Severity, Unavailable, Unknown
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import CERTAIN, COUNTED, PREDICTED, decided
from meshscope.rules.facts import EdgeFacts, Facts, Moved, line_evidence
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.offers import set_mode
from meshscope.walk.hops import Hop, Stage
from meshscope.walk.transport import Offer

RULE = Rule(
    code="MS-I021",
    cause="plaintext-traffic-allowed",
    title="Plaintext is taken beside mTLS, and used",
    severity="info",
    mesh="istio",
    inputs=("walk", "counters", "kubernetes", "log"),
    since="0.1.0",
    verified_on=("Envoy 1.40", "Istio 1.32"),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    severity: Severity = "warning" if facts.require_mtls else "info"
    named: set[ObjectRef] = set()
    for edge in facts.edges:
        taken = next((hop for hop in _plaintext(edge) if hop.proxy is not None), None)
        lines = edge.received(_in_the_clear)
        if taken is None or not (lines or (edge.successes() and not edge.server_seen)):
            continue
        policy, mode = taken.kubernetes, str(taken.detail.get("mode") or "")
        named |= {facts.workload(proxy) for proxy in edge.server_proxies}
        yield Claim(
            rule=RULE,
            subject=edge.server_subject,
            stage=Stage.FILTER_CHAIN,
            title=f"{edge.host}:{edge.port} takes plaintext, and {edge.client} uses that",
            explanation=f"{edge.client} calls {edge.host} without mTLS; {policy or 'the default'} "
            f"{f'({mode}) ' if mode else ''}lets it",
            evidence=(*(line_evidence(*line, len(lines)) for line in lines[-1:]), *decided(taken)),
            fix=set_mode(policy, "STRICT", "callers without a sidecar are cut off: give them one first")
            or _MIGRATE,
            confidence=CERTAIN if lines else PREDICTED,
            affected=(edge.edge,),
            severity=severity,
        )
    for proxy in facts.proxies:
        workload = facts.workload(proxy)
        counted = _without_tls(facts, proxy) if workload not in named else ()
        if counted:
            yield Claim(
                rule=RULE,
                subject=workload,
                stage=Stage.FILTER_CHAIN,
                title=f"{workload.name}.{workload.namespace} takes plaintext, and somebody uses that",
                explanation="its sidecar counts connections that aren't TLS; the log, which would name the caller, "
                "wasn't read",
                evidence=tuple(moved.evidence for moved in counted),
                fix=_MIGRATE,
                confidence=COUNTED,
                affected=(str(workload),),
                severity=severity,
            )


def _plaintext(edge: EdgeFacts) -> Iterable[Hop]:
    """The hops by which a server's sidecar takes the edge's plaintext."""
    for walk in edge.walks:
        for branch in walk.branches:
            hop = branch.at(Stage.FILTER_CHAIN)
            offer = hop.detail.get("offer") if hop is not None else None
            if hop is None or not isinstance(offer, Offer) or offer.kind != "plaintext":
                continue
            if hop.outcome == "pass" and "skipped" not in hop.detail:
                yield hop


def _in_the_clear(entry: AccessLogEntry) -> bool:
    return not entry.requested_server_name and entry.upstream_cluster.startswith("inbound|")


def _without_tls(facts: Facts, proxy: Proxy) -> tuple[Moved, ...]:
    """Connections of inbound ports that weren't TLS, where the proxy's log can't tell whose they were."""
    if not isinstance(proxy.log, Unavailable):
        return ()
    ended = facts.moved(proxy, "http", "downstream_cx_ssl_total")
    return tuple(
        moved
        for name, moved in facts.moved(proxy, "http", "downstream_cx_total").items()
        if name.startswith("inbound_")
        and moved.by > (ended[name].by if name in ended else 0)
        and name in facts.moved(proxy, "http", "downstream_rq_2xx")
    )


_MIGRATE = (
    Fix(
        "advice",
        "give the callers a sidecar, then apply a PeerAuthentication with mtls.mode STRICT for the server",
        "callers without a sidecar are cut off by STRICT",
    ),
)
