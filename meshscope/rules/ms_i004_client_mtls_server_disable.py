"""The client offers mesh TLS, the server's policy is DISABLE.

Symptom
    The caller gets 503 with `URX,UF`. Its sidecar's transport failure reason is a TLS error: `WRONG_VERSION_NUMBER` (the
    server answered the hello in plaintext) or `Connection_reset_by_peer`. The server's sidecar logs `NR
    filter_chain_not_found` with a server name, or `400 DPE http1.codec_error` when it reads the hello as HTTP.

Why it fails
    A DestinationRule sets `tls.mode: ISTIO_MUTUAL`, which beats auto mTLS, while the PeerAuthentication in force at the
    server is DISABLE: its filter chains take plaintext only.

How meshscope knows
    The client's cluster has a TLS transport socket for this endpoint, and the filter chain that the server's inbound
    listener picks for the connection has none (or no chain fits); requests fail in one of these ways now.

Fix
    Remove DISABLE from the PeerAuthentication, or the `tls` block from the DestinationRule. Without either, auto mTLS
    follows the policy by itself.

References
    Istio: PeerAuthentication MutualTLS.Mode, DestinationRule ClientTLSSettings, "Automatic mutual TLS".
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import RuledOut, Unknown
from meshscope.rules.claims import LIKELY, claims
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.offers import (
    UNMATCHED,
    answered_in_plaintext,
    leave_to_auto_mtls,
    mismatches,
    no_filter_chain,
    read_as_http,
    reset_in_handshake,
    set_mode,
    unknown_servers,
)
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I004",
    cause="client-mtls-server-disable",
    title="The client speaks mTLS to a server whose policy is DISABLE",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters"),
    since="0.1.0",
    verified_on=("Envoy 1.40", "Istio 1.32"),
    also_known_as=("KIA0505",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for one in mismatches(facts, RULE.cause, SHOWN):
        edge = one.edge
        yield from claims(
            RULE,
            edge,
            one.shown,
            predicted=one.found,
            subject=one.policy or one.rule or edge.server_subject,
            title=f"{edge.edge}: the caller speaks mTLS, the server takes plaintext only",
            explanation=f"{one.rule or 'the configuration'} makes the caller's sidecar use mesh TLS to {edge.host}; "
            f"{one.policy or 'the policy in force'} makes the server take plaintext only{one.part}",
            fix=(
                *set_mode(one.policy, "PERMISSIVE", "the server takes mTLS and plaintext"),
                *leave_to_auto_mtls(one.rule, edge.host),
            ),
            ruled_out=(
                RuledOut("client-mtls-server-without-sidecar", "the server has its sidecar"),
                RuledOut("app-not-http", "what the server's sidecar couldn't read was a TLS hello"),
            ),
            at_most=one.at_most,
        )
    for edge, shown in unknown_servers(facts):
        yield from claims(
            RULE,
            edge,
            shown,
            stage=Stage.FILTER_CHAIN,
            subject=edge.server_subject,
            explanation="the server answers the caller's TLS in plaintext. Its sidecar may be told not to take TLS "
            "(PeerAuthentication DISABLE), or it has none; neither it nor its policy was read",
            fix=leave_to_auto_mtls(None, edge.host),
            at_most=LIKELY,
        )


SHOWN: dict[str, object] = {
    **UNMATCHED,
    "client": lambda s: reset_in_handshake(s) or answered_in_plaintext(s),
    "server": lambda s: no_filter_chain(s) or read_as_http(s),
    "server_stats": (("listener", "no_filter_chain_match"), ("http", "downstream_cx_protocol_error")),
}
