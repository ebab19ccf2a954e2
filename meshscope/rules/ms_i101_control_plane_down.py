"""Proxies have no connection to istiod: they live on what they last heard.

Symptom
    Requests go on working, and nothing that is changed takes effect: new pods aren't found, dead ones stay in the list,
    new proxies don't start. After hours certificates run out.

Why it fails
    istiod is down, overloaded or can't be reached (its pods, the Service, a NetworkPolicy, an expired root). A proxy goes
    on with its last configuration and tries again.

How meshscope knows
    The proxy's gauge `control_plane.connected_state` is 0 now, or, as Istio's default statistics leave that out, no stream
    to `xds-grpc` is open. How old its configuration is comes from the times of its last updates; istiod's Deployment and
    pods in Kubernetes say whether any is ready, which is enough where no proxy tells.

Fix
    Bring istiod back: look at its pods, their log and resources. Proxies connect again by themselves.

References
    Istio: "Debugging Envoy and Istiod"; Envoy: xDS management server statistics.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from meshscope.facts.proxy import Proxy
from meshscope.model.findings import Evidence, Fix, Unknown
from meshscope.model.kubernetes import KubernetesObject
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import CERTAIN, SEEN
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.sources.source import Part
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I101",
    cause="control-plane-down",
    title="Proxies have no connection to istiod",
    severity="error",
    mesh="istio",
    inputs=("counters", "kubernetes", "log"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)

UPDATES = {
    "cluster_manager": "cds_update_time",
    "listener_manager": "lds_update_time",
}


CONNECTED = (("control_plane", "", "connected_state"), ("cluster", "xds-grpc", "upstream_rq_active"))
"""Gauges that say whether a proxy has its stream, best first; the second stays with Istio's default statistics."""


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    told = {proxy: found for proxy in facts.proxies if (found := _connected(facts, proxy)) is not None}
    cut_off = tuple(proxy for proxy, (_, state) in told.items() if state == 0)
    if cut_off:
        yield _down(facts, cut_off, len(told))
    elif not told and _gone(facts):
        yield _down(facts, facts.proxies, len(facts.proxies))


def _connected(facts: Facts, proxy: Proxy) -> tuple[str, float] | None:
    """The gauge that tells of the proxy's stream to istiod, and its value; None where neither is there."""
    for scope, name, stat in CONNECTED:
        state = facts.gauge(proxy, scope, name, stat)
        if state is not None:
            return ".".join(part for part in (scope, name, stat) if part), state
    return None


def _gone(facts: Facts) -> bool:
    """Whether istiod is meant to run in this cluster and none of its pods is ready."""
    meant = [
        found for found in facts.objects.of("Deployment") if found.metadata.labels.get("app") == "istiod"
    ]
    return bool(meant) and not any(facts.objects.ready(pod) for pod in _istiod(facts))


def _down(facts: Facts, cut_off: tuple[Proxy, ...], known: int) -> Claim:
    pods = _istiod(facts)
    ready = [pod for pod in pods if facts.objects.ready(pod)]
    heard = max((at for proxy in cut_off if (at := _last_heard(facts, proxy)) is not None), default=None)
    since = f" of {heard:%Y-%m-%d %H:%M:%S} UTC" if heard is not None else ""
    istiods = f"; {len(ready)} of {len(pods)} istiod pods are ready" if pods else ""
    if not pods and _gone(facts):
        istiods = "; istiod has no pod"
    workloads = tuple(dict.fromkeys(str(facts.workload(proxy)) for proxy in cut_off))
    namespace = facts.objects.root_namespace
    return Claim(
        rule=RULE,
        subject=ObjectRef("Service", "istiod", namespace),
        stage=Stage.CAPTURE,
        title=f"{len(cut_off)} of {known} proxies have no connection to istiod",
        explanation=f"their last configuration is{since or ' of a time that is not known'}{istiods}; until istiod answers again, "
        "changed routes and policies, new and vanished endpoints, and renewed certificates don't reach them",
        evidence=(*_evidence(facts, cut_off), *_deployments_said(facts), *_pods_said(pods)),
        fix=(
            Fix(
                "command",
                f"kubectl get pods -n {namespace} -l app=istiod",
                "shows whether istiod runs and is ready",
            ),
            Fix("command", f"kubectl logs -n {namespace} -l app=istiod --tail=100", "shows why not"),
        ),
        confidence=CERTAIN if len(cut_off) == known or _gone(facts) else SEEN,
        affected=workloads,
    )


def _istiod(facts: Facts) -> tuple[KubernetesObject, ...]:
    return tuple(pod for pod in facts.objects.pods if pod.metadata.labels.get("app") == "istiod")


def _last_heard(facts: Facts, proxy: Proxy) -> datetime | None:
    """When the proxy last took clusters or listeners; endpoints may have come later."""
    times = [facts.gauge(proxy, scope, "", stat) or 0 for scope, stat in UPDATES.items()]
    return datetime.fromtimestamp(max(times) / 1000, UTC) if max(times) > 0 else None


def _evidence(facts: Facts, cut_off: tuple[Proxy, ...]) -> Iterable[Evidence]:
    for proxy in cut_off[:3]:
        if (found := _connected(facts, proxy)) is not None:
            yield Evidence(f"proxy {proxy.id}", proxy.path(Part.METRICS), f"{found[0]}: 0")
    for proxy in cut_off:
        said = [m for m in facts.messages(proxy) if "gRPC config stream" in m.text]
        if said:
            where = f"{proxy.path(Part.LOG)} line {said[-1].number}"
            yield Evidence(f"proxy {proxy.id}", where, said[-1].text)
            return


def _deployments_said(facts: Facts) -> Iterable[Evidence]:
    for found in facts.objects.of("Deployment"):
        if found.metadata.labels.get("app") == "istiod":
            replicas, ready = found.spec.get("replicas"), found.status.get("readyReplicas") or 0
            yield Evidence("kubernetes", str(found.ref), f"replicas {replicas}, ready {ready}")


def _pods_said(pods: tuple[KubernetesObject, ...]) -> Iterable[Evidence]:
    for pod in pods[:2]:
        conditions = [c for c in pod.status.get("conditions") or () if c.get("type") == "Ready"]
        state = conditions[0].get("status", "unknown") if conditions else "unknown"
        yield Evidence(
            "kubernetes", str(pod.ref), f"phase {pod.status.get('phase', 'unknown')}, Ready {state}"
        )
