"""The host is known to the caller's sidecar, and none of its routes takes this request.

Symptom
    The caller gets 404 with an empty body for some paths, methods or headers; its sidecar logs `NR route_not_found` and no
    upstream cluster. Other requests to the same host work.

Why it fails
    A VirtualService lists what it routes (`match` with paths, headers, methods), and the request is none of that. A
    VirtualService replaces the host's default route: what it doesn't match has nowhere to go.

How meshscope knows
    It evaluates the routes that the proxy holds on the logged request by Envoy's rules. Where the log is missing,
    `no_route` rises and this is the only host whose routes leave something out.

Fix
    Add a last route without `match` to the VirtualService, or a match for this request.

References
    Istio: VirtualService HTTPMatchRequest; Envoy: route matching, response flag NR.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.facts.symptoms import Symptom
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.routing import Case, Words, ended

RULE = Rule(
    code="MS-I052",
    cause="no-matching-route",
    title="No route of the host matches the request",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "config"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    yield from ended(RULE, facts, unmatched, say)


def unmatched(symptom: Symptom) -> bool:
    return symptom.has("NR") and symptom.details == "route_not_found"


def say(case: Case) -> Words:
    behind = case.owner or "the host's route table"
    fix = Fix(
        "advice", f"give {case.called} a route that takes every request", "what is not matched now reaches it"
    )
    if case.owner is not None:
        added = f'[{{"op":"add","path":"/spec/http/-","value":{{"route":[{{"destination":{{"host":"{case.host}"}}}}]}}}}]'
        fix = Fix(
            "command",
            f"kubectl patch virtualservice {case.owner.name} -n {case.owner.namespace} --type json -p '{added}'",
            "every request that no earlier route matches goes to the host itself: check that it is meant to",
        )
    return Words(
        title=f"{case.caller} → {case.called}: no route matches the request",
        explanation=f"{behind} routes some requests to {case.called} and has no route for the others, "
        "so the caller's proxy answers them 404 by itself",
        fix=(fix,),
        ruled_out=(
            RuledOut("no-vhost", "the proxy has a virtual host for this name"),
            RuledOut("application-answer", "the 404 is the caller's own proxy's: no server was asked"),
        ),
    )
