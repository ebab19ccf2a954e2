"""A fault injection delays requests on purpose.

Symptom
    A share of the requests takes a fixed time longer; the log of the caller's sidecar says `DI`. They succeed, unless a
    timeout of the caller runs out first.

Why it fails
    A VirtualService has `fault.delay`: made for a test, perhaps forgotten.

How meshscope knows
    The proxy says that its fault filter delayed the request; the route that it holds carries the fault.

Fix
    Remove the `fault` block from the VirtualService.

References
    Istio: VirtualService HTTPFaultInjection; Envoy: fault injection filter.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import Fix, Unknown
from meshscope.rules.claims import Shown, claims, shown_by
from meshscope.rules.facts import EdgeFacts, Facts, Predicted
from meshscope.rules.rule import Claim, Rule
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I088",
    cause="fault-delay",
    title="A fault injection delays requests on purpose",
    severity="warning",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        shown = shown_by(
            edge,
            client=lambda s: s.has("DI"),
            server=lambda s: s.has("DI"),
            client_http_stats=("fault_delays_injected",),
        )
        held = tuple(found for found in edge.passing(RULE.cause) if found.hop.detail.get("delay"))
        if shown.symptoms or held:
            yield from _delayed(edge, shown, held[0] if held else None)


def _delayed(edge: EdgeFacts, shown: Shown, held: Predicted | None) -> Iterable[Claim]:
    owner = held.hop.kubernetes if held is not None else None
    by = held.hop.detail["delay"].get("fixed_delay", "") if held is not None else ""
    fix = Fix("advice", f"remove the fault injection for {edge.host}", "requests are no longer delayed")
    if owner is not None:
        command = f"kubectl edit virtualservice {owner.name} -n {owner.namespace}  # remove spec.http[].fault"
        fix = Fix("command", command, "requests are no longer delayed")
    yield from claims(
        RULE,
        edge,
        shown,
        predicted=held,
        stage=Stage.FAULT,
        subject=owner or edge.server_subject,
        discriminator=edge.host,
        title=f"{edge.edge}: requests are delayed{f' by {by}' if by else ''} on purpose",
        explanation=f"{owner or 'a route'} injects a delay{f' of {by}' if by else ''} into calls to {edge.host}",
        fix=(fix,),
    )
