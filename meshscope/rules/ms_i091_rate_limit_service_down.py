"""The rate limit service doesn't answer, so requests are refused.

Symptom
    Requests get 500 with an empty body; the proxy that asks logs the flag `RLSE` with `rate_limiter_error`.

Why it fails
    An EnvoyFilter has the proxy ask a rate limit service about each request, with `failure_mode_deny: true`, and the
    service can't be asked: nothing listens, it has no endpoint, it takes longer than the filter's timeout (20 ms where
    none is set), or it is spoken to in HTTP/1 instead of gRPC. Without `failure_mode_deny` requests would pass uncounted.

How meshscope knows
    The proxy says so in its access log or by the counter `ratelimit.error`; failing connections to the service's cluster,
    or a cluster without usable endpoints, say why.

Fix
    Bring the service up, or correct the filter's cluster name. Without `failure_mode_deny` requests pass while it is down.

References
    Istio: "Enabling Rate Limits using Envoy"; Envoy: rate limit filter (failure_mode_deny).
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.istio.names import cluster_name, service_host
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import COUNTED, LIKELY, PREDICTED, claims
from meshscope.rules.facts import EdgeFacts, Facts, Predicted
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.refusals import (
    NO_BODY,
    Refused,
    blamed,
    edit,
    failing_calls,
    refused,
    with_asking,
)
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I091",
    cause="rate-limit-service-down",
    title="The rate limit service doesn't answer, so requests are refused",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        predicted = edge.predicted(RULE.cause)
        held = predicted or tuple(f for f in edge.passing("rate-limit-global") if f.hop.detail["fail_closed"])
        seen = refused(
            edge,
            refusal=lambda s: s.has("RLSE"),
            codes=(500,),
            stats=(("cluster", "ratelimit_error"),),
            bodies=NO_BODY,
        )
        if seen.told or (seen.shown and held):
            yield from _claimed(facts, edge, seen, held[0] if held else None, bool(predicted))


def _claimed(
    facts: Facts, edge: EdgeFacts, seen: Refused, held: Predicted | None, predicted: bool
) -> Iterable[Claim]:
    behind = held.hop.kubernetes if held is not None else None
    service = str(held.hop.detail["cluster"]) if held is not None else ""
    calls = failing_calls(edge, service)
    why = f": {calls[0].by:g} calls to it failed ({calls[0].stat})" if calls else ""
    if predicted and held is not None:
        why = f": {held.hop.decision}"
    shown = with_asking(facts, edge, seen.shown, service)
    yield from claims(
        RULE,
        edge,
        shown,
        predicted=held,
        stage=Stage.LIMITS,
        subject=blamed(edge, behind),
        title=f"{edge.edge}: the rate limit service doesn't answer, so the requests are refused",
        explanation=f"{behind or 'a rate limit filter'} has the proxy ask {service or 'a rate limit service'}, which doesn't "
        f"answer{why}; with failure_mode_deny that is a refusal",
        fix=_fixes(service, behind),
        ruled_out=(
            RuledOut("rate-limit-global", "the service gave no verdict: the question itself failed"),
            RuledOut("application-answer", "the proxy answered 500 itself; the application wasn't asked"),
        )
        if seen.told
        else (),
        at_most=_at_most(seen, held, predicted),
    )


def _at_most(seen: Refused, held: Predicted | None, predicted: bool) -> float:
    if seen.told or predicted:
        return seen.at_most(held)
    if seen.shown.moved:
        return COUNTED
    return PREDICTED if seen.body_fits else LIKELY


def _fixes(service: str, behind: ObjectRef | None) -> tuple[Fix, ...]:
    name = cluster_name(service)
    host = service_host(name.fqdn) if name is not None else None
    found: list[Fix] = []
    if host is not None:
        found.append(
            Fix(
                "command",
                f"kubectl get endpointslices -n {host.namespace} -l kubernetes.io/service-name={host.service}",
                "shows whether the service has a ready endpoint on the port that the filter names",
            )
        )
    if behind is not None:
        found.append(
            edit(behind, "without failure_mode_deny requests pass uncounted while the service is down")
        )
    return tuple(found) or (Fix("advice", "bring the rate limit service up, or drop failure_mode_deny", ""),)
