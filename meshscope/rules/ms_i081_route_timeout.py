"""A route's timeout runs out before the server answers.

Symptom
    The caller gets 504 `upstream request timeout`; its sidecar logs `UT` with `response_timeout`, always after the same
    time. The server's sidecar logs `0 DC downstream_remote_disconnect`: its peer hung up.

Why it fails
    The VirtualService sets `timeout` for the route (all tries together), and the server needs longer.

How meshscope knows
    The client's log says `response_timeout`, or `upstream_rq_timeout` of its cluster rises; the timeout is read from the
    route that the client's proxy really holds. Where that proxy couldn't be read, the server's connections that end after
    just the time that a VirtualService sets make it likely.

Fix
    Find out why the server is slow, or raise the timeout. A timeout longer than the caller's own only moves the failure.

References
    Istio: VirtualService HTTPRoute.timeout; Envoy: route timeout, response flags.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.envoy.config_dump import seconds
from meshscope.model.findings import Fix, Unknown
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import Shown, claims, shown_by
from meshscope.rules.facts import EdgeFacts, Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.time_limits import presumed
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I081",
    cause="route-timeout",
    title="The route's timeout runs out before the server answers",
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
            client=lambda s: s.has("UT") and s.details == "response_timeout",
            client_stats=("upstream_rq_timeout",),
        )
        if shown:
            yield from _timed_out(edge, shown)
        else:
            yield from presumed(RULE, facts, edge, "timeout", _fix)


def _timed_out(edge: EdgeFacts, shown: Shown) -> Iterable[Claim]:
    route = edge.route_with(lambda action: seconds(action.timeout) not in (None, 0.0))
    timeout = route.timeout if route is not None else ""
    owner = route.owner if route is not None else None
    limit = f"{timeout} ({owner})" if owner else timeout or "the route's timeout (Envoy's default is 15 s)"
    yield from claims(
        RULE,
        edge,
        shown,
        predicted=route.saying(f"timeout {timeout}") if route is not None else None,
        telling=True,
        stage=Stage.ROUTE,
        subject=owner or edge.server_subject,
        discriminator=edge.host,
        title=f"{edge.edge} times out after {timeout or 'the route timeout'}",
        explanation=f"{edge.edge.destination} doesn't answer within {limit}, so the caller's proxy gives up with 504",
        fix=(_fix(owner, edge.host),),
    )


def _fix(owner: ObjectRef | None, host: str) -> Fix:
    effect = "callers wait longer; see to it that their own timeouts are longer still"
    if owner is None:
        return Fix(
            "advice",
            f"make {host} answer sooner, or set a longer `timeout` for its route in a VirtualService",
            effect,
        )
    return Fix(
        "command", f"kubectl edit {owner.kind.lower()} {owner.name} -n {owner.namespace}  # timeout", effect
    )
