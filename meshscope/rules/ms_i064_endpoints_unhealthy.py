"""The caller's proxy has endpoints, and all of them are marked unhealthy.

Symptom
    Every call gets 503 `no healthy upstream`; the caller's sidecar logs `UH no_healthy_upstream`, though `/clusters` lists
    hosts.

Why it fails
    istiod sends the endpoints with the health status UNHEALTHY (their pods aren't ready, and the mesh is set to send such
    endpoints too), or the proxy's own active health checks fail. Without a panic threshold Envoy uses none of them.

How meshscope knows
    `eds_health_status` or `failed_active_health_check` of every host in the caller's `/clusters` (else the health status
    in its configuration). Hosts that outlier detection ejected have another flag.

Fix
    See why the pods aren't ready: their readiness probes, their logs, what they wait for.

References
    Envoy: health checking, panic threshold; Istio: DestinationRule outlierDetection minHealthPercent.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.rules.facts import EdgeFacts, Facts, Predicted
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.without_endpoint import Words, without_endpoint

RULE = Rule(
    code="MS-I064",
    cause="endpoints-unhealthy",
    title="Every endpoint is marked unhealthy",
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
        title=f"{edge.edge}: every endpoint is unhealthy",
        explanation=f"{found.hop.decision}: the caller's proxy holds endpoints of {edge.edge.destination} and may use none",
        fix=(
            Fix(
                "command",
                f"kubectl get pods -A -o wide  # those of {edge.edge.destination}: READY and the events say why",
                "only looks",
            ),
        ),
        ruled_out=(
            RuledOut("all-endpoints-ejected", "no host has failed_outlier_check"),
            RuledOut("no-endpoints", "the cluster has hosts"),
            RuledOut("endpoints-draining", "the hosts aren't all draining"),
        ),
    )
