"""The server's trust bundle is outdated: it lacks the root that the client's certificate comes from.

Symptom
    The caller gets 503. Its sidecar logs `UC` with `upstream_reset_before_response_started{connection_termination}` and
    no transport failure reason; the server's sidecar logs nothing, its `ssl.fail_verify_error` rises. The same caller
    reaches other servers well.

Why it fails
    After the mesh's root was rotated, the caller's certificate is of the new root, and this server's proxy never got
    the new trust bundle.

How meshscope knows
    The client's chain leads to no root of the server proxy's bundle, but to one that most other proxies trust; and
    requests fail in just this way now. Where the server's proxy couldn't be read this is a guess, and marked as one.

Fix
    Restart the server, so that it gets the current roots. Rotate in two steps: first every proxy trusts old and new,
    then istiod signs with the new one.

References
    Istio: "Plug in CA Certificates", "Trust domain migration"; Envoy: `ssl.fail_verify_error`.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.rules.claims import COUNTED, LIKELY, claims
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.certificates import (
    Refusing,
    closed_by_unread,
    look_at_secrets,
    refused_clients,
    refusing_servers,
    restart,
)
from meshscope.walk.hops import Stage
from meshscope.walk.transport import certificate_evidence

RULE = Rule(
    code="MS-I016",
    cause="server-root-bundle-outdated",
    title="The server's trust bundle lacks the root of the client's certificate",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "config", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40", "Istio 1.32"),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for refusal in refused_clients(facts, RULE.cause):
        issuer = refusal.certificate.issuer if refusal.certificate is not None else "an unknown authority"
        yield from claims(
            RULE,
            refusal.edge,
            refusal.shown,
            predicted=refusal.found,
            subject=refusal.subject,
            title=f"{refusal.edge.edge}: the server's trust bundle lacks the root of the caller's certificate",
            explanation=f"the caller's certificate, issued by `{issuer}`, is trusted by most proxies, and {refusal.who} "
            f"doesn't have that root{refusal.part}: it never got the mesh's current trust bundle",
            fix=(restart(refusal.subject, "new pods get the current roots"), *look_at_secrets(refusal.pod)),
            ruled_out=(
                RuledOut(
                    "client-cert-untrusted-by-server", "most other proxies trust the caller's certificate"
                ),
                RuledOut("client-cert-expired", "the caller's certificate is within its validity"),
            ),
        )
    for server in refusing_servers(facts):
        if server.lacking:
            yield _by_its_bundle(server)
    yield from _unread_servers(facts)


def _by_its_bundle(server: Refusing) -> Claim:
    lacking = ", ".join(root.subject for root in server.lacking)
    return Claim(
        rule=RULE,
        subject=server.workload,
        stage=Stage.TLS_ACCEPT,
        title=f"{server.workload} refuses callers; its trust bundle lacks a root that the others have",
        explanation=f"{server.proxy.id} refuses certificates of callers whose proxies weren't read, and lacks "
        f"`{lacking}`, which most other proxies trust",
        evidence=(
            *(one.evidence for one in server.moved[:2]),
            *(certificate_evidence(server.proxy, root, "ROOTCA") for root in server.own[:2]),
        ),
        fix=(restart(server.workload, "new pods get the current roots"), *look_at_secrets(server.proxy.id)),
        confidence=COUNTED,
        affected=(str(server.workload),),
    )


def _unread_servers(facts: Facts) -> Iterable[Claim]:
    """A server that wasn't read and closes on a caller whose certificate most others take: perhaps it lacks the root."""
    for edge, shown in closed_by_unread(facts):
        yield from claims(
            RULE,
            edge,
            shown,
            stage=Stage.TLS_ACCEPT,
            subject=edge.server_subject,
            title=f"{edge.edge}: the server refuses the caller's certificate, which the others trust",
            explanation="the server's proxy breaks off handshakes after the caller has shown its certificate; that one is "
            "valid for the other proxies, so the server may lack its root (its own proxy's secrets would tell)",
            fix=(Fix("advice", f"compare ROOTCA of the proxies behind {edge.host} with the others'"),),
            at_most=LIKELY,
        )
