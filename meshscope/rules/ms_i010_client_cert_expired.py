"""The client's certificate has expired, and servers refuse its connections.

Symptom
    The caller gets 503. Its sidecar logs `UC` with `upstream_reset_before_response_started{connection_termination}` and
    no transport failure reason; the server's sidecar logs nothing, its `ssl.fail_verify_error` rises. TCP clients see
    a connection that opens and closes with nothing received.

Why it fails
    With TLS 1.3 the client has finished its handshake before the server has looked at the client's certificate: the
    client believes to be connected, and the server closes. Certificates live a day and are renewed by the pod's
    agent; one that expired means that renewal stopped: istiod wasn't reachable, refused the request, or the pod's
    clock is wrong. Connections made before the expiry go on until they close, so the failure comes gradually.

How meshscope knows
    The chain in the client proxy's secret, judged at the moment of the capture against the roots in the server
    proxy's secret, is out of its validity, and requests fail in just this way now (or handshakes do, by the counters
    of both proxies). Where the server's proxy couldn't be read, what most other proxies trust stands for it.

Fix
    Restart the workload to get a new certificate at once, then find out why the old one wasn't renewed: the agent's
    log in the istio-proxy container names the failing request to istiod.

References
    Istio: "Identity and certificate management"; Envoy: `ssl.fail_verify_error`, access log response flags.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.model.names import ObjectRef, ProxyId
from meshscope.rules.claims import claims
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.certificates import (
    by_refusing_servers,
    look_at_agent,
    moment,
    refused_clients,
    restart,
    state_claim,
    unsound,
)

RULE = Rule(
    code="MS-I010",
    cause="client-cert-expired",
    title="The client's certificate has expired",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "config", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40", "Istio 1.32"),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for refusal in refused_clients(facts, RULE.cause):
        early = refusal.fault is not None and refusal.fault.kind == "not_yet_valid"
        when = (
            f"isn't valid before{moment(refusal.certificate, end=False).replace(' at', '')}"
            if early
            else f"expired{moment(refusal.certificate, end=True)}"
        )
        yield from claims(
            RULE,
            refusal.edge,
            refusal.shown,
            predicted=refusal.found,
            subject=refusal.subject,
            title=f"{refusal.edge.edge}: the caller's certificate {when}",
            explanation=f"the certificate that {refusal.who} shows {when}{refusal.part}; the server's sidecar closes each "
            "of its new connections",
            fix=_fixes(refusal.subject, refusal.pod),
            ruled_out=(
                RuledOut("client-cert-untrusted-by-server", "it comes from a root that the server trusts"),
                RuledOut(
                    "app-closes-connection", "the server's sidecar closes before the application is reached"
                ),
            ),
        )
    for found in unsound(facts, RULE.cause):
        workload = facts.workload(found.proxy)
        yield state_claim(
            RULE,
            facts,
            found,
            title=f"the certificate of {workload} expired{moment(found.certificate, end=True)}",
            explanation=f"{found.proxy.id} holds {found.why}: servers refuse its new connections",
            fix=_fixes(workload, found.proxy.id),
        )
    yield from by_refusing_servers(
        RULE,
        facts,
        "the caller's certificate may have expired",
        "read the callers' proxies: their secrets tell",
    )


def _fixes(workload: ObjectRef, pod: ProxyId | None) -> tuple[Fix, ...]:
    return (restart(workload, "new pods get a new certificate, if istiod answers them"), *look_at_agent(pod))
