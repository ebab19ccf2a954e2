"""The proxy resolves the host's name itself, and gets no address.

Symptom
    Every call to an external host gets 503 `no healthy upstream`; the caller's sidecar logs `UH no_healthy_upstream`.
    The application's own lookup of the name may work all the same.

Why it fails
    A ServiceEntry with `resolution: DNS` makes each sidecar look the name up. The name is misspelt or gone, or the DNS
    server that the pod has doesn't know it or can't be reached.

How meshscope knows
    The cluster in the caller's proxy is of type STRICT_DNS or LOGICAL_DNS and has no host; where Envoy's statistics show
    it, `update_failure` of the cluster rises.

Fix
    Correct the name in the ServiceEntry (`hosts`, or `endpoints[].address`), or mend the DNS; from the pod: `nslookup NAME`.

References
    Istio: ServiceEntry resolution; Envoy: service discovery (strict DNS).
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.rules.facts import EdgeFacts, Facts, Predicted
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.without_endpoint import Words, without_endpoint

RULE = Rule(
    code="MS-I066",
    cause="dns-failure",
    title="The host's name resolves to no address",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    def say(edge: EdgeFacts, found: Predicted) -> Words:
        failed = edge.client_moved("update_failure")
        return Words(
            title=f"{edge.edge}: {found.hop.decision}",
            explanation=f"the caller's proxy resolves {edge.host} itself, and {found.hop.decision}",
            fix=(
                Fix(
                    "command",
                    f"kubectl get serviceentries -A  # correct the one with the host {edge.host}, if its name is wrong",
                    "only looks",
                ),
                Fix("advice", f"ask from the caller's pod: nslookup {edge.host}", ""),
            ),
            ruled_out=(RuledOut("no-endpoints", "no Kubernetes object lists these endpoints, DNS does"),),
            evidence=tuple(moved.evidence for moved in failed[:1]),
        )

    yield from without_endpoint(RULE, facts, say)
