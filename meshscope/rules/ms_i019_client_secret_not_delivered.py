"""The client's sidecar never got its certificate (or the mesh's roots), so it can't open mTLS connections.

Symptom
    The caller gets 503; its sidecar logs `URX,UF` with `TLS error: Secret is not supplied by SDS`. Where the sidecar waits
    for the secret for ever, as Istio's does by default, it never becomes ready: its listeners aren't there, and the
    application gets connection refused for every call.

Why it fails
    The pod's agent hands certificates to Envoy. It has none when istiod doesn't sign its request: istiod isn't
    reachable from the pod, the service account token is refused, or an external signer doesn't answer.

How meshscope knows
    The client proxy's dump lists the secret as warming: asked for, and never arrived. Its log or its counter
    `upstream_context_secrets_not_ready` shows requests that fail for it, or the proxy is still initializing.

Fix
    The agent's log names the failing request. Make istiod reachable (port 15012) from the pod's node, and see
    whether other new pods get certificates.

References
    Istio: "Identity and certificate management"; Envoy: secret discovery service, `/ready`.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.model.names import ObjectRef, ProxyId
from meshscope.rules.claims import claims
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.certificates import look_at_agent, missing_secrets, restart, state_claim, unsound
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I019",
    cause="client-secret-not-delivered",
    title="The client's sidecar never got its certificate",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "config", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40", "Istio 1.32"),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for refusal in missing_secrets(
        facts,
        RULE.cause,
        lambda s: "Secret_is_not_supplied" in (s.failure_reason or s.details).replace(" ", "_"),
        client_stat="client_ssl_socket_factory_upstream_context_secrets_not_ready",
    ):
        yield from claims(
            RULE,
            refusal.edge,
            refusal.shown,
            predicted=refusal.found,
            stage=Stage.TLS_OFFER,
            subject=refusal.subject,
            title=f"{refusal.edge.edge}: the caller's sidecar never got its certificate",
            explanation=f"{refusal.who} asked for its secret and never got it: its sidecar can't offer mTLS, and fails "
            "every request itself",
            fix=_fixes(refusal.subject, refusal.pod),
            ruled_out=(RuledOut("server-secret-not-delivered", "the caller's own sidecar lacks the secret"),),
        )
    for found in unsound(facts, RULE.cause):
        workload = facts.workload(found.proxy)
        yield state_claim(
            RULE,
            facts,
            found,
            title=f"the sidecar of {workload} never got its certificate",
            explanation=f"{found.proxy.id}: {found.why}; until it comes the sidecar doesn't get ready, and the application "
            "can't call anybody",
            fix=_fixes(workload, found.proxy.id),
        )


def _fixes(workload: ObjectRef, pod: ProxyId | None) -> tuple[Fix, ...]:
    return (
        *look_at_agent(pod),
        restart(workload, "the agent asks again; of no use while istiod doesn't answer"),
    )
