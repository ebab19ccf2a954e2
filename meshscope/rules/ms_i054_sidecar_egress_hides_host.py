"""The host is in the mesh's registry, and a Sidecar resource keeps it from this caller's proxy.

Symptom
    One workload can't call a service that others reach. With REGISTRY_ONLY it gets 502 (`direct_response`, route
    `block_all`) or a closed connection (`BlackHoleCluster`); with ALLOW_ANY the call leaves by `PassthroughCluster`
    in plaintext, without routing or load balancing, and a STRICT server closes it.

Why it fails
    `egress.hosts` of the Sidecar in force for the caller (its own, its namespace's, the mesh's) doesn't list the host, so
    istiod sends its proxy neither route nor cluster for it. `./` stands for the caller's own namespace only.

How meshscope knows
    The request ended in the proxy's catch-all, the host has a Service or ServiceEntry, and the Sidecar in force leaves it
    out. Without Kubernetes objects: another proxy of the same namespace has a route for the host.

Fix
    Add the host (`NAMESPACE/NAME.NAMESPACE.svc.cluster.local`, or `NAMESPACE/*`) to the Sidecar's `egress.hosts`.

References
    Istio: Sidecar IstioEgressListener.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.facts.symptoms import Symptom
from meshscope.istio.names import BLACK_HOLE, PASSTHROUGH, service_host
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.rules.claims import claims, shown_by
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.routing import Case, Words, ended
from meshscope.walk.outbound import BLOCK_ALL

RULE = Rule(
    code="MS-I054",
    cause="sidecar-egress-hides-host",
    title="A Sidecar resource hides the host from this caller",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "config", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    yield from ended(RULE, facts, forbidden, say)
    for edge in facts.edges:
        shown = shown_by(
            edge,
            client=lambda s: s.cluster == PASSTHROUGH,
            server=lambda s: s.details == "filter_chain_not_found",
        )
        if not shown.symptoms:
            continue
        for found in edge.passing(RULE.cause)[:1]:
            words = say(Case(str(edge.client), edge.host, found.hop.decision, found.hop.kubernetes))
            yield from claims(
                RULE,
                edge,
                shown,
                predicted=found,
                subject=found.hop.kubernetes or edge.server_subject,
                discriminator=edge.host,
                title=words.title,
                explanation=words.explanation,
                fix=words.fix,
            )


def forbidden(symptom: Symptom) -> bool:
    example = symptom.example
    blocked = example is not None and symptom.details == "direct_response" and example.route_name == BLOCK_ALL
    return blocked or symptom.cluster == BLACK_HOLE


def say(case: Case) -> Words:
    known = case.detail.get("knows")
    proof = f": {known} has a route for it" if known else ""
    fix = Fix(
        "command", "kubectl get sidecars.networking.istio.io -A", "shows which Sidecar leaves the host out"
    )
    if case.owner is not None:
        host = service_host(case.host)
        added = f"{host.namespace}/{case.host}" if host is not None else f"*/{case.host or 'HOST'}"
        patch = f'[{{"op":"add","path":"/spec/egress/0/hosts/-","value":"{added}"}}]'
        fix = Fix(
            "command",
            f"kubectl patch sidecar.networking.istio.io {case.owner.name} -n {case.owner.namespace} "
            f"--type json -p '{patch}'",
            "the proxies that this Sidecar is for hear of the host, too",
        )
    return Words(
        title=f"{case.caller} → {case.called}: {case.owner or 'a Sidecar'} hides the host from this caller",
        explanation=f"{case.called} is in the mesh, but {case.owner or 'a Sidecar (or an exportTo)'} keeps it "
        f"from the caller's proxy{proof}",
        fix=(fix,),
        ruled_out=(RuledOut("registry-only", f"{case.called} is in the mesh's registry"),),
    )
