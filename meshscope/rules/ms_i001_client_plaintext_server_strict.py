"""The client's sidecar sends plaintext to a server that demands mTLS.

Symptom
    The caller gets 503. Its sidecar logs `UC` with `upstream_reset_before_response_started{connection_termination}`
    and no transport failure reason; the server's sidecar logs `NR filter_chain_not_found` without a server name.

Why it fails
    A DestinationRule sets `trafficPolicy.tls.mode: DISABLE` for the host, which beats auto mTLS, while the
    PeerAuthentication in force at the server is STRICT: the server has no filter chain for plaintext and closes
    the connection.

How meshscope knows
    The transport socket of the client's cluster for this endpoint is plaintext, no filter chain of the server's
    inbound listener takes plaintext on that port, and requests fail in just this way now.

Fix
    Remove the `tls` block from the DestinationRule (auto mTLS then does what the server wants), or set its mode to
    ISTIO_MUTUAL. Setting the server to PERMISSIVE admits every other plaintext caller too.

References
    Istio: DestinationRule ClientTLSSettings, PeerAuthentication, "Understanding TLS Configuration".
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import claims, shown_by
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I001",
    cause="client-plaintext-server-strict",
    title="The client sends plaintext to a server that demands mTLS",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40", "Istio 1.32"),
    also_known_as=("KIA0204",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        shown = shown_by(
            edge,
            client=lambda s: s.has("UC") and not s.failure_reason,
            server=lambda s: "filter_chain_not_found" in (s.details, s.termination),
            client_stats=("upstream_cx_destroy_remote_with_active_rq", "upstream_rq_5xx"),
            server_stats=(("listener", "no_filter_chain_match"),),
        )
        for found in edge.predicted(RULE.cause):
            offered = found.branch.at(Stage.TLS_OFFER)
            rule = offered.kubernetes if offered is not None else None
            policy = found.hop.kubernetes
            yield from claims(
                RULE,
                edge,
                shown,
                predicted=found,
                subject=rule or edge.server_subject,
                title=f"{edge.edge}: the caller sends plaintext, the server demands mTLS",
                explanation=f"{rule or 'the configuration'} makes the caller's sidecar send plaintext to {edge.host}; "
                f"{policy or 'the policy in force'} makes the server STRICT, so it closes the connection",
                fix=fixes(rule, edge.host),
                ruled_out=(
                    RuledOut("client-cert-expired", "the caller offers no TLS on this connection"),
                    RuledOut(
                        "app-closes-connection",
                        "the server's sidecar refuses before the application is reached",
                    ),
                ),
            )


def fixes(rule: ObjectRef | None, host: str) -> tuple[Fix, ...]:
    effect = "every caller of the host that this DestinationRule applies to uses mTLS again"
    if rule is None:
        return (
            Fix(
                "advice",
                f"let the callers of {host} use ISTIO_MUTUAL, or remove what sets their TLS mode",
                effect,
            ),
        )
    patch = '{"spec":{"trafficPolicy":{"tls":{"mode":"ISTIO_MUTUAL"}}}}'
    command = f"kubectl patch destinationrule {rule.name} -n {rule.namespace} --type merge -p '{patch}'"
    return (Fix("command", command, effect),)
