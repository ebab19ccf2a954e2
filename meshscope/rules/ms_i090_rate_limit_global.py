"""The rate limit service refuses requests.

Symptom
    Requests get 429 with an empty body and `x-envoy-ratelimited`; the proxy that asks (mostly a gateway or the server's
    sidecar) logs the flag `RL` with `request_rate_limited`, a sidecar before it `429 via_upstream`.

Why it fails
    An EnvoyFilter has the proxy ask a rate limit service about each request, described by its actions (path, header,
    address …), and the service answered that the limit for such requests is used up. The limit is one for all proxies.

How meshscope knows
    The proxy says so in its access log, or its counter `ratelimit.over_limit` rises, and it holds the filter.

Fix
    Raise the limit in the rate limit service's own configuration, or have the callers send less and retry later.

References
    Istio: "Enabling Rate Limits using Envoy"; Envoy: rate limit filter, rate limit service.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.rules.claims import COUNTED, LIKELY, claims
from meshscope.rules.facts import EdgeFacts, Facts, Predicted
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.refusals import INTENDED, NO_BODY, Refused, blamed, edit, refused
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I090",
    cause="rate-limit-global",
    title="The rate limit service refuses requests",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        held = edge.passing(RULE.cause)
        seen = refused(
            edge,
            refusal=lambda s: s.has("RL") and s.details == "request_rate_limited",
            codes=(429,),
            stats=(("cluster", "ratelimit_over_limit"),),
            bodies=NO_BODY,
        )
        if seen.told or (seen.shown and held):
            yield from _claimed(edge, seen, held[0] if held else None)


def _claimed(edge: EdgeFacts, seen: Refused, held: Predicted | None) -> Iterable[Claim]:
    behind = held.hop.kubernetes if held is not None else None
    service = held.hop.detail["cluster"] if held is not None else "the rate limit service"
    limit = held.hop.detail["limit"] if held is not None else ""
    fixes = [
        Fix(
            "advice",
            f"raise the limit for these requests in the configuration of {service} ({limit or 'its domain'})",
            "the limit is one for all proxies that ask with the same descriptors",
        )
    ]
    if behind is not None:
        fixes.append(
            edit(behind, "its actions decide which requests count together, and which aren't asked about")
        )
    yield from claims(
        RULE,
        edge,
        seen.shown,
        predicted=held,
        stage=Stage.LIMITS,
        subject=blamed(edge, behind),
        title=f"{edge.edge}: the rate limit service refuses requests",
        explanation=f"{behind or 'a rate limit filter'} has the proxy ask {service} ({limit or 'its domain'}), which "
        "answered that the limit is used up",
        fix=tuple(fixes),
        ruled_out=(
            RuledOut("rate-limit-local", "the service decided, not a bucket of the proxy's own"),
            RuledOut("rate-limit-service-down", "the service answered"),
        )
        if seen.told
        else (),
        at_most=_at_most(seen, held),
    )


def _at_most(seen: Refused, held: Predicted | None) -> float:
    if seen.told:
        return seen.at_most(held)
    if seen.shown.moved:
        return COUNTED
    return INTENDED if seen.body_fits else LIKELY
