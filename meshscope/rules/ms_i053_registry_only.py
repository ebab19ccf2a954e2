"""The caller asks for a host outside the mesh's registry, and the outbound policy allows only what is in it.

Symptom
    HTTP callers get 502 with an empty body; their sidecar logs `direct_response` at the route `block_all`. Other protocols
    (TLS, databases) find their connection closed; the log says `UH` with the cluster `BlackHoleCluster`.

Why it fails
    `outboundTrafficPolicy.mode` is REGISTRY_ONLY, and no Service or ServiceEntry has this host and port.

How meshscope knows
    The proxy's route table ends in `block_all` (its TCP catch-all in `BlackHoleCluster`), the request went there, and
    neither a Service nor a ServiceEntry nor another proxy knows the host. Where the log is missing,
    `rq_direct_response` rises, and no other route answers by itself.

Fix
    Add a ServiceEntry for the host and port, if it is meant to be called. ALLOW_ANY opens everything else too.

References
    Istio: "Accessing External Services", MeshConfig outboundTrafficPolicy, ServiceEntry.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.facts.symptoms import Symptom
from meshscope.istio.names import BLACK_HOLE
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.routing import Case, Words, ended
from meshscope.walk.outbound import BLOCK_ALL

RULE = Rule(
    code="MS-I053",
    cause="registry-only",
    title="The host is outside the mesh's registry, and the outbound policy forbids it",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "config", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    yield from ended(RULE, facts, forbidden, say)


def forbidden(symptom: Symptom) -> bool:
    example = symptom.example
    blocked = example is not None and symptom.details == "direct_response" and example.route_name == BLOCK_ALL
    return blocked or symptom.cluster == BLACK_HOLE


def say(case: Case) -> Words:
    return Words(
        title=f"{case.caller} → {case.called}: not in the mesh's registry, and the outbound policy forbids it",
        explanation=f"{case.decision}: no Service or ServiceEntry has it, and the outbound policy is REGISTRY_ONLY",
        fix=(
            Fix(
                "patch",
                service_entry(case.host or "HOST", case.port),
                "opens the host to all callers of its exportTo; correct port and protocol where they differ",
            ),
        ),
        ruled_out=(
            RuledOut("no-vhost", "an unknown host is caught by block_all here, not left without a route"),
        ),
    )


def service_entry(host: str, port: int) -> str:
    name = host.replace(".", "-").lower()
    return f"""apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}}}
spec:
  hosts: [{host}]
  location: MESH_EXTERNAL
  resolution: DNS
  ports: [{{number: {port or 80}, name: http, protocol: HTTP}}]
"""
