"""The server's certificate is valid, and names another service account than its callers expect.

Symptom
    Callers get 503. Their sidecars log `URX,UF` with `CERTIFICATE_VERIFY_FAILED` and `SAN matcher, certificate SANs are
    [spiffe://…]`, `ssl.fail_verify_san` rises; the server's sidecar logs nothing, its `ssl.connection_error` rises.

Why it fails
    A client's sidecar accepts only the identities of the service accounts of the pods behind the host (or those that
    a DestinationRule's `subjectAltNames` list). The server shows another one: its pods run under another service
    account than the client's sidecar knows of, a DestinationRule or ServiceEntry lists old names, or the address now
    belongs to another workload's pod.

How meshscope knows
    The names in the certificate of the server proxy's secret, matched with the names that the client's cluster
    demands: the trust domain is the same, the rest differs. The client's sidecar says so now, or counts it.

Fix
    If the pods' service account is the right one, correct what lists the names (`subjectAltNames` in the
    DestinationRule or ServiceEntry). If not, correct the workload's `serviceAccountName`.

References
    Istio: DestinationRule ClientTLSSettings `subjectAltNames`, "Secure naming"; Envoy: `ssl.fail_verify_san`.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.model.names import ObjectRef, ProxyId
from meshscope.rules.claims import claims
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.certificates import (
    look_at_secrets,
    names_in_log,
    refused_clients,
    refused_servers,
    restart,
    state_claim,
    unsound,
)
from meshscope.walk.hops import Stage
from meshscope.walk.transport import san_cause

RULE = Rule(
    code="MS-I017",
    cause="san-mismatch-service-account",
    title="The server's certificate is of another service account than the client expects",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "config", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40", "Istio 1.32"),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    servers = refused_servers(facts, RULE.cause, "SAN_matcher", telling=("ssl_fail_verify_san",))
    clients = refused_clients(facts, RULE.cause, server_stat="ssl_fail_verify_san")
    for refusal in (*servers, *clients):
        expected, actual = refusal.expected, refusal.actual
        if refusal.found is None:
            expected, actual = names_in_log(facts, refusal)
            if san_cause(actual, expected) != RULE.cause:
                continue
        yield from claims(
            RULE,
            refusal.edge,
            refusal.shown,
            predicted=refusal.found,
            at_most=refusal.at_most,
            stage=Stage.TLS_ACCEPT,
            subject=refusal.subject,
            title=f"{refusal.edge.edge}: the certificate is of another service account",
            explanation=f"{refusal.who} shows the identity {actual}{refusal.part}; the other side expects "
            f"{', '.join(expected) or 'another one'}",
            fix=_fixes(refusal.subject, refusal.pod, expected),
            ruled_out=(
                RuledOut(
                    "server-cert-untrusted-by-client",
                    "the chain is trusted and valid; only the name is wrong",
                ),
                RuledOut("san-mismatch-trust-domain", "the trust domain is the expected one"),
            ),
        )
    for found in unsound(facts, RULE.cause):
        workload = facts.workload(found.proxy)
        yield state_claim(
            RULE,
            facts,
            found,
            title=f"{workload} shows a certificate of another service account than its callers expect",
            explanation=found.why,
            fix=_fixes(workload, found.proxy.id, ()),
        )


def _fixes(workload: ObjectRef, pod: ProxyId | None, expected: tuple[str, ...]) -> tuple[Fix, ...]:
    wanted = [name.rpartition("/sa/")[2] for name in expected if "/sa/" in name]
    fixes: list[Fix] = []
    if wanted and workload.kind in {"Deployment", "StatefulSet", "DaemonSet"}:
        patch = f'{{"spec":{{"template":{{"spec":{{"serviceAccountName":"{wanted[0]}"}}}}}}}}'
        command = (
            f"kubectl patch {workload.kind.lower()} {workload.name} -n {workload.namespace} -p '{patch}'"
        )
        fixes.append(Fix("command", command, "the pods restart, with that account's rights in the cluster"))
    fixes += [
        Fix(
            "advice",
            "or correct subjectAltNames in the DestinationRule or ServiceEntry of the host, if the pods are right",
        ),
        restart(workload, "enough where the pods only kept an old certificate"),
        *look_at_secrets(pod),
    ]
    return tuple(fixes)
