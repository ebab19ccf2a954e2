"""The caller's proxy sends requests to addresses that aren't the service's any more, or knows none of those that are.

Symptom
    Requests to one service fail from some callers: connection refused, timed out, or `UH no_healthy_upstream`, while
    Kubernetes lists ready endpoints. Restarting the caller's pod helps.

Why it fails
    The proxy acts on an older state than the API server's: a push was lost or is late, istiod is cut off or overloaded, or
    something it doesn't push for has changed (a `targetPort` while the pods stayed the same). Pods that are gone, or a
    port where nobody listens any more, still get requests.

How meshscope knows
    The endpoints in the caller's config dump and `/clusters` are compared, address and port, with the EndpointSlices of the
    Service; requests fail at an address that isn't listed, or find no endpoint though some are ready. Where nothing fails
    yet, a pod that Kubernetes lists with another port is a warning: no rollout between two reads makes that.

Fix
    Restart the caller's pod, or have istiod push again (a change of the Service does); then see in `proxy-status` and
    istiod's log why the proxy wasn't told.

References
    Istio: "Debugging Envoy and Istiod" (proxy-status); Kubernetes: EndpointSlices.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from functools import partial

import msgspec

from meshscope.facts.symptoms import Symptom
from meshscope.model.findings import Evidence, Fix, RuledOut, Unknown
from meshscope.rules.claims import CERTAIN, claims, decided, shown_by
from meshscope.rules.facts import EdgeFacts, Facts, Predicted
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.without_endpoint import Words, without_endpoint
from meshscope.walk.hops import Branch, Stage

RULE = Rule(
    code="MS-I106",
    cause="proxy-endpoints-stale",
    title="The proxy's endpoints aren't those that Kubernetes lists",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "config", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    yield from without_endpoint(RULE, facts, _untold)
    for edge in facts.edges:
        stale = {found.hop.detail["address"]: found for found in edge.passing(RULE.cause)}
        if stale:
            yield from _dead(facts, edge, stale)
        elif not facts.has_kubernetes:
            yield from _alone(facts, edge)


def _untold(edge: EdgeFacts, found: Predicted) -> Words:
    return Words(
        title=f"{edge.edge}: the caller's proxy doesn't know the endpoints that are there",
        explanation=f"{found.hop.decision}: it was never told, so it has nobody to send requests to",
        fix=_fixes(edge),
        ruled_out=(RuledOut("no-endpoints", "Kubernetes lists ready endpoints"),),
    )


def _dead(facts: Facts, edge: EdgeFacts, stale: dict[str, Predicted]) -> Iterable[Claim]:
    shown = shown_by(
        edge,
        client=partial(failed_at, addresses=stale),
        server=partial(refused_at, addresses=stale),
        client_stats=STATS,
    )
    if not shown and (moved := tuple(one for one in stale.values() if one.hop.detail.get("port_moved"))):
        yield _port_moved(edge, moved)
        return
    branches = [branch for one in edge.walks for branch in one.branches]
    counted = not any(symptom.from_log for symptom in shown.symptoms)
    if counted and any(branch.at(Stage.TLS_OFFER) and not is_stale(branch) for branch in branches):
        # Counters are of the whole cluster: where some of its endpoints are right, they may be those that fail.
        return
    found = next(iter(stale.values()))
    addresses = ", ".join(sorted(stale)[:3])
    service = facts.objects.service_of_host(edge.host)
    yield from claims(
        RULE,
        edge,
        shown,
        predicted=found,
        subject=edge.client_subject,
        discriminator=edge.host,
        title=f"{edge.edge}: the caller's proxy holds endpoints that aren't the service's: {addresses}",
        explanation=f"{found.hop.decision}, so requests go where nobody answers for {edge.edge.destination}"
        + (f" (port {edge.port} of {service.ref} leads elsewhere now)" if service is not None else ""),
        fix=_fixes(edge),
        ruled_out=(
            RuledOut("nothing-listens-at-endpoint", "the address isn't one of the service's endpoints"),
            RuledOut("app-not-listening", "the application was never asked"),
        ),
    )


def _port_moved(edge: EdgeFacts, moved: tuple[Predicted, ...]) -> Claim:
    """Nothing fails yet: the pod is the same, and Kubernetes lists it with another port."""
    hop = moved[0].hop
    return Claim(
        rule=RULE,
        subject=edge.client_subject,
        stage=Stage.ENDPOINT,
        title=f"{edge.edge}: the caller's proxy goes on calling {hop.detail['address']}, a port that the service left",
        explanation=f"{hop.decision}: the Service leads to another port of the same pod since then, and this proxy never "
        "heard of it. Its calls still work; those of proxies that start anew go to the other port",
        evidence=decided(hop),
        fix=_fixes(edge),
        confidence=CERTAIN,
        affected=(edge.edge,),
        discriminator=edge.host,
        severity="warning",
    )


def _alone(facts: Facts, edge: EdgeFacts) -> Iterable[Claim]:
    """Without Kubernetes objects: an address that this proxy alone holds, of all those that know the service."""
    failing = {s.example.upstream_host for s in edge.on("client") if s.example is not None and s.has("UF")}
    for name in edge.clusters if failing - {""} else ():
        others = facts.endpoints_elsewhere(edge.client_proxies, name)
        held = frozenset().union(*others)
        shown = shown_by(edge, client=partial(failed_at, addresses=failing - held))
        if len(others) < WITNESSES or not held or not shown:
            continue
        said = f"{len(others)} other proxies hold {', '.join(sorted(held)[:3])} for {name}"
        for claim in claims(
            RULE,
            edge,
            shown,
            stage=Stage.ENDPOINT,
            subject=edge.client_subject,
            discriminator=edge.host,
            title=f"{edge.edge}: the caller's proxy alone holds {', '.join(sorted(failing - held)[:3])}",
            explanation=f"requests fail at an address that no other proxy has for {edge.host}: {said}",
            fix=_fixes(edge),
        ):
            evidence = Evidence("the other proxies", "config_dump.json: endpoints", said)
            yield msgspec.structs.replace(claim, evidence=(*claim.evidence, evidence))


WITNESSES = 2
"""So many other proxies must agree: of two that differ, either may be the stale one."""


def failed_at(symptom: Symptom, addresses: Container[str]) -> bool:
    """Whether requests failed at one of these hosts before anybody there answered."""
    example = symptom.example
    return (
        example is not None
        and example.upstream_host in addresses
        and symptom.details != "via_upstream"
        and (symptom.has("UF") or symptom.has("UC") or symptom.has("UT"))
    )


def refused_at(symptom: Symptom, addresses: Container[str]) -> bool:
    """Whether the server's sidecar took requests at one of these addresses and found nobody behind it."""
    example = symptom.example
    return (
        example is not None
        and example.downstream_local_address in addresses
        and symptom.has("UF")
        and symptom.cluster.startswith("inbound|")
    )


def is_stale(branch: Branch) -> bool:
    return any(hop.cause == RULE.cause for hop in branch.hops)


def _fixes(edge: EdgeFacts) -> tuple[Fix, ...]:
    workload = edge.client_subject
    effect = "its new pods hear of the endpoints as they are now; requests in flight are lost"
    return (
        Fix(
            "command",
            f"kubectl rollout restart {workload.kind.lower()} {workload.name} -n {workload.namespace}",
            effect,
        ),
        Fix("command", "istioctl proxy-status", "only looks: whether this proxy is behind in EDS"),
    )


STATS = (
    "upstream_cx_connect_fail",
    "upstream_cx_connect_timeout",
    "upstream_rq_5xx",
    "upstream_rq_retry_limit_exceeded",
)
