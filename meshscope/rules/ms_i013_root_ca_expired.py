"""The mesh's root (or an intermediate authority) has expired: no certificate under it is accepted any more.

Symptom
    Everything that opens a new connection gets 503. Sidecars log `URX,UF` with `CERTIFICATE_VERIFY_FAILED` and `certificate
    has expired` at depth 1 or more, on many edges at once; the workloads' own certificates are fresh.

Why it fails
    A chain is only as valid as each certificate in it. istiod's self-signed root lives ten years, roots and
    intermediates that were plugged in live as long as they were made for, and nobody renews those by itself.

How meshscope knows
    The chains in the proxies' secrets, judged at the moment of the capture, fail above depth 0, and the sidecars
    name that depth and reason now, or count failing verifications.

Fix
    Make a new root, or renew the expired one with the same key, and put it into the secret `cacerts` in
    istio-system; restart istiod, then the workloads. With a new key let old and new root be trusted side by side
    first, or every edge fails while the workloads restart.

References
    Istio: "Plug in CA Certificates", "Identity and certificate management"; Envoy: X.509 verification depth.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.envoy.certificates import Certificate
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import claims
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.certificates import moment, refused_clients, refused_servers, state_claim, unsound
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I013",
    cause="root-ca-expired",
    title="The mesh's root certificate has expired",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "config", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40", "Istio 1.32"),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    # The chain's depths: 1 is who issued the workload's certificate.
    above = tuple(f"depth_{depth}:_certificate_has_expired" for depth in range(1, 10))
    for refusal in (*refused_servers(facts, RULE.cause, *above), *refused_clients(facts, RULE.cause)):
        authority = refusal.fault.certificate if refusal.fault is not None else None
        yield from claims(
            RULE,
            refusal.edge,
            refusal.shown,
            predicted=refusal.found,
            at_most=refusal.at_most,
            stage=Stage.TLS_ACCEPT,
            subject=ROOT,
            title=f"the mesh's authority {_name(authority)} expired{moment(authority, end=True)}",
            explanation=f"{_name(authority)}, under which the workloads' certificates stand, isn't valid any more: every "
            "proxy that still opens connections refuses the other side's certificate, however fresh it is",
            fix=FIXES,
            ruled_out=(
                RuledOut(
                    "server-cert-expired",
                    "the workload's own certificate is valid; the expired one issued it",
                ),
            ),
        )
    for found in unsound(facts, RULE.cause):
        yield state_claim(
            RULE,
            facts,
            found,
            subject=ROOT,
            title=f"the mesh's authority {_name(found.certificate)} expired{moment(found.certificate, end=True)}",
            explanation=f"the chain that {found.proxy.id} holds is invalid above its own certificate: {found.why}",
            fix=FIXES,
        )


ROOT = ObjectRef("ConfigMap", "istio-ca-root-cert", "istio-system")
"""The object by which Istio hands out its roots: one finding for the whole mesh."""

FIXES = (
    Fix(
        "command",
        "kubectl get configmap istio-ca-root-cert -n istio-system -o jsonpath='{.data.root-cert\\.pem}' "
        "| openssl x509 -noout -subject -dates",
        "only shows the root that is handed out",
    ),
    Fix(
        "command",
        "kubectl create secret generic cacerts -n istio-system --from-file=ca-cert.pem --from-file=ca-key.pem "
        "--from-file=root-cert.pem --from-file=cert-chain.pem --dry-run=client -o yaml | kubectl apply -f - "
        "&& kubectl rollout restart deployment istiod -n istio-system",
        "istiod signs under the new authority; every workload must then be restarted or wait for its renewal",
    ),
)


def _name(authority: Certificate | None) -> str:
    return f"`{authority.subject}`" if authority is not None else "(root or intermediate)"
