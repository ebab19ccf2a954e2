"""The client's certificate comes from an authority that the mesh doesn't trust.

Symptom
    The caller gets 503. Its sidecar logs `UC` with `upstream_reset_before_response_started{connection_termination}` and
    no transport failure reason; the server's sidecar logs nothing, its `ssl.fail_verify_error` rises.

Why it fails
    The certificate was issued under another root than those in the trust bundle of the server: another cluster or
    another istiod signed it, a provisioned certificate is mounted, or a root was replaced and this workload's
    authority isn't among the old or the new ones.

How meshscope knows
    No path leads from the chain in the client proxy's secret to a root of the server proxy's bundle, nor of most
    other proxies' bundles, and requests fail in just this way now, or handshakes do by both proxies' counters.

Fix
    Find out who signed it (the issuer is in the evidence), let the mesh's istiod issue it, or add that authority to
    the trust bundle of the whole mesh.

References
    Istio: "Plug in CA Certificates", "Trust domain migration"; Envoy: `ssl.fail_verify_error`.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.model.names import ObjectRef, ProxyId
from meshscope.rules.claims import claims
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.certificates import (
    by_refusing_servers,
    look_at_secrets,
    refused_clients,
    restart,
    state_claim,
    unsound,
)

RULE = Rule(
    code="MS-I014",
    cause="client-cert-untrusted-by-server",
    title="The server doesn't trust the authority of the client's certificate",
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
            title=f"{refusal.edge.edge}: the server doesn't trust who issued the caller's certificate",
            explanation=f"the certificate that {refusal.who} shows was issued by `{issuer}`{refusal.part}, and leads to no "
            "root that the server trusts",
            fix=_fixes(refusal.subject, refusal.pod),
            ruled_out=(
                RuledOut("client-cert-expired", "it is within its validity, or no root is reached at all"),
                RuledOut("server-root-bundle-outdated", "most other proxies don't trust it either"),
                RuledOut(
                    "app-closes-connection", "the server's sidecar closes before the application is reached"
                ),
            ),
        )
    for found in unsound(facts, RULE.cause):
        workload = facts.workload(found.proxy)
        yield state_claim(
            RULE,
            facts,
            found,
            title=f"the mesh doesn't trust who issued the certificate of {workload}",
            explanation=f"the certificate of {found.proxy.id}: {found.why}",
            fix=_fixes(workload, found.proxy.id),
        )
    yield from by_refusing_servers(
        RULE,
        facts,
        "the caller's certificate may come from an authority that the server doesn't trust",
        "read the callers' proxies: their secrets tell",
    )


def _fixes(workload: ObjectRef, pod: ProxyId | None) -> tuple[Fix, ...]:
    return (
        *look_at_secrets(pod),
        restart(
            workload,
            "new pods ask the mesh's istiod for a certificate; of no use where another one answers them",
        ),
    )
