"""The client's sidecar sends plaintext to a server that demands mTLS.

Symptom
    The caller gets 503. Its sidecar logs `UC` with `upstream_reset_before_response_started{connection_termination}`
    and no transport failure reason; the server's sidecar logs `NR filter_chain_not_found` without a server name.

Why it fails
    A DestinationRule sets `trafficPolicy.tls.mode: DISABLE` for the host (a `tls` block without mode does the same),
    which beats auto mTLS, while the PeerAuthentication in force at the server is STRICT: the server has no filter
    chain for plaintext and closes the connection.

How meshscope knows
    The transport socket of the client's cluster for this endpoint is plaintext, no filter chain of the server's
    inbound listener takes plaintext on that port, and requests fail in just this way now. Where one of the proxies
    wasn't read, the DestinationRule or the PeerAuthentication in force stands for what it holds, and the confidence is
    lower.

Fix
    Remove the `tls` block from the DestinationRule (auto mTLS then does what the server wants), or set its mode to
    ISTIO_MUTUAL. Setting the server to PERMISSIVE admits every other plaintext caller too.

References
    Istio: DestinationRule ClientTLSSettings, PeerAuthentication, "Understanding TLS Configuration".
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import RuledOut, Unknown
from meshscope.rules.claims import claims
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.offers import BEFORE_THE_APPLICATION, CLOSED, mismatches, use_mesh_tls

RULE = Rule(
    code="MS-I001",
    cause="client-plaintext-server-strict",
    title="The client sends plaintext to a server that demands mTLS",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters"),
    since="0.1.0",
    verified_on=("Envoy 1.40", "Istio 1.32"),
    also_known_as=("KIA0207", "KIA0208"),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for one in mismatches(facts, RULE.cause, CLOSED):
        edge, rule = one.edge, one.rule
        yield from claims(
            RULE,
            edge,
            one.shown,
            predicted=one.found,
            subject=rule or edge.server_subject,
            title=f"{edge.edge}: the caller sends plaintext, the server demands mTLS",
            explanation=f"{rule or 'the configuration'} makes the caller's sidecar send plaintext to {edge.host}; "
            f"{one.policy or 'the policy in force'} makes the server STRICT, so it closes the connection{one.part}",
            fix=use_mesh_tls(rule, edge.host),
            ruled_out=(
                RuledOut("client-cert-expired", "the caller offers no TLS on this connection"),
                RuledOut("app-closes-connection", BEFORE_THE_APPLICATION),
                RuledOut("client-without-sidecar-server-strict", "the caller has its sidecar"),
            ),
            at_most=one.at_most,
        )
