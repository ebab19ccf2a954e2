"""A certificate is valid, and of another trust domain than the other side expects.

Symptom
    Callers get 503. Where the client refuses, its sidecar logs `URX,UF` with `CERTIFICATE_VERIFY_FAILED` and `SAN matcher,
    certificate SANs are [spiffe://OTHER/…]`; where the server refuses, the client's sidecar logs `UC` and the server's
    `ssl.fail_verify_san` rises.

Why it fails
    Sidecars accept identities of their own trust domain (and of its aliases) only. The two sides got their
    certificates under different trust domains: a migration of `trustDomain` is half done, or two meshes share a root
    without knowing of each other's domain.

How meshscope knows
    The names in the certificate of one proxy's secret, matched with the names that the other proxy demands: the
    trust domain differs. The refusing sidecar says so now, or counts it.

Fix
    List the other domain in `trustDomainAliases` of the MeshConfig, which makes both accepted, then restart the
    workloads that still have the old one.

References
    Istio: "Trust Domain Migration", MeshConfig `trustDomain` and `trustDomainAliases`; Envoy: `ssl.fail_verify_san`.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.envoy.certificates import trust_domain
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.model.names import ObjectRef, ProxyId
from meshscope.rules.claims import LIKELY, claims
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.certificates import (
    UNREAD_CALLER,
    look_at_secrets,
    names_in_log,
    refused_clients,
    refused_servers,
    refusing_servers,
    restart,
    state_claim,
    unsound,
)
from meshscope.walk.hops import Stage
from meshscope.walk.transport import san_cause

RULE = Rule(
    code="MS-I018",
    cause="san-mismatch-trust-domain",
    title="The certificate is of another trust domain than the other side expects",
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
            title=f"{refusal.edge.edge}: the certificate is of another trust domain",
            explanation=f"{refusal.who} shows the identity {actual}{refusal.part}; the other side expects "
            f"{', '.join(expected) or 'another one'}",
            fix=_fixes(refusal.subject, refusal.pod, expected),
            ruled_out=(
                RuledOut(
                    "server-cert-untrusted-by-client",
                    "the chain is trusted and valid; only the name is wrong",
                ),
                RuledOut("san-mismatch-service-account", "the trust domain itself differs"),
            ),
        )
    for found in unsound(facts, RULE.cause):
        workload = facts.workload(found.proxy)
        yield state_claim(
            RULE,
            facts,
            found,
            title=f"{workload} shows a certificate of another trust domain than its callers expect",
            explanation=found.why,
            fix=_fixes(workload, found.proxy.id, ()),
        )
    for server in refusing_servers(facts, "ssl_fail_verify_san"):
        yield Claim(
            rule=RULE,
            subject=UNREAD_CALLER,
            stage=Stage.TLS_ACCEPT,
            title="a caller that wasn't read is refused: its certificate is of another trust domain",
            explanation=f"{server.proxy.id} refuses the names in callers' certificates, and of them it looks at the trust "
            "domain; none of a caller that was read is refused, so read the others' secrets",
            evidence=tuple(one.evidence for one in server.moved[:2]),
            fix=(
                Fix("advice", "capture the callers' proxies too: their certificates tell their trust domain"),
            ),
            confidence=LIKELY,
            affected=(str(server.workload),),
        )


def _fixes(workload: ObjectRef, pod: ProxyId | None, expected: tuple[str, ...]) -> tuple[Fix, ...]:
    domains = ", ".join(sorted({trust_domain(name) for name in expected} - {""})) or "the mesh's"
    return (
        restart(workload, f"new pods get certificates of the trust domain in force ({domains})"),
        Fix(
            "advice",
            "or list the other domain under trustDomainAliases in the ConfigMap istio -n istio-system",
            "both domains are accepted everywhere in the mesh",
        ),
        *look_at_secrets(pod),
    )
