"""The server's sidecar never got its certificate (or the mesh's roots), so nobody can connect to it by mTLS.

Symptom
    Callers get 503. Their sidecars log `URX,UF` with `Connection reset by peer`, or `Connection refused` while the server's
    listener waits for the secret. The server's sidecar logs nothing; its `downstream_context_secrets_not_ready` rises,
    or it never becomes ready and its pod with it.

Why it fails
    The pod's agent hands certificates to Envoy. It has none when istiod doesn't sign its request: istiod isn't
    reachable from the pod, the service account token is refused, or an external signer doesn't answer.

How meshscope knows
    The server proxy's dump lists the secret as warming: asked for, and never arrived. Callers fail in just this way
    now, or the counter rises, or the proxy is still initializing.

Fix
    The agent's log names the failing request. Make istiod reachable (port 15012) from the pod's node, and see
    whether other new pods get certificates.

References
    Istio: "Identity and certificate management"; Envoy: secret discovery service, `/ready`.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.facts.symptoms import Symptom
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.model.names import ObjectRef, ProxyId
from meshscope.rules.claims import claims
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.certificates import (
    look_at_agent,
    missing_secrets,
    reset_by_unread,
    restart,
    state_claim,
    unsound,
)
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I020",
    cause="server-secret-not-delivered",
    title="The server's sidecar never got its certificate",
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
        _refused,
        server_stat="server_ssl_socket_factory_downstream_context_secrets_not_ready",
    ):
        yield from claims(
            RULE,
            refusal.edge,
            refusal.shown,
            predicted=refusal.found,
            stage=Stage.TLS_ACCEPT,
            subject=refusal.subject,
            title=f"{refusal.edge.edge}: the server's sidecar never got its certificate",
            explanation=f"{refusal.who} asked for its secret and never got it{refusal.part}: its sidecar can't take mTLS, "
            "and resets or refuses every connection",
            fix=_fixes(refusal.subject, refusal.pod),
            ruled_out=(
                RuledOut("app-not-listening", "the server's sidecar itself doesn't take the connection"),
                RuledOut(
                    "client-mtls-server-disable",
                    "the server's filter chains take mTLS; its secret is missing",
                ),
            ),
        )
    for found in unsound(facts, RULE.cause):
        workload = facts.workload(found.proxy)
        yield state_claim(
            RULE,
            facts,
            found,
            title=f"the sidecar of {workload} never got its certificate",
            explanation=f"{found.proxy.id}: {found.why}; until it comes nobody can connect to it by mTLS",
            fix=_fixes(workload, found.proxy.id),
        )
    for edge, shown in reset_by_unread(facts):
        yield from claims(
            RULE,
            edge,
            shown,
            stage=Stage.TLS_ACCEPT,
            subject=edge.server_subject,
            title=f"{edge.edge}: the server resets the handshake; its sidecar may lack its certificate",
            explanation="the caller offers mTLS and is reset. A server's sidecar that never got its certificate does "
            "that, and one whose filter chains don't take mTLS; the server's proxy wasn't read, which would tell",
            fix=(
                Fix("advice", f"capture the proxies behind {edge.host}, and read their secrets and /ready"),
            ),
            at_most=GUESS,
        )


GUESS = 0.4
"""Other causes reset handshakes as well, and Envoy waits for its secret before it listens, unless told otherwise."""


def _refused(symptom: Symptom) -> bool:
    told = (symptom.failure_reason or symptom.details).replace(" ", "_")
    return symptom.has("UF") and ("Connection_reset" in told or "Connection_refused" in told)


def _fixes(workload: ObjectRef, pod: ProxyId | None) -> tuple[Fix, ...]:
    return (
        *look_at_agent(pod),
        restart(workload, "the agent asks again; of no use while istiod doesn't answer"),
    )
