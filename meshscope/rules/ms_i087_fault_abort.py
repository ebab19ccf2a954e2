"""A fault injection answers requests with an error on purpose.

Symptom
    A share of the requests gets a fixed status at once; the log of the caller's sidecar says `FI` with
    `fault_filter_abort`, and no upstream host.

Why it fails
    A VirtualService has `fault.abort`: made for a test, perhaps forgotten. The server never sees these requests.

How meshscope knows
    The proxy says that its fault filter aborted the request; the route that it holds carries the fault.

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
    code="MS-I087",
    cause="fault-abort",
    title="A fault injection aborts requests on purpose",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        shown = shown_by(
            edge,
            client=lambda s: s.has("FI") or s.details == "fault_filter_abort",
            server=lambda s: s.has("FI") or s.details == "fault_filter_abort",
            client_http_stats=("fault_aborts_injected",),
        )
        held = (*edge.predicted(RULE.cause), *edge.passing(RULE.cause))
        if shown.symptoms or held:
            yield from _aborted(edge, shown, held[0] if held else None)


def _aborted(edge: EdgeFacts, shown: Shown, held: Predicted | None) -> Iterable[Claim]:
    owner = held.hop.kubernetes if held is not None else None
    share = (
        f"{held.hop.detail['share']:.0%} of the requests" if held is not None else "a share of the requests"
    )
    fix = Fix("advice", f"remove the fault injection for {edge.host}", "requests reach the server again")
    if owner is not None:
        command = f"kubectl edit virtualservice {owner.name} -n {owner.namespace}  # remove spec.http[].fault"
        fix = Fix("command", command, "requests reach the server again")
    yield from claims(
        RULE,
        edge,
        shown,
        predicted=held,
        stage=Stage.FAULT,
        subject=owner or edge.server_subject,
        discriminator=edge.host,
        title=f"{edge.edge}: {share} {'is' if held is None else 'are'} aborted on purpose",
        explanation=f"{owner or 'a route'} injects an abort into calls to {edge.host}; the server never sees these requests",
        fix=(fix,),
    )
