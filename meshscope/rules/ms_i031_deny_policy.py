"""A DENY AuthorizationPolicy matches the request.

Symptom
    The caller gets 403 `RBAC: access denied`; its sidecar logs `403 via_upstream`, the server's sidecar
    `rbac_access_denied_matched_policy[ns[NAMESPACE]-policy[NAME]-rule[N]]`. On a TCP port the connection is closed
    with nothing sent.

Why it fails
    DENY policies are evaluated before ALLOW policies: one matching rule refuses the request, whatever else allows it.

How meshscope knows
    The server's sidecar names the policy in its access log, or its RBAC filter, evaluated for this request and this
    caller's identity, denies by a named policy while its denials rise.

Fix
    Narrow the rule (`from`, `to`, `when`) or delete the policy if it isn't wanted.

References
    Istio: AuthorizationPolicy; Envoy: RBAC filter, response code details.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.facts.symptoms import Symptom
from meshscope.istio.names import PolicyRule, policy_rule
from meshscope.model.findings import Fix, Unknown
from meshscope.rules.claims import claims, shown_by
from meshscope.rules.facts import EdgeFacts, Facts, Predicted
from meshscope.rules.rule import Claim, Rule
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I031",
    cause="deny-policy",
    title="A DENY policy refuses the request",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40", "Istio 1.32"),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        predicted = {policy_of(found): found for found in edge.predicted(RULE.cause)}
        named = {rule for s in edge.on("server") if (rule := named_policy(s)) is not None}
        for rule in sorted(named | {rule for rule in predicted if rule is not None}, key=str):
            yield from _denied(facts, edge, rule, predicted.get(rule))


def named_policy(symptom: Symptom) -> PolicyRule | None:
    """The policy that a server's line names as having matched."""
    return policy_rule(symptom.details) or policy_rule(symptom.termination)


def policy_of(found: Predicted) -> PolicyRule | None:
    return policy_rule(found.hop.detail["decision"].policy)


def _denied(facts: Facts, edge: EdgeFacts, rule: PolicyRule, found: Predicted | None) -> Iterable[Claim]:
    policy = facts.objects.get("AuthorizationPolicy", rule.policy.namespace, rule.policy.name)
    if policy is not None and policy.spec.get("action", "ALLOW") != "DENY":
        return
    shown = shown_by(
        edge,
        client=lambda s: s.code == 403 and s.details == "via_upstream",
        server=lambda s: named_policy(s) == rule,
        client_stats=("upstream_rq_403",),
        server_stats=(("http", "rbac_denied"), ("tcp", "rbac_denied")),
    )
    where = f"rule {rule.rule}"
    yield from claims(
        RULE,
        edge,
        shown,
        predicted=found,
        stage=Stage.AUTHORIZATION,
        subject=rule.policy,
        discriminator=f"rule {rule.rule}",
        title=f"{edge.edge} is denied by AuthorizationPolicy {rule.policy.namespace}/{rule.policy.name}",
        explanation=f"{where} of the DENY policy {rule.policy.namespace}/{rule.policy.name} matches these requests; "
        "DENY is evaluated first, so no ALLOW policy can admit them",
        fix=(
            Fix(
                "command",
                f"kubectl edit authorizationpolicy.security.istio.io {rule.policy.name} -n {rule.policy.namespace}",
                f"narrow {where}; it applies to every caller that the rule matches",
            ),
            Fix(
                "command",
                f"kubectl delete authorizationpolicy.security.istio.io {rule.policy.name} -n {rule.policy.namespace}",
                "everything that this policy denies is then decided by the ALLOW policies alone",
            ),
        ),
    )
