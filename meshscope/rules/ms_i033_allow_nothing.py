"""An ALLOW policy without rules lets nothing through.

Symptom
    Every caller gets 403 `RBAC: access denied`; the server's sidecar logs `rbac_access_denied_matched_policy[none]` for
    all of them.

Why it fails
    `spec: {}` (or a policy with only a selector) is an ALLOW policy without rules. It matches no request; but because
    an ALLOW policy is there, what none matches is refused. It is the usual "deny by default" of a namespace, and it needs
    further policies that let the wanted callers in. `rules: [{}]` is the opposite: it matches everything.

How meshscope knows
    The RBAC rules that the server's sidecar holds are all of the kind that can't match (Istio writes them as
    `not any`), and the sidecar refuses requests because no policy matched.

Fix
    Add ALLOW policies for the callers that should get in, or delete this one.

References
    Istio: AuthorizationPolicy, "allow-nothing policy".
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.istio.names import policy_rule
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.rules.claims import claims
from meshscope.rules.facts import EdgeFacts, Facts, Predicted
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.refusals import drift, edit, none_refused

RULE = Rule(
    code="MS-I033",
    cause="allow-nothing",
    title="An ALLOW policy without rules refuses everything",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        found = edge.predicted(RULE.cause)
        if found:
            yield from _claimed(edge, found[0])


def _claimed(edge: EdgeFacts, found: Predicted) -> Iterable[Claim]:
    seen = none_refused(edge)
    names = [rule.policy for name in found.hop.detail["policies"] if (rule := policy_rule(name)) is not None]
    if not names:
        return
    policy = names[0]
    name = f"{policy.namespace}/{policy.name}"
    yield from claims(
        RULE,
        edge,
        seen.shown,
        predicted=found,
        subject=policy,
        title=f"AuthorizationPolicy {name} has no rules, so nothing may call {edge.host}",
        explanation=f"{name} is an ALLOW policy without rules: it matches no request, and with an ALLOW policy there the "
        "server refuses whatever none matches",
        fix=(
            edit(policy, "add rules for the callers that should get in; all others stay out"),
            Fix(
                "command",
                f"kubectl delete authorizationpolicy.security.istio.io {policy.name} -n {policy.namespace}",
                "without any ALLOW policy everybody may call what it selected",
            ),
        ),
        caused_by=drift(found),
        ruled_out=(
            RuledOut("implicit-deny-by-allow-policy", "no ALLOW rule is there that any request could match"),
            RuledOut("deny-policy", "no DENY policy matches these requests"),
        ),
        at_most=seen.at_most(found),
    )
