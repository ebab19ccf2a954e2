"""The server's certificate comes from an authority that the client doesn't trust.

Symptom
    Callers get 503. Their sidecars log `URX,UF` with `CERTIFICATE_VERIFY_FAILED` and `unable to get local issuer certificate`
    or `self signed certificate in certificate chain`; the server's sidecar logs nothing, its `ssl.connection_error`
    rises.

Why it fails
    The certificate was issued under another root than those in the client's trust bundle. Either the server has a
    certificate of a foreign authority, or the client never got a root that was added in a rotation.

How meshscope knows
    No path leads from the chain in the server proxy's secret to a root of the client proxy's bundle, and the
    client's sidecar says so now. Which side is the odd one is judged by what most other proxies trust.

Fix
    Where the server is the odd one: let the mesh's istiod issue its certificate. Where a client is: restart it, so
    that it gets the current roots.

References
    Istio: "Plug in CA Certificates"; Envoy: `ssl.fail_verify_error`, X.509 verification.
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
    refused_servers,
    refused_somewhere,
    restart,
    state_claim,
    unsound,
)
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I015",
    cause="server-cert-untrusted-by-client",
    title="The client doesn't trust the authority of the server's certificate",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "config", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40", "Istio 1.32"),
)


TEXTS = (
    "unable_to_get_local_issuer",
    "self_signed_certificate",
    "certificate_signature_failure",
    "invalid_CA_certificate",
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for refusal in refused_servers(facts, RULE.cause, *TEXTS):
        client_is_odd = refusal.pod in {proxy.id for proxy in refusal.edge.client_proxies}
        issuer = refusal.certificate.issuer if refusal.certificate is not None else "an authority of its own"
        why = (
            f"the trust bundle of {refusal.who} lacks the root of `{issuer}`, which most other proxies trust"
            if client_is_odd
            else f"the certificate that {refusal.who} shows was issued by `{issuer}`{refusal.part}, and leads to no root "
            "that its callers trust"
        )
        yield from claims(
            RULE,
            refusal.edge,
            refusal.shown,
            predicted=refusal.found,
            at_most=refusal.at_most,
            stage=Stage.TLS_ACCEPT,
            subject=refusal.subject,
            title=f"{refusal.edge.edge}: the caller doesn't trust who issued the server's certificate",
            explanation=why,
            fix=_fixes(refusal.subject, refusal.pod),
            ruled_out=(RuledOut("server-cert-expired", "the caller's sidecar finds no trusted root at all"),),
        )
    for found in unsound(facts, RULE.cause):
        workload = facts.workload(found.proxy)
        yield state_claim(
            RULE,
            facts,
            found,
            title=f"the mesh doesn't trust who issued the certificate of {workload}",
            explanation=f"the certificate of {found.proxy.id}, judged by what most other proxies trust: {found.why}",
            fix=_fixes(workload, found.proxy.id),
        )
    yield from refused_somewhere(facts)


def _fixes(workload: ObjectRef, pod: ProxyId | None) -> tuple[Fix, ...]:
    return (
        *look_at_secrets(pod),
        restart(workload, "new pods get certificate and roots from the istiod that answers them"),
    )
