"""The server's certificate has expired, and its callers refuse to talk to it.

Symptom
    Callers get 503. Their sidecars log `URX,UF` with `CERTIFICATE_VERIFY_FAILED` and `certificate has expired` at depth
    0; the server's sidecar logs nothing, its `ssl.connection_error` rises.

Why it fails
    A client's sidecar checks the server's certificate in the handshake and gives up. Certificates live a day and are
    renewed by the pod's agent; one that expired means that renewal stopped: istiod wasn't reachable, refused the
    request, or the pod's clock is wrong. Connections made before the expiry go on until they close.

How meshscope knows
    The chain in the server proxy's secret is out of its validity at the moment of the capture, and the callers'
    sidecars name that reason now, or count failing verifications. Either side alone is enough, with less confidence.

Fix
    Restart the workload to get a new certificate at once, then find out why the old one wasn't renewed: the agent's
    log in the istio-proxy container names the failing request to istiod.

References
    Istio: "Identity and certificate management"; Envoy: `ssl.fail_verify_error`, X.509 verification depth.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.model.names import ObjectRef, ProxyId
from meshscope.rules.claims import claims
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.certificates import (
    look_at_agent,
    moment,
    refused_servers,
    restart,
    state_claim,
    unsound,
)
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I011",
    cause="server-cert-expired",
    title="The server's certificate has expired",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "config", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40", "Istio 1.32"),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for refusal in refused_servers(facts, RULE.cause, "depth_0:_certificate_has_expired"):
        until = moment(refusal.certificate, end=True)
        yield from claims(
            RULE,
            refusal.edge,
            refusal.shown,
            predicted=refusal.found,
            at_most=refusal.at_most,
            stage=Stage.TLS_ACCEPT,
            subject=refusal.subject,
            title=f"{refusal.edge.edge}: the server's certificate expired{until}",
            explanation=f"the certificate that {refusal.who} shows isn't valid any more{refusal.part}; its callers' "
            "sidecars refuse the handshake",
            fix=_fixes(refusal.subject, refusal.pod),
            ruled_out=(RuledOut("root-ca-expired", "the expired certificate is the server's own (depth 0)"),),
        )
    for found in unsound(facts, RULE.cause):
        workload = facts.workload(found.proxy)
        yield state_claim(
            RULE,
            facts,
            found,
            title=f"the certificate of {workload} expired{moment(found.certificate, end=True)}",
            explanation=f"{found.proxy.id} holds {found.why}: callers refuse new connections to it",
            fix=_fixes(workload, found.proxy.id),
        )


def _fixes(workload: ObjectRef, pod: ProxyId | None) -> tuple[Fix, ...]:
    return (restart(workload, "new pods get a new certificate, if istiod answers them"), *look_at_agent(pod))
