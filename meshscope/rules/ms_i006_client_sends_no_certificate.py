"""The client uses TLS without a certificate, the server demands one.

Symptom
    The caller gets 503 `UC` without a transport failure reason, although the handshake seems to succeed: with TLS 1.3
    the client is through before the server judges it. The server's sidecar logs nothing; its listener counts
    `ssl.fail_verify_no_cert`.

Why it fails
    A DestinationRule sets `tls.mode: SIMPLE` for the host: TLS as to a web server. The PeerAuthentication in force is
    STRICT, so the server's sidecar demands a client certificate.

How meshscope knows
    The client's cluster has a TLS transport socket without any certificate for this endpoint, the server's filter chain
    requires one, and requests fail in just this way now.

Fix
    Set the DestinationRule's mode to ISTIO_MUTUAL, or remove its `tls` block.

References
    Istio: DestinationRule ClientTLSSettings.TLSmode. Envoy: DownstreamTlsContext.require_client_certificate.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import RuledOut, Unknown
from meshscope.rules.claims import COUNTED, PREDICTED, claims
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.offers import (
    BEFORE_THE_APPLICATION,
    CLOSED,
    mismatches,
    rule_of_callers,
    unseen_callers,
    use_mesh_tls,
)
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I006",
    cause="client-sends-no-certificate",
    title="The client shows no certificate to a server that demands one",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40", "Istio 1.32"),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for one in mismatches(facts, RULE.cause, SHOWN):
        edge, rule = one.edge, one.rule
        yield from claims(
            RULE,
            edge,
            one.shown,
            predicted=one.found,
            subject=rule or edge.server_subject,
            title=f"{edge.edge}: the caller shows no certificate, the server demands one",
            explanation=f"{rule or 'the configuration'} makes the caller's sidecar use TLS without its certificate to "
            f"{edge.host}; {one.policy or 'the policy in force'} makes the server demand one{one.part}",
            fix=use_mesh_tls(rule, edge.host),
            ruled_out=(
                RuledOut("client-cert-expired", "the caller shows no certificate at all"),
                RuledOut("app-closes-connection", BEFORE_THE_APPLICATION),
            ),
            at_most=one.at_most,
        )
    for unseen in unseen_callers(facts, "ssl_fail_verify_no_cert", RULE.cause):
        rule = rule_of_callers(facts, unseen.server, "SIMPLE")
        told = (
            f"{rule} tells callers to use TLS without certificate"
            if rule
            else "which caller it is isn't known"
        )
        yield Claim(
            rule=RULE,
            subject=rule or unseen.server,
            stage=Stage.TLS_ACCEPT,
            title=f"{unseen.server.name}.{unseen.server.namespace} refuses callers that show no certificate",
            explanation=f"its sidecar counts connections without the client certificate that it demands; {told}",
            evidence=tuple(moved.evidence for moved in unseen.moved),
            fix=use_mesh_tls(rule, unseen.server.name),
            confidence=COUNTED if rule else PREDICTED,
            affected=(str(unseen.server),),
        )


SHOWN: dict[str, object] = {
    **CLOSED,
    "client_stats": (
        "ssl_connection_error",
        "upstream_cx_destroy_remote_with_active_rq",
        "upstream_rq_5xx",
    ),
    "server_stats": (("listener", "ssl_fail_verify_no_cert"),),
}
