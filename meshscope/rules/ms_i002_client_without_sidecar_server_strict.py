"""A caller outside the mesh talks plaintext to a server that demands mTLS.

Symptom
    The caller sees its connection closed or reset before any answer: "connection reset by peer", "empty reply". Nothing
    is logged at its side, for it has no proxy. The server's sidecar logs `NR filter_chain_not_found` without a server
    name, with the caller's address.

Why it fails
    The PeerAuthentication in force at the server is STRICT: its sidecar has no filter chain for plaintext. The caller
    has no sidecar that could speak mesh TLS for it: it runs in a namespace without injection, opted out of it, sends
    this port past its sidecar (`excludeOutboundPorts`), or isn't in the cluster at all.

How meshscope knows
    The address in the server's log belongs to a pod without a container `istio-proxy` (or to nothing known), and no
    filter chain of the server's inbound listener takes plaintext on that port. Without Kubernetes objects nothing
    tells whether the caller has a proxy that wasn't read, and the confidence says so.

Fix
    Give the caller a sidecar (label its namespace, then restart it). If it can't have one, let the server take
    plaintext on this port alone (`portLevelMtls`), and guard the port by other means.

References
    Istio: PeerAuthentication, "Sidecar injection", "Mutual TLS migration".
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.istio.injection import Injection
from meshscope.model.findings import CausedBy, Fix, RuledOut, Unknown
from meshscope.model.names import OUTSIDE, ObjectRef
from meshscope.rules.claims import PREDICTED, claims
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.offers import (
    BEFORE_THE_APPLICATION,
    CLOSED,
    Mismatch,
    addresses,
    injection_of,
    mismatches,
    turned_away,
    without_sidecar,
)
from meshscope.walk.hops import Hop, Stage
from meshscope.walk.outbound import EXCLUDED_OUTBOUND

RULE = Rule(
    code="MS-I002",
    cause="client-without-sidecar-server-strict",
    title="A caller without sidecar talks to a server that demands mTLS",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40", "Istio 1.32"),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for one in mismatches(facts, RULE.cause, CLOSED):
        verdict = injection_of(facts, one.edge.client)
        if verdict is not None and verdict.verdict == "wanted":
            # The caller belongs into the mesh and lacks its sidecar: not-injected tells that.
            continue
        yield from _claim(one, verdict, known=facts.has_kubernetes)
    for unseen in turned_away(facts):
        yield Claim(
            rule=RULE,
            subject=unseen.server,
            stage=Stage.FILTER_CHAIN,
            title=f"{unseen.server.name}.{unseen.server.namespace} turns connections away that aren't mesh TLS",
            explanation="its sidecar has no filter chain for connections that it gets now. No sidecar that was read "
            "makes them, so they come from outside the mesh; the log, which would name the caller, wasn't read",
            evidence=tuple(moved.evidence for moved in unseen.moved),
            fix=(Fix("command", _log(unseen.server), "only shows: the caller's address is in its NR lines"),),
            confidence=unseen.confidence,
            affected=(str(unseen.server),),
            # A workload that lacks its sidecar is the likelier caller, and not-injected tells of it.
            severity="warning" if without_sidecar(facts) else None,
        )


def _claim(one: Mismatch, verdict: Injection | None, *, known: bool) -> Iterable[Claim]:
    """`known`: whether Kubernetes tells who has which address; else a proxy that wasn't read may have the caller's."""
    edge = one.edge
    caller = edge.client
    outside = caller == OUTSIDE
    past = bypassing(one)
    who = (
        f"a caller at {addresses(one.shown)}, which is no known pod,"
        if outside
        else f"{caller} sends this past its own sidecar ({past.decision}) and"
        if past is not None
        else f"{caller} has no sidecar and"
    )
    opted_out = verdict is not None and verdict.verdict == "opted out"
    return claims(
        RULE,
        edge,
        one.shown,
        predicted=one.found,
        subject=caller.ref if not outside else edge.server_subject,
        discriminator=str(edge.server_subject),
        title=f"{edge.edge}: the caller {'bypasses its' if past else 'has no'} sidecar, the server demands mTLS",
        explanation=f"{who} talks plaintext to {edge.host}; {one.policy or 'the policy in force'} makes the server "
        "STRICT, so its sidecar closes the connection",
        fix=_fixes(one, verdict),
        caused_by=(CausedBy("not-injected", f"the caller was left out: {verdict.why}"),)
        if verdict is not None and opted_out
        else (),
        ruled_out=(
            RuledOut(
                "client-plaintext-server-strict", "there is no sidecar that a DestinationRule could tell"
            ),
            RuledOut("app-closes-connection", BEFORE_THE_APPLICATION),
        ),
        at_most=one.at_most if known else PREDICTED,
    )


def bypassing(one: Mismatch) -> Hop | None:
    """The hop by which an annotation of the caller lets the call bypass its sidecar."""
    capture = one.found.branch.at(Stage.CAPTURE)
    return capture if capture is not None and "excluded" in capture.detail else None


def _fixes(one: Mismatch, verdict: Injection | None) -> tuple[Fix, ...]:
    caller = one.edge.client
    port = one.endpoint.rpartition(":")[2] or str(one.edge.port)
    found = []
    if bypassing(one) is not None:
        advice = f"take port {one.edge.port} out of {EXCLUDED_OUTBOUND} in the pod template of {caller}"
        found.append(Fix("advice", advice, "rolls its pods; all calls to the port pass the sidecar again"))
    elif verdict is not None and verdict.verdict == "opted out":
        advice = f"remove what opts {caller} out of injection ({verdict.why}) from its pod template"
        found.append(Fix("advice", advice, "rolls its pods; the new ones have a sidecar"))
    elif caller != OUTSIDE:
        command = (
            f"kubectl label namespace {caller.namespace} istio-injection=enabled && "
            f"kubectl rollout restart {caller.kind.lower()} {caller.name} -n {caller.namespace}"
        )
        effect = "every pod of the namespace gets a sidecar when it is made anew"
        found.append(Fix("command", command, effect))
    advice = f"add portLevelMtls: {{{port}: {{mode: PERMISSIVE}}}} to a PeerAuthentication that selects the server's pods"
    return (*found, Fix("advice", advice, "this port takes plaintext from everybody, without identity"))


def _log(server: ObjectRef) -> str:
    return (
        f"kubectl logs {server.kind.lower()}/{server.name} -n {server.namespace} -c istio-proxy | grep ' NR '"
    )
