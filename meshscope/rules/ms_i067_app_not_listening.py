"""The server's sidecar is there, and its application doesn't listen at the port that it forwards to.

Symptom
    The caller gets 503 `via_upstream`; the server's sidecar logs `UF` with `Connection_refused` on its inbound cluster.

Why it fails
    The application isn't started yet, has crashed, or listens at another port or only at 127.0.0.1; or the Service's
    `targetPort` isn't the port that the application listens at. The sidecar takes the connection all the same: it
    listens in the application's place.

How meshscope knows
    The server's sidecar says that the connection to its own application is refused, or counts failed connects in its
    inbound cluster. Where Kubernetes is readable the Service's targetPort is compared with the containers' ports.

Fix
    Correct the Service's `targetPort`, or let the application listen at that port on all addresses. A readiness probe
    on that port keeps requests away from a pod that doesn't listen.

References
    Kubernetes: Service targetPort, readiness probes; Istio: "Application Requirements"; Envoy: response flags.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.envoy.local_replies import reset_bodies
from meshscope.facts.symptoms import Symptom
from meshscope.istio.kubernetes import containers, dicts, target_port
from meshscope.istio.names import service_host
from meshscope.model.findings import Evidence, Fix, RuledOut, Unknown
from meshscope.rules.facts import EdgeFacts, Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.application import Met, all_stale, at_application, met, told

RULE = Rule(
    code="MS-I067",
    cause="app-not-listening",
    title="The application doesn't listen at the port that its sidecar forwards to",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)

BODIES = reset_bodies(
    "remote connection failure",
    "delayed connect error: Connection refused",
    "delayed connect error: 111",
) | reset_bodies("connection failure")


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        found = met(edge, lines=_refused, counters=("upstream_cx_connect_fail",), bodies=BODIES)
        if found is not None and not all_stale(edge, found):
            yield from _not_listening(facts, edge, found)


def _refused(symptom: Symptom) -> bool:
    return at_application(symptom) and symptom.has("UF") and "connection_timeout" not in symptom.details


def _not_listening(facts: Facts, edge: EdgeFacts, found: Met) -> Iterable[Claim]:
    port, wrong, fix = _wrong_target(facts, edge)
    where = f"port {port}" if port else "its port"
    yield from told(
        RULE,
        edge,
        found,
        title=f"{edge.edge}: the application doesn't listen at {where}",
        explanation=f"the server's sidecar takes the requests and finds nobody listening at {where} of its own pod"
        + (f"; {wrong[0].quote}" if wrong else ""),
        evidence=wrong,
        fix=(*fix, _advice(edge, where)),
        ruled_out=(
            RuledOut("nothing-listens-at-endpoint", "the pod's sidecar answered"),
            RuledOut("app-closes-connection", "the application never took the connection"),
        ),
    )


def _wrong_target(facts: Facts, edge: EdgeFacts) -> tuple[int, tuple[Evidence, ...], tuple[Fix, ...]]:
    """The port in question, and what speaks for a wrong targetPort: no container of the pods declares it."""
    service = facts.objects.service_of_host(edge.host)
    pods = facts.objects.pods_selected(service) if service is not None else ()
    if service is None or not pods:
        return 0, (), ()
    port = target_port(service, edge.port, pods[0]) or 0
    declared = sorted(
        {
            int(entry.get("containerPort") or 0)
            for container in containers(pods[0])
            if container.get("name") != "istio-proxy"
            for entry in dicts(container.get("ports"))
        }
    )
    if not port or not declared or port in declared:
        return port, (), ()
    ref = service.ref
    said = f"targetPort {port} of {ref}, the containers declare {', '.join(map(str, declared))}"
    index = next((n for n, p in enumerate(dicts(service.spec.get("ports"))) if p.get("port") == edge.port), 0)
    path = f"/spec/ports/{index}/targetPort"
    patch = f'[{{"op":"replace","path":"{path}","value":{declared[0]}}}]'
    command = f"kubectl patch service {ref.name} -n {ref.namespace} --type json -p '{patch}'"
    effect = "all callers of the Service reach that port from then on"
    return port, (Evidence("kubernetes", str(ref), said),), (Fix("command", command, effect),)


def _advice(edge: EdgeFacts, where: str) -> Fix:
    name = service_host(edge.host)
    pods = f"the pods of {name.service} in {name.namespace}" if name is not None else edge.host
    return Fix(
        "advice",
        f"look whether the application in {pods} runs and listens at {where} on all addresses (not only 127.0.0.1)",
    )
