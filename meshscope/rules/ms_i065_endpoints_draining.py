"""The caller's proxy has endpoints, and all of them are on their way out.

Symptom
    Every call gets 503 `no healthy upstream`; the caller's sidecar logs `UH no_healthy_upstream`. New sessions fail while
    old ones may go on.

Why it fails
    The pods are terminating, and none has taken their place: a deployment scaled down, a rollout with `maxUnavailable` of
    everything, a node that was drained. istiod sends terminating pods as DRAINING where sessions are sticky.

How meshscope knows
    `eds_health_status` of every host in the caller's `/clusters` is DRAINING.

Fix
    See what ends the pods (`kubectl get events`), and let new ones get ready first: `maxUnavailable: 0`, a
    PodDisruptionBudget.

References
    Envoy: endpoint health status DRAINING; Istio: persistent sessions.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.rules.facts import EdgeFacts, Facts, Predicted
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.without_endpoint import Words, without_endpoint

RULE = Rule(
    code="MS-I065",
    cause="endpoints-draining",
    title="Every endpoint is draining",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    yield from without_endpoint(RULE, facts, say)


def say(edge: EdgeFacts, found: Predicted) -> Words:
    return Words(
        title=f"{edge.edge}: every endpoint is draining",
        explanation=f"{found.hop.decision}: new requests to {edge.edge.destination} have nowhere to go",
        fix=(
            Fix(
                "command",
                f"kubectl get pods,events -A --sort-by=.lastTimestamp  # those of {edge.edge.destination}",
                "only looks: shows what ends the pods, and whether others come",
            ),
        ),
        ruled_out=(
            RuledOut("endpoints-unhealthy", "the hosts are marked as draining, not as unhealthy"),
            RuledOut("no-endpoints", "the cluster has hosts"),
        ),
    )
