"""A policy in dry run would refuse requests; nothing is refused.

Symptom
    None for the callers. The server's sidecar counts `rbac.istio_dry_run_deny_.shadow_denied` (or `…_allow_…`).

Why it fails
    It doesn't yet: the annotation `istio.io/dry-run: "true"` has the policy evaluated and counted only. Once the
    annotation is gone, these requests get 403.

How meshscope knows
    The server's sidecar holds the policy as shadow rules, they would deny requests that are being made, and the counter
    of such requests rises.

Fix
    None is needed now. Before the policy is enforced, let it match only what it should.

References
    Istio: "Dry run" (annotation istio.io/dry-run); Envoy: RBAC filter, shadow rules.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.istio.names import policy_rule
from meshscope.model.findings import Unknown
from meshscope.rules.claims import COUNTED, PREDICTED, decided
from meshscope.rules.facts import EdgeFacts, Facts, Predicted
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.refusals import blamed, edit

RULE = Rule(
    code="MS-I034",
    cause="dry-run",
    title="A policy in dry run would refuse requests",
    severity="info",
    mesh="istio",
    inputs=("walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)
STATS = tuple(
    (scope, f"rbac_{prefix}shadow_denied")
    for scope in ("http", "tcp")
    for prefix in ("", "istio_dry_run_deny__", "istio_dry_run_allow__")
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        found = edge.passing(RULE.cause)
        if found:
            yield from _claimed(edge, found[0])


def _claimed(edge: EdgeFacts, found: Predicted) -> Iterable[Claim]:
    moved = tuple(each for scope, stat in STATS for each in edge.server_moved(scope, stat))
    if not moved and edge.server_counts(*STATS):
        return
    policy = found.hop.kubernetes
    rule = policy_rule(found.hop.detail["decision"].policy)
    name = f"{policy.namespace}/{policy.name}" if policy is not None else "a policy"
    where = (
        f"rule {rule.rule} of it matches"
        if rule is not None
        else "it is an ALLOW policy, and none in dry run matches"
    )
    yield Claim(
        rule=RULE,
        subject=blamed(edge, policy),
        stage=found.hop.stage,
        explanation=f"{name} is in dry run: {where} these requests, so it would refuse them; now they pass",
        evidence=(*(each.evidence for each in moved[:3]), *decided(found.hop)),
        fix=(
            edit(blamed(edge, policy), "while the annotation istio.io/dry-run is there nothing is refused"),
        ),
        confidence=COUNTED if moved else PREDICTED,
        affected=(edge.edge,),
        title=f"AuthorizationPolicy {name}, in dry run, would refuse {edge.edge}",
    )
