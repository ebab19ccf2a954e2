"""The client uses TLS that the server's filter chains don't take for mesh TLS.

Symptom
    The caller gets 503 with `URX,UF` and the transport failure reason `Connection_reset_by_peer`; the server's sidecar
    logs `NR filter_chain_not_found` with a server name. On a port that isn't named as HTTP the TLS is passed on to the
    application, and the reason is `WRONG_VERSION_NUMBER`.

Why it fails
    A DestinationRule sets `tls.mode: SIMPLE` or `MUTUAL`. A server that takes plaintext too (PERMISSIVE) knows mesh TLS
    by Istio's own ALPN (`istio`, `istio-peer-exchange`, …), which only ISTIO_MUTUAL offers; other TLS is none of its
    business.

How meshscope knows
    The ALPN of the client's cluster has none of Istio's protocols, no filter chain of the server's inbound listener
    takes the connection, and one would with Istio's ALPN; requests fail in just this way now.

Fix
    Set the DestinationRule's mode to ISTIO_MUTUAL, or remove its `tls` block.

References
    Istio: DestinationRule ClientTLSSettings.TLSmode, PeerAuthentication PERMISSIVE, "Permissive mode".
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import RuledOut, Unknown
from meshscope.rules.claims import claims, shown_by
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.offers import UNMATCHED, Mismatch, answered_in_plaintext, mismatches, use_mesh_tls

RULE = Rule(
    code="MS-I007",
    cause="tls-without-istio-alpn",
    title="The client's TLS isn't the mesh's own, so no filter chain takes it",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters"),
    since="0.1.0",
    verified_on=("Envoy 1.40", "Istio 1.32"),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for one in (*mismatches(facts, RULE.cause, UNMATCHED), *_passed_on(facts)):
        edge, rule = one.edge, one.rule
        mode = one.offer.kind if one.offer is not None else "tls"
        yield from claims(
            RULE,
            edge,
            one.shown,
            predicted=one.found,
            subject=rule or edge.server_subject,
            title=f"{edge.edge}: the caller's TLS isn't the mesh's own, so the server doesn't take it",
            explanation=f"{rule or 'the configuration'} makes the caller's sidecar use TLS to {edge.host} without "
            f"Istio's ALPN{' or a certificate' if mode == 'tls' else ''}; {one.policy or 'the policy in force'} makes the "
            f"server know mesh TLS by that ALPN{one.part}",
            fix=use_mesh_tls(rule, edge.host),
            ruled_out=(
                RuledOut("client-mtls-server-disable", "the server has filter chains for mesh TLS"),
                RuledOut(
                    "client-sends-no-certificate", "the handshake isn't begun: no filter chain takes it"
                ),
            ),
            at_most=one.at_most,
        )


def _passed_on(facts: Facts) -> Iterable[Mismatch]:
    """Edges whose foreign TLS the server's sidecar hands to an application that doesn't speak it."""
    for edge in facts.edges:
        for found in edge.passing(RULE.cause)[:1]:
            shown = shown_by(edge, client=answered_in_plaintext)
            if shown:
                yield Mismatch(edge, shown, found)
