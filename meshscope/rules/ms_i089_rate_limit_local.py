"""The proxy's own rate limit refuses requests.

Symptom
    Some requests get 429 with the body `local_rate_limited`; the proxy that limits (mostly the server's sidecar) logs the
    flag `RL` with `local_rate_limited`, a sidecar before it `429 via_upstream`.

Why it fails
    An EnvoyFilter gives the proxy a token bucket; each request takes a token, and without one it is refused. The bucket is
    each proxy's own: with more pods more gets through, and all callers of a pod share it.

How meshscope knows
    The proxy says so in its access log, or its counter `http_local_rate_limit.rate_limited` rises, and it holds the filter.

Fix
    Raise `max_tokens` and `tokens_per_fill`, add pods, or have the callers send less and retry later.

References
    Istio: "Enabling Rate Limits using Envoy"; Envoy: local rate limit filter.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.rules.claims import COUNTED, LIKELY, claims
from meshscope.rules.facts import EdgeFacts, Facts, Predicted
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.refusals import INTENDED, LOCAL_LIMIT_BODY, Refused, blamed, edit, refused
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I089",
    cause="rate-limit-local",
    title="The proxy's own rate limit refuses requests",
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
            refusal=lambda s: s.has("RL") and s.details == "local_rate_limited",
            codes=(429,),
            stats=(),
            moved=edge.server_moved_ending("http", "http_local_rate_limit_rate_limited"),
            bodies=LOCAL_LIMIT_BODY,
        )
        if seen.told or (seen.shown and held):
            yield from _claimed(edge, seen, held[0] if held else None)


def _claimed(edge: EdgeFacts, seen: Refused, held: Predicted | None) -> Iterable[Claim]:
    behind = held.hop.kubernetes if held is not None else None
    limit = held.hop.detail["limit"] if held is not None else ""
    fix = Fix(
        "advice", "raise the token bucket of the local rate limit filter, or send less", "more requests pass"
    )
    if behind is not None:
        fix = edit(
            behind, "raise token_bucket.max_tokens and tokens_per_fill: the server gets more requests at once"
        )
    yield from claims(
        RULE,
        edge,
        seen.shown,
        predicted=held,
        stage=Stage.LIMITS,
        subject=blamed(edge, behind),
        title=f"{edge.edge}: the proxy's own rate limit refuses requests ({limit or 'its size is not known'})",
        explanation=f"{behind or 'a local rate limit filter'} lets each pod take {limit or 'a limited rate'}; "
        "what comes on top is refused with 429",
        fix=(fix,),
        ruled_out=(
            RuledOut("rate-limit-global", "the proxy decided by its own bucket; no service was asked"),
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
