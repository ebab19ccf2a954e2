"""A DENY AuthorizationPolicy matches the request.

Symptom
    The caller gets 403 `RBAC: access denied`; its sidecar logs `403 via_upstream`, the server's sidecar
    `rbac_access_denied_matched_policy[ns[NAMESPACE]-policy[NAME]-rule[N]]`. On a TCP port the connection is closed
    with nothing sent.

Why it fails
    DENY policies are evaluated before ALLOW policies: one matching rule refuses the request, whatever else allows it.
    Rules are alternatives; within a rule `from`, `to` and `when` must all hold. `notPrincipals` and `notNamespaces`
    match every caller without an identity, and on a TCP port a DENY rule loses its HTTP conditions and matches more.

How meshscope knows
    The server's sidecar names the policy in its access log, or its RBAC filter, evaluated for this request and this
    caller's identity, denies by a named policy while its denials rise. Where the server's sidecar couldn't be read,
    the policies in Kubernetes are evaluated as istiod would translate them; then the verdict is less sure.

Fix
    Narrow the rule (`from`, `to`, `when`) or delete the policy if it isn't wanted.

References
    Istio: AuthorizationPolicy; Envoy: RBAC filter, response code details.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.facts.symptoms import Symptom
from meshscope.istio.names import PolicyRule, policy_rule
from meshscope.model.findings import CausedBy, Evidence, Fix, Unknown
from meshscope.rules.claims import claims
from meshscope.rules.facts import EdgeFacts, Facts, Predicted
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.refusals import (
    RBAC_BODY,
    RBAC_STATS,
    connection_of,
    drift,
    edit,
    identity_in_words,
    refused,
)
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
        for found in edge.passing(RULE.cause):
            for name in found.hop.detail["perhaps"]:
                predicted.setdefault(policy_rule(name), found)
        named = {rule for s in edge.symptoms if (rule := named_policy(s)) is not None}
        for rule in sorted(named | {rule for rule in predicted if rule is not None}, key=str):
            yield from _denied(facts, edge, rule, predicted.get(rule))


def named_policy(symptom: Symptom) -> PolicyRule | None:
    """The policy that a line of the proxy that enforces it (a server's, or a gateway) names as having matched."""
    return policy_rule(symptom.details) or policy_rule(symptom.termination)


def policy_of(found: Predicted) -> PolicyRule | None:
    return policy_rule(found.hop.detail["decision"].policy)


def _denied(facts: Facts, edge: EdgeFacts, rule: PolicyRule, found: Predicted | None) -> Iterable[Claim]:
    policy = facts.objects.get("AuthorizationPolicy", rule.policy.namespace, rule.policy.name)
    if policy is not None and policy.spec.get("action", "ALLOW") != "DENY":
        return
    seen = refused(
        edge,
        refusal=lambda s: named_policy(s) == rule,
        codes=(403,),
        stats=RBAC_STATS,
        bodies=RBAC_BODY,
    )
    where = f"rule {rule.rule}"
    name = f"{rule.policy.namespace}/{rule.policy.name}"
    who = identity_in_words(connection_of(found)) if found is not None else "the caller"
    held = "as Kubernetes has it" if found is not None and found.hop.detail.get("intended") else ""
    yield from claims(
        RULE,
        edge,
        seen.shown,
        predicted=found,
        stage=Stage.AUTHORIZATION,
        subject=rule.policy,
        discriminator=where,
        title=f"{edge.edge} is denied by AuthorizationPolicy {name}",
        explanation=" ".join(
            part
            for part in (
                f"{where} of the DENY policy {name}",
                held,
                f"matches these requests of {who}; DENY is evaluated first, so no ALLOW policy can admit them",
            )
            if part
        ),
        caused_by=(*drift(found), *_without_token(facts, rule)),
        fix=(
            edit(rule.policy, f"narrow {where}; it applies to every caller that the rule matches"),
            Fix(
                "command",
                f"kubectl delete authorizationpolicy.security.istio.io {rule.policy.name} -n {rule.policy.namespace}",
                "everything that this policy denies is then decided by the ALLOW policies alone",
            ),
        ),
        at_most=seen.at_most(found),
    )


def _without_token(facts: Facts, rule: PolicyRule) -> tuple[CausedBy, ...]:
    """A rule that denies who has no valid token (`notRequestPrincipals: ["*"]`): then the token is what is missing."""
    policy = facts.objects.get("AuthorizationPolicy", rule.policy.namespace, rule.policy.name)
    rules = policy.spec.get("rules") if policy is not None else None
    if not isinstance(rules, list) or rule.rule >= len(rules) or not isinstance(rules[rule.rule], dict):
        return ()
    for source in rules[rule.rule].get("from") or ():
        excluded = (
            (source.get("source") or {}).get("notRequestPrincipals") if isinstance(source, dict) else None
        )
        if excluded:
            said = f"notRequestPrincipals: {', '.join(map(str, excluded))}"
            evidence = Evidence("kubernetes", f"{rule.policy} spec.rules[{rule.rule}]", said)
            return (CausedBy("jwt-missing", "the rule denies requests without such a token", (evidence,)),)
    return ()
