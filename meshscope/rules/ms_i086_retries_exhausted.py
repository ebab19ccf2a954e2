"""All tries of a request failed: the retry policy has no try left.

Symptom
    The caller gets the last try's answer; its sidecar logs `URX` with `via_upstream`. The server's log shows the same
    request several times.

Why it fails
    The server fails each try in a way that the retry policy (`retryOn`) repeats. The retries multiply the load on a server
    that is failing already and add their time to every answer.

How meshscope knows
    `URX` in the client's log, or `upstream_rq_retry_limit_exceeded` rising; what the server answered is in `caused_by`.

Fix
    Mend what the server answers. More attempts help only against failures that pass by themselves.

References
    Istio: VirtualService HTTPRetry; Envoy: retry semantics.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import CausedBy, Fix, Unknown
from meshscope.rules.claims import LIKELY, Shown, claims, shown_by
from meshscope.rules.facts import EdgeFacts, Facts, symptom_evidence
from meshscope.rules.rule import Claim, Rule
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I086",
    cause="retries-exhausted",
    title="Every try failed, and no retry is left",
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
            client=lambda s: s.has("URX") and s.details == "via_upstream",
            server=lambda s: s.details == "via_upstream" and s.code >= 500,
            client_stats=("upstream_rq_retry_limit_exceeded",),
        )
        # Where another counter says why the tries failed (a refused handshake, say), that they are spent only follows.
        own = [s for s in shown.symptoms if s.from_log or s.id not in facts.consequences]
        if own and (shown.moved or any(s.has("URX") for s in own)):
            yield from _exhausted(edge, shown)


def _exhausted(edge: EdgeFacts, shown: Shown) -> Iterable[Claim]:
    route = edge.route_with(
        lambda action: action.retry_policy is not None and action.retry_policy.num_retries > 0
    )
    codes = sorted({s.code for s in shown.symptoms if s.code})
    answered = (
        f"the last answer was {', '.join(map(str, codes))}"
        if codes
        else "what the server answered isn't known"
    )
    made = CausedBy(
        "application-answer",
        f"{edge.edge.destination} answers {', '.join(map(str, codes)) or 'with errors'} to every try",
        tuple(symptom_evidence(s) for s in shown.symptoms if s.side == "server"),
    )
    # A breaker that stopped the retries, or connections that never came about, say more than that tries were spent.
    otherwise = edge.client_moved("upstream_rq_retry_overflow", "upstream_cx_connect_fail") or any(
        s.has("UO") for s in edge.symptoms
    )
    yield from claims(
        RULE,
        edge,
        shown,
        predicted=route.saying(f"num_retries {route.retries}") if route is not None else None,
        telling=True,
        stage=Stage.CLUSTER,
        subject=(route.owner if route is not None else None) or edge.server_subject,
        discriminator=edge.host,
        title=f"{edge.edge}: every try fails, {route.retries if route else 'all'} retries are spent",
        explanation=f"the retry policy repeated each failing request until no try was left; {answered}",
        caused_by=(made,),
        fix=(
            Fix(
                "advice",
                f"find out why {edge.edge.destination} fails; until then fewer attempts spare it the repeated load",
                "callers see failures sooner",
            ),
        ),
        at_most=LIKELY if otherwise else 1.0,
    )
