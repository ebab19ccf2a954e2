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
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.certificates import (
    look_at_secrets,
    restart,
    wrong_names,
)

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
    other = RuledOut("san-mismatch-trust-domain", "the trust domain is the expected one")
    yield from wrong_names(RULE, facts, "service account", other, _fixes)


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
