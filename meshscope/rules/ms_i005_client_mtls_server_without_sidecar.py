"""The client offers mesh TLS to a pod that has no sidecar.

Symptom
    The caller gets 503 with `URX,UF` and the transport failure reason `WRONG_VERSION_NUMBER`: the application answered
    the TLS hello in its own protocol. An application that waits for more bytes makes it a connect timeout instead.

Why it fails
    A DestinationRule sets `tls.mode: ISTIO_MUTUAL` for the host, which beats auto mTLS. Auto mTLS would have seen that
    this endpoint has no sidecar and sent plaintext.

How meshscope knows
    The client's cluster has a TLS transport socket for this endpoint, and the pod at its address has no container
    `istio-proxy`; requests fail in just this way now. Without Kubernetes objects nothing tells what is at the address:
    then this is one of two causes, and the confidence says so.

Fix
    Remove the `tls` block from the DestinationRule (auto mTLS decides endpoint by endpoint), or give the server its
    sidecar.

References
    Istio: DestinationRule ClientTLSSettings, "Automatic mutual TLS", "Sidecar injection".
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import CausedBy, RuledOut, Unknown
from meshscope.rules.claims import LIKELY, claims
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.offers import (
    NOT_TLS,
    injection_of,
    leave_to_auto_mtls,
    mismatches,
    unknown_servers,
)
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I005",
    cause="client-mtls-server-without-sidecar",
    title="The client speaks mTLS to a pod without sidecar",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40", "Istio 1.32"),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for one in mismatches(facts, RULE.cause, NOT_TLS):
        edge, server = one.edge, facts.workload_at(one.endpoint)
        verdict = injection_of(facts, server)
        missing = verdict is not None and verdict.verdict != "not wanted"
        yield from claims(
            RULE,
            edge,
            one.shown,
            predicted=one.found,
            subject=one.rule or edge.server_subject,
            title=f"{edge.edge}: the caller speaks mTLS, the server has no sidecar",
            explanation=f"{one.rule or 'the configuration'} makes the caller's sidecar use mesh TLS to {edge.host}; "
            f"{server} at {one.endpoint} has no sidecar that could take it{one.part}",
            fix=leave_to_auto_mtls(one.rule, edge.host),
            caused_by=(CausedBy("not-injected", f"{server} has no sidecar: {verdict.why}"),)
            if verdict is not None and missing
            else (),
            ruled_out=(
                RuledOut(
                    "client-mtls-server-disable", "there is no sidecar that a policy could tell anything"
                ),
                RuledOut("app-not-http", "the application got a TLS hello where it expects plaintext"),
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
            explanation="the server answers the caller's TLS in plaintext, as an application without sidecar does. "
            "Whether it has one isn't known: no Kubernetes object and no proxy of the address was read",
            fix=leave_to_auto_mtls(None, edge.host),
            at_most=LIKELY,
        )
