"""A workload that should have a sidecar has none.

Symptom
    Often none of its own. Its calls to servers that demand mTLS are reset, and the servers' sidecars log `NR
    filter_chain_not_found` with its address; calls to it go in plaintext, without policy, metrics or retries.

Why it fails
    The namespace or the pod asks for injection, and the pod was made without: before the label was set, while istiod's
    webhook didn't answer, or under a revision that no istiod serves. Pods aren't injected afterwards.

How meshscope knows
    The labels `istio-injection` or `istio.io/rev` of the namespace (or `sidecar.istio.io/inject` of the pod) ask for a
    sidecar, and the running pod has no container `istio-proxy`. It is an error where its calls fail for that now. A pod
    that opts out by its label in a namespace with injection is a notice. Without Kubernetes objects none of this can
    be known.

Fix
    Make the pods anew. If they come back without, look at the webhook (`istio-sidecar-injector`), whose failures are
    events of the ReplicaSet.

References
    Istio: "Installing the Sidecar", "Sidecar Injection Problems". IST0103.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.istio.injection import INJECT, Injection, injection
from meshscope.istio.kubernetes import containers
from meshscope.model.findings import Evidence, Fix, RuledOut, Severity, Unknown
from meshscope.model.kubernetes import KubernetesObject
from meshscope.model.names import WorkloadId
from meshscope.rules.claims import CERTAIN, decided
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.offers import CLOSED, Mismatch, mismatches, without_sidecar
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I107",
    cause="not-injected",
    title="A workload that should have a sidecar has none",
    severity="warning",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40", "Istio 1.32"),
    also_known_as=("IST0103",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    refused: dict[WorkloadId, list[Mismatch]] = {}
    for one in mismatches(facts, "client-without-sidecar-server-strict", CLOSED):
        refused.setdefault(one.edge.client, []).append(one)
    told_otherwise = {
        facts.workload_at(str(found.hop.detail.get("endpoint") or ""))
        for edge in facts.edges
        if edge.symptoms
        for found in edge.predicted("client-mtls-server-without-sidecar")
    }
    for workload, pods in without_sidecar(facts).items():
        calls = refused.get(workload, [])
        minor: Severity = "info" if workload in told_otherwise else "warning"
        yield _lacking(workload, pods, injection(facts.objects, pods[0]), calls, "error" if calls else minor)
    for workload, pods in without_sidecar(facts, "opted out").items():
        yield _lacking(workload, pods, injection(facts.objects, pods[0]), [], "info")


def _lacking(
    workload: WorkloadId,
    pods: list[KubernetesObject],
    verdict: Injection,
    calls: list[Mismatch],
    severity: Severity,
) -> Claim:
    refused = ", ".join(sorted({str(one.edge.edge) for one in calls}))
    effect = (
        f"so the servers that demand mTLS close its connections: {refused}"
        if calls
        else "so its calls go out in plaintext, and no policy, retry or metric of the mesh applies to it"
    )
    opted_out = verdict.verdict == "opted out"
    return Claim(
        rule=RULE,
        subject=workload.ref,
        stage=Stage.CAPTURE,
        title=f"{workload} has no sidecar{':' if opted_out else ', though'} {verdict.why}",
        explanation=f"{verdict.why}{' in a namespace with injection' if opted_out else ''}; {len(pods)} of its pods "
        f"(such as {pods[0].metadata.name}) run without the container istio-proxy, {effect}",
        evidence=(
            *(evidence for one in calls[:1] for evidence in one.shown.evidence),
            Evidence("kubernetes", str(pods[0].ref), _containers(pods[0])),
            Evidence("kubernetes", f"Namespace/{workload.namespace} and the pod's labels", verdict.why),
            *(evidence for one in calls[:1] for evidence in decided(one.found.hop)),
        ),
        fix=_fixes(workload, opted_out=opted_out),
        confidence=CERTAIN,
        affected=tuple(one.edge.edge for one in calls) or (str(workload),),
        explains=tuple(symptom for one in calls for symptom in one.shown.explains),
        ruled_out=_RULED_OUT if calls else (),
        severity=severity,
    )


_RULED_OUT = (
    RuledOut("client-plaintext-server-strict", "there is no sidecar that a DestinationRule could tell"),
    RuledOut(
        "client-without-sidecar-server-strict", "the caller isn't meant to be outside: it lacks its sidecar"
    ),
)


def _containers(pod: KubernetesObject) -> str:
    names = ", ".join(str(container.get("name")) for container in containers(pod))
    return f"containers: {names or 'none'}; made {pod.metadata.creationTimestamp or 'at an unknown time'}"


def _fixes(workload: WorkloadId, *, opted_out: bool) -> tuple[Fix, ...]:
    if opted_out:
        advice = f"remove {INJECT} from the pod template of {workload} if it belongs into the mesh"
        return (Fix("advice", advice, "rolls its pods; the new ones have a sidecar"),)
    restart = (
        f"kubectl rollout restart {workload.kind.lower()} {workload.name} -n {workload.namespace}"
        if workload.kind in {"Deployment", "StatefulSet", "DaemonSet"}
        else f"kubectl delete pod -n {workload.namespace} {workload.name}"
    )
    look = "kubectl get mutatingwebhookconfigurations -l app=sidecar-injector -o wide"
    return (
        Fix("command", restart, "its pods are made anew, with a sidecar if the webhook answers"),
        Fix("command", look, "only shows whether a webhook is there"),
    )
