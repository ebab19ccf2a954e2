"""The server's certificate begins in the future, and its callers refuse to talk to it.

Symptom
    Callers get 503. Their sidecars log `URX,UF` with `CERTIFICATE_VERIFY_FAILED` and `certificate is not yet valid`; the
    server's sidecar logs nothing, its `ssl.connection_error` rises.

Why it fails
    The clock of whoever signed the certificate runs ahead of the callers' clocks, or the callers' clocks lag. It ends
    by itself once that time has come, and comes again with the next renewal.

How meshscope knows
    The validity of the chain in the server proxy's secret begins after the moment of the capture, and the callers'
    sidecars name that reason now, or count failing verifications.

Fix
    Set the clocks right: of istiod's node (or of the external signer), of the nodes of the callers. Then restart the
    server to get a certificate that is valid now.

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
    look_at_secrets,
    moment,
    refused_servers,
    restart,
    state_claim,
    unsound,
)
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I012",
    cause="server-cert-not-yet-valid",
    title="The server's certificate isn't valid yet",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "config", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40", "Istio 1.32"),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for refusal in refused_servers(facts, RULE.cause, "certificate_is_not_yet_valid"):
        since = moment(refusal.certificate, end=False)
        yield from claims(
            RULE,
            refusal.edge,
            refusal.shown,
            predicted=refusal.found,
            at_most=refusal.at_most,
            stage=Stage.TLS_ACCEPT,
            subject=refusal.subject,
            title=f"{refusal.edge.edge}: the server's certificate isn't valid yet",
            explanation=f"the certificate that {refusal.who} shows begins{since or ' in the future'}{refusal.part}: the "
            "clock of its signer runs ahead, or the callers' clocks lag; callers refuse the handshake until then",
            fix=_fixes(refusal.subject, refusal.pod),
            ruled_out=(RuledOut("server-cert-expired", "its validity begins in the future"),),
        )
    for found in unsound(facts, RULE.cause):
        workload = facts.workload(found.proxy)
        yield state_claim(
            RULE,
            facts,
            found,
            title=f"the certificate of {workload} isn't valid yet",
            explanation=f"{found.proxy.id} holds {found.why}, valid from{moment(found.certificate, end=False)}: callers "
            "refuse new connections to it",
            fix=_fixes(workload, found.proxy.id),
        )


def _fixes(workload: ObjectRef, pod: ProxyId | None) -> tuple[Fix, ...]:
    return (
        Fix(
            "advice",
            "compare the clocks of the signer's, the server's and the callers' nodes (chronyc tracking)",
        ),
        restart(
            workload,
            "new pods get a new certificate; while the signer's clock is ahead, it isn't valid either",
        ),
        *look_at_secrets(pod),
    )
