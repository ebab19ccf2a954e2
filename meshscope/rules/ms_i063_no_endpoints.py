"""The Service's workload is known, and none of its pods is there and ready.

Symptom
    Every call gets 503 `no healthy upstream` at once; the caller's sidecar logs `UH no_healthy_upstream` and no upstream
    host.

Why it fails
    Istio gives proxies the ready pods only. The workload is scaled to 0, its pods can't start or be scheduled, or their
    readiness probes fail.

How meshscope knows
    The cluster in the caller's proxy has no endpoint, the Service (and subset) matches a workload, and Kubernetes says that
    it has no pods or none of them is Ready; the finding quotes why. Without Kubernetes objects only the empty cluster is
    known: then this is one of several possible reasons, and the confidence says so.

Fix
    Scale the workload up, or see why its pods don't get ready.

References
    Kubernetes: readiness probes, EndpointSlices; Envoy: response flag UH.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import Evidence, Fix, RuledOut, Unknown
from meshscope.rules.claims import CERTAIN, PREDICTED
from meshscope.rules.facts import EdgeFacts, Facts, Predicted
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.without_endpoint import Words, without_endpoint

RULE = Rule(
    code="MS-I063",
    cause="no-endpoints",
    title="The workload has no pod that is there and ready",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    yield from without_endpoint(RULE, facts, say)


def say(edge: EdgeFacts, found: Predicted) -> Words:
    known = found.hop.detail["kubernetes"]
    service = found.hop.kubernetes
    explanation = f"{edge.edge.destination} has no endpoint: {found.hop.decision}"
    ruled_out: tuple[RuledOut, ...] = (
        RuledOut("all-endpoints-ejected", "the cluster has no host that could be ejected"),
        RuledOut("endpoints-unhealthy", "the cluster has no host at all"),
    )
    if not known:
        explanation = (
            f"the caller's proxy holds no endpoint for {found.hop.detail['cluster']}. Whether the Service (or the subset) "
            "selects no pods, or its pods aren't ready, the Kubernetes objects would tell: Service, Pods, DestinationRule"
        )
        fix = Fix(
            "command", f"kubectl get service,endpointslices,pods -A  # look for {edge.host}", "only looks"
        )
    elif service is not None and service.kind == "Service":
        select = f"kubectl describe service {service.name} -n {service.namespace}"
        more = f"kubectl get pods -n {service.namespace} -o wide"
        fix = Fix(
            "command", f"{select}; {more}", "only looks: the pods' states and events say what they wait for"
        )
        ruled_out += (RuledOut("service-selects-no-pods", "the Service selects a workload"),)
    else:
        fix = Fix("advice", f"see who should list endpoints for {edge.host}", "")
    return Words(
        title=f"{edge.edge}: no endpoint" + (f", {found.hop.decision}" if known else ""),
        explanation=explanation,
        fix=(fix,),
        ruled_out=ruled_out,
        at_most=CERTAIN if known else PREDICTED,
        evidence=(Evidence("kubernetes", str(service), found.hop.decision),) if service is not None else (),
    )
