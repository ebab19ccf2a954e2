"""The subset that a route names has labels that no workload's pods carry.

Symptom
    Every call that is routed to the subset gets 503 `no healthy upstream`; the caller's sidecar logs
    `UH no_healthy_upstream` with the cluster `outbound|PORT|SUBSET|HOST`. Other subsets work.

Why it fails
    A DestinationRule defines the subset by labels (`version: v2`), and no workload behind the Service has them on its
    pods: that version isn't deployed, or is labelled otherwise.

How meshscope knows
    The subset's cluster in the caller's proxy has no endpoint, the Service selects workloads, and none of their pod
    templates carries the labels of the subset in the DestinationRule.

Fix
    Correct the subset's labels, deploy the version that it stands for, or route to another subset.

References
    Istio: DestinationRule Subset; Envoy: response flag UH.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.istio.names import cluster_name
from meshscope.model.findings import Evidence, Fix, RuledOut, Unknown
from meshscope.rules.facts import EdgeFacts, Facts, Predicted
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.without_endpoint import Words, owner_of_route, without_endpoint

RULE = Rule(
    code="MS-I062",
    cause="subset-selects-no-pods",
    title="The subset's labels match no pods",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
    also_known_as=("IST0173", "KIA0203"),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    yield from without_endpoint(RULE, facts, say)


def say(edge: EdgeFacts, found: Predicted) -> Words:
    name = cluster_name(found.hop.detail["cluster"])
    subset = name.subset if name is not None else ""
    rule, route = found.hop.kubernetes, owner_of_route(found)
    fixes = [Fix("advice", f"correct the labels of the subset {subset} of {edge.host}", "")]
    if rule is not None:
        command = f"kubectl edit destinationrule {rule.name} -n {rule.namespace}"
        fixes = [Fix("command", command, f"to give the subset {subset} labels that pods carry")]
    if route is not None:
        command = f"kubectl edit virtualservice {route.name} -n {route.namespace}"
        fixes.append(Fix("command", command, "to route to another subset meanwhile"))
    return Words(
        title=f"{edge.edge}: the subset {subset} selects no pods",
        explanation=f"{found.hop.decision}, the labels by which {rule or 'the DestinationRule'} defines the subset "
        f"{subset}; {route or 'a route'} sends requests there",
        fix=tuple(fixes),
        ruled_out=(
            RuledOut("subset-not-defined", f"the DestinationRule defines {subset}"),
            RuledOut("service-selects-no-pods", "the Service itself selects pods"),
        ),
        evidence=(Evidence("kubernetes", str(rule), found.hop.decision),) if rule is not None else (),
    )
