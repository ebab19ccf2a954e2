"""The sidecar speaks HTTP/2 to an application that only knows HTTP/1.1.

Symptom
    The caller gets 502 (503 before Envoy 1.30); the server's sidecar logs `UPE` with
    `upstream_reset_before_response_started{protocol_error}` for requests in HTTP/2.

Why it fails
    The Service's port is named `http2` or `grpc` (or has such an `appProtocol`), or a DestinationRule sets
    `h2UpgradePolicy: UPGRADE`: the sidecars then use HTTP/2, and the application answers the preface with HTTP/1.1.

How meshscope knows
    The sidecar next to the application says that the answer isn't the protocol it asked in, and its cluster asks in
    HTTP/2.

Fix
    Name the port for what the application speaks (`http`, or `appProtocol: http`), or drop the upgrade policy.

References
    Istio: "Protocol Selection", DestinationRule h2UpgradePolicy; Envoy: response flags.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.istio.kubernetes import dicts
from meshscope.model.findings import Evidence, Fix, RuledOut, Unknown
from meshscope.rules.facts import EdgeFacts, Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.application import told
from meshscope.rules.shared.http_errors import Nonsense, nonsense

RULE = Rule(
    code="MS-I092",
    cause="http2-to-http1-app",
    title="HTTP/2 is spoken to an application that only knows HTTP/1.1",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "config", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
    also_known_as=("KIA0601",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        found = nonsense(facts, edge)
        if found is not None and found.http2:
            yield from _spoken(facts, edge, found)


def _spoken(facts: Facts, edge: EdgeFacts, found: Nonsense) -> Iterable[Claim]:
    evidence, fix = _named(facts, edge)
    yield from told(
        RULE,
        edge,
        found.found,
        title=f"{edge.edge}: HTTP/2 is spoken to an application that answers in HTTP/1.1",
        explanation=f"the sidecar asks the application behind {edge.edge.destination} in HTTP/2 and can't read the answer"
        + (f": {evidence[0].quote}" if evidence else ""),
        evidence=evidence,
        fix=fix,
        ruled_out=(RuledOut("app-not-http", "it was asked in HTTP/2, which many applications don't know"),),
    )


def _named(facts: Facts, edge: EdgeFacts) -> tuple[tuple[Evidence, ...], tuple[Fix, ...]]:
    """What declares the port to be HTTP/2, and how to change that."""
    service = facts.objects.service_of_host(edge.host)
    ports = dicts(service.spec.get("ports")) if service is not None else ()
    index, port = next(((n, p) for n, p in enumerate(ports) if p.get("port") == edge.port), (0, {}))
    name, protocol = str(port.get("name") or ""), str(port.get("appProtocol") or "")
    effect = "all callers speak HTTP/1.1 to this port from then on"
    if service is None or not (name or protocol).startswith(("http2", "grpc", "kubernetes.io/h2c")):
        return (), (
            Fix(
                "advice",
                f"see to it that the port of {edge.host} is declared as http, not http2 or grpc",
                effect,
            ),
        )
    said = f"port {edge.port} of {service.ref} is named {name}" + (
        f", appProtocol {protocol}" if protocol else ""
    )
    path = f"/spec/ports/{index}/appProtocol"
    patch = f'[{{"op":"add","path":"{path}","value":"http"}}]'
    command = f"kubectl patch service {service.metadata.name} -n {service.metadata.namespace} --type json -p '{patch}'"
    return (Evidence("kubernetes", str(service.ref), said),), (Fix("command", command, effect),)
