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
from meshscope.rules.claims import LIKELY
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.certificates import (
    UNREAD_CALLER,
    look_at_secrets,
    refusing_servers,
    restart,
    wrong_names,
)
from meshscope.walk.hops import Stage

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
    other = RuledOut("san-mismatch-service-account", "the trust domain itself differs")
    yield from wrong_names(RULE, facts, "trust domain", other, _fixes)
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
