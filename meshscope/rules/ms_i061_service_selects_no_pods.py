"""The Service selects no pod of any workload, so callers have nobody to send requests to.

Symptom
    Every call gets 503 `no healthy upstream` at once; the caller's sidecar logs `UH no_healthy_upstream` and no upstream
    host.

Why it fails
    The labels in the Service's selector are on no workload's pod template in its namespace: a misspelt label, a renamed
    app, a selector left over from another release.

How meshscope knows
    The cluster in the caller's proxy has no endpoint, and neither pods nor the pod templates of Deployments,
    StatefulSets and DaemonSets carry the labels that the Service selects.

Fix
    Correct the selector of the Service, or the labels of the workload that it is meant for.

References
    Kubernetes: Service selectors; Envoy: response flag UH.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from difflib import SequenceMatcher

from meshscope.istio.kubernetes import strings
from meshscope.model.findings import Evidence, Fix, RuledOut, Unknown
from meshscope.rules.facts import EdgeFacts, Facts, Predicted
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.without_endpoint import Words, without_endpoint

RULE = Rule(
    code="MS-I061",
    cause="service-selects-no-pods",
    title="The Service's selector matches no pods",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
    also_known_as=("KIA0701",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    def say(edge: EdgeFacts, found: Predicted) -> Words:
        service = facts.objects.service_of_host(edge.host)
        selector = strings(service.spec.get("selector")) if service is not None else {}
        wanted = ", ".join(f"{key}={value}" for key, value in selector.items())
        fix = Fix("advice", f"let the selector of {edge.edge.destination} match the pods it is meant for", "")
        if service is not None:
            meta = service.metadata
            likely = nearest(facts, meta.namespace, selector)
            patch = json.dumps({"spec": {"selector": likely or {"app": meta.name}}}, separators=(",", ":"))
            fix = Fix(
                "command",
                f"kubectl patch service {meta.name} -n {meta.namespace} --type merge -p '{patch}'",
                "the labels nearest to these that a workload carries: check that it is the one that is meant"
                if likely
                else "put in the labels of the workload that is meant",
            )
        return Words(
            title=f"{edge.edge}: the Service selects no pods ({wanted})",
            explanation=f"no pod and no workload's pod template in the namespace carries {wanted}, "
            f"so {edge.edge.destination} has no endpoint and callers get 503",
            fix=(fix,),
            ruled_out=(
                RuledOut("no-endpoints", "no workload carries the labels, scaled to 0 or not"),
                RuledOut("all-endpoints-ejected", "the cluster has no host that could be ejected"),
            ),
            evidence=(Evidence("kubernetes", str(edge.server_subject), f"selector: {wanted}"),),
        )

    yield from without_endpoint(RULE, facts, say)


def nearest(facts: Facts, namespace: str, selector: dict[str, str]) -> dict[str, str]:
    """The selector with its values exchanged for the most similar ones on some workload; {} where none is similar."""
    best: tuple[float, dict[str, str]] = (0.0, {})
    for labels in facts.template_labels(namespace):
        if not selector.keys() <= labels.keys():
            continue
        likeness = min(SequenceMatcher(None, labels[key], value).ratio() for key, value in selector.items())
        best = max(best, (likeness, {key: labels[key] for key in selector}), key=lambda pair: pair[0])
    return best[1] if best[0] >= ALIKE else {}


ALIKE = 0.6
"""Names as similar as this are taken for each other's misspellings (difflib's own cutoff)."""
