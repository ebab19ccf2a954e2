"""Client and server have no TLS version in common.

Symptom
    The caller gets 503 with `URX,UF` and a TLS error as transport failure reason: `TLSV1_ALERT_PROTOCOL_VERSION` or
    `UNSUPPORTED_PROTOCOL`. The server's sidecar logs nothing; its listener counts `ssl.connection_error`.

Why it fails
    One side demands a newer version than the other may use: `meshMTLS.minProtocolVersion` in MeshConfig raises the
    servers' minimum, an EnvoyFilter or an old proxy keeps clients down.

How meshscope knows
    The minimum of one side's TLS parameters is above the maximum of the other's, in the client's cluster and the
    server's filter chain; or the client's proxy says so itself.

Fix
    Raise the maximum of the side that is behind, or lower the minimum of the other.

References
    Istio: MeshConfig meshMTLS.minProtocolVersion. Envoy: TlsParameters (without a maximum, Envoy's clients stop at 1.2).
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.facts.symptoms import Symptom
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.rules.claims import claims, shown_by
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.offers import AFTER_CONNECTING
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I009",
    cause="tls-version-mismatch",
    title="Client and server have no TLS version in common",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters"),
    since="0.1.0",
    verified_on=("Envoy 1.40", "Istio 1.32"),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        shown = shown_by(edge, client=_version_refused, client_stats=AFTER_CONNECTING)
        found = next(iter(edge.predicted(RULE.cause)), None)
        logged = any(symptom.from_log for symptom in shown.symptoms)
        if found is None and not logged:
            continue
        if found is not None and edge.client_seen and not logged:
            continue
        told = found.hop.detail if found is not None else {}
        spoken = f"the caller speaks {told['client']}, the server {told['server']}" if told else ""
        behind = edge.client_subject if told.get("older") == "client" else edge.server_subject
        yield from claims(
            RULE,
            edge,
            shown,
            predicted=found,
            stage=Stage.TLS_ACCEPT,
            subject=behind,
            discriminator=str(edge.edge),
            title=f"{edge.edge}: {spoken or 'no TLS version in common'}",
            explanation=f"{spoken or 'one side demands a newer TLS version than the other may use'}, so that they "
            "can't agree on a version",
            fix=_FIXES,
            ruled_out=(
                RuledOut("client-mtls-server-disable", "the server answers in TLS"),
                RuledOut("server-cert-expired", "the handshake ends before certificates are shown"),
            ),
        )


def _version_refused(symptom: Symptom) -> bool:
    told = symptom.failure_reason or symptom.details
    return any(text in told for text in ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "WRONG_SSL_VERSION"))


_FIXES = (
    Fix(
        "advice",
        "set meshMTLS.minProtocolVersion in MeshConfig to a version that all proxies may use",
        "servers of the whole mesh take the older version too",
    ),
    Fix(
        "command",
        "kubectl get envoyfilters -A -o yaml | grep -n -B2 -A2 'tls_m[a-z]*_protocol_version'",
        "only shows which EnvoyFilters set a version",
    ),
)
