"""Packets to the endpoint go nowhere.

Symptom
    The caller gets 503 after the connect timeout (10 s by default, times the tries); its sidecar logs `UF` with
    `connection_timeout` and no transport failure reason.

Why it fails
    Nobody answers the connection attempt: a NetworkPolicy, firewall or security group drops the packets, the address
    belongs to nobody (a pod or node that is gone), or the server is too busy to accept.

How meshscope knows
    The caller's sidecar says that connecting timed out. A plaintext application that stays silent when it is offered
    TLS leaves the very same line: where the caller offers TLS, the endpoint's proxy has to be known to tell them apart.

Fix
    Find who drops the packets: NetworkPolicies of both namespaces, security groups between the nodes, and whether the
    endpoint's address is still a pod's.

References
    Istio: DestinationRule connectTimeout; Kubernetes: NetworkPolicy; Envoy: response flags.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.facts.symptoms import Symptom
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.rules.facts import EdgeFacts, Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.application import (
    GONE,
    all_stale,
    caller_lines,
    is_gone,
    offers_tls,
    tls_fails,
    told,
    unsure,
)
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I069",
    cause="connect-timeout",
    title="Connecting to the endpoint times out",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        found = caller_lines(edge, timed_out, ("upstream_cx_connect_timeout",))
        if found is None or tls_fails(edge) or all_stale(edge, found):
            continue
        if is_gone(facts, edge, found):
            found = unsure(found, at_most=GONE)
        silent = offers_tls(edge) and not edge.server_proxies
        yield from told(
            RULE,
            edge,
            unsure(found) if silent else found,
            stage=Stage.CONNECT,
            title=f"{edge.edge}: connecting times out",
            explanation=f"nobody answers the caller's sidecar when it connects to {_where(edge)}"
            + ("; an application that stays silent under TLS would look the same" if silent else ""),
            fix=(_fix(edge),),
            ruled_out=()
            if silent
            else (
                RuledOut(
                    "client-mtls-server-without-sidecar",
                    "the caller offers plaintext here"
                    if not offers_tls(edge)
                    else "a sidecar that takes mesh TLS is there",
                ),
                RuledOut("nothing-listens-at-endpoint", "a closed port refuses at once"),
            ),
        )


def timed_out(symptom: Symptom) -> bool:
    """Whether a caller's line says that connecting took too long (`connection_timeout`, or errno 110)."""
    text = f"{symptom.details} {symptom.failure_reason}".replace(" ", "_").lower()
    late = "connection_timeout" in text or "delayed_connect_error:_110" in text or "timed_out" in text
    return symptom.has("UF") and late


def _where(edge: EdgeFacts) -> str:
    addresses = {e.upstream_host for s in edge.on("client") for e in s.entries if e.upstream_host}
    return ", ".join(sorted(addresses)[:3]) or edge.host


def _fix(edge: EdgeFacts) -> Fix:
    return Fix(
        "command",
        "kubectl get networkpolicies -A",
        f"shows what may drop packets to {_where(edge)}; check that the address is still a pod's, too",
    )
