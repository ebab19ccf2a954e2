"""The client sends a server name that no filter chain of the server takes.

Symptom
    The caller gets 503 with `URX,UF` and the transport failure reason `Connection_reset_by_peer`; the server's proxy logs
    `NR filter_chain_not_found` with the name that was sent.

Why it fails
    The server's filter chains are bound to server names: at a gateway by the hosts of its Gateway, at a sidecar by a
    Sidecar's ingress or an EnvoyFilter. The client sends another one, because a DestinationRule sets `tls.sni`, or
    because subset or port (which are in Istio's names) differ.

How meshscope knows
    The server name of the client's cluster is taken by no filter chain of the server's listener for this port, and
    another name would be; requests fail in just this way now.

Fix
    Remove `sni` from the DestinationRule (Istio then sends `outbound_.PORT_.SUBSET_.HOST`), or let the server take this
    name.

References
    Istio: DestinationRule ClientTLSSettings.sni, Gateway ServerTLSSettings. Envoy: FilterChainMatch.server_names.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.istio.names import sni_name
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import LIKELY, claims, shown_by
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.offers import UNMATCHED, mismatches, reset_in_handshake
from meshscope.walk.hops import Stage
from meshscope.walk.transport import Offer

RULE = Rule(
    code="MS-I008",
    cause="sni-matches-no-filter-chain",
    title="The client's server name matches no filter chain of the server",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters"),
    since="0.1.0",
    verified_on=("Envoy 1.40", "Istio 1.32"),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for one in mismatches(facts, RULE.cause, UNMATCHED):
        edge, rule = one.edge, one.rule
        taken = one.found.hop.detail.get("server_names") or []
        sent = one.offer.sni if one.offer is not None else ""
        yield from claims(
            RULE,
            edge,
            one.shown,
            predicted=one.found,
            subject=rule or edge.server_subject,
            title=f"{edge.edge}: no filter chain of the server takes the server name {sent or '(none)'}",
            explanation=f"the caller's sidecar sends the server name {sent or '(none)'}"
            f"{f' as {rule} says' if rule else ''}; the server takes {', '.join(taken[:3]) or 'others'} only{one.part}",
            fix=_fixes(rule, sent),
            ruled_out=(
                RuledOut("client-mtls-server-disable", "the server has filter chains for mesh TLS"),
                RuledOut("tls-without-istio-alpn", "the caller offers Istio's ALPN"),
            ),
            at_most=one.at_most,
        )
    yield from _own_names(facts)


def _own_names(facts: Facts) -> Iterable[Claim]:
    """Where the server's proxy wasn't read: callers whose server name isn't Istio's, and whose handshake is reset."""
    for edge in facts.edges:
        shown = shown_by(edge, client=reset_in_handshake)
        offers = [branch.at(Stage.TLS_OFFER) for walk in edge.walks for branch in walk.branches]
        for offered in offers[:1]:
            made = offered.detail.get("offer") if offered is not None else None
            if not shown or edge.server_proxies or offered is None or not isinstance(made, Offer):
                continue
            if made.kind == "mtls" and made.sni and sni_name(made.sni) is None:
                yield from claims(
                    RULE,
                    edge,
                    shown,
                    stage=Stage.FILTER_CHAIN,
                    subject=offered.kubernetes or edge.server_subject,
                    explanation=f"the server breaks off the handshake, and the caller's sidecar sends the server name "
                    f"{made.sni} instead of Istio's. Whether the server takes that name isn't known: its proxy wasn't read",
                    fix=_fixes(offered.kubernetes, made.sni),
                    at_most=LIKELY,
                )


def _fixes(rule: ObjectRef | None, sent: str) -> tuple[Fix, ...]:
    if rule is None:
        return (
            Fix("advice", f"let the server's filter chains take {sent or 'connections without name'}", ""),
        )
    patch = '{"spec":{"trafficPolicy":{"tls":{"sni":null}}}}'
    command = f"kubectl patch destinationrule {rule.name} -n {rule.namespace} --type merge -p '{patch}'"
    return (Fix("command", command, "all callers that the rule applies to send Istio's own server name"),)
