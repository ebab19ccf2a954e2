"""A stream is reset because nothing was sent on it for too long.

Symptom
    504 `stream timeout` (or a response cut off in the middle); the log says `SI` with `stream_idle_timeout`.

Why it fails
    A stream idle timeout (from a route's `idle_timeout` or the connection manager, usually set by an EnvoyFilter) ends
    streams on which no byte moves in either direction: long polling, server-sent events and slow streams run into it.

How meshscope knows
    The proxy that ended the stream says so in its log, or its `downstream_rq_idle_timeout` rises.

Fix
    Raise the timeout, or let the application send heartbeats.

References
    Envoy: how to configure timeouts (stream_idle_timeout, route idle_timeout).
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.envoy.config_dump import seconds
from meshscope.model.findings import Fix, Unknown
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import Shown, claims, shown_by
from meshscope.rules.facts import EdgeFacts, Facts, RouteFound
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.time_limits import owner_of, presumed
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I083",
    cause="stream-idle-timeout",
    title="A stream is ended because nothing moved on it",
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
            client=lambda s: s.has("SI") or s.details == "stream_idle_timeout",
            server=lambda s: s.has("SI") or s.details == "stream_idle_timeout",
            server_stats=(("http", "downstream_rq_idle_timeout"),),
            client_http_stats=("downstream_rq_idle_timeout",),
        )
        route = edge.route_with(lambda action: seconds(action.idle_timeout) not in (None, 0.0))
        if shown or (shown.hints and route is not None and edge.client_log_missing):
            yield from _ended(facts, edge, shown, route)
        else:
            yield from presumed(RULE, facts, edge, "idle_timeout", _fix)


def _ended(facts: Facts, edge: EdgeFacts, shown: Shown, route: RouteFound | None) -> Iterable[Claim]:
    limit = route.idle_timeout if route is not None else ""
    owner = owner_of(facts, edge, "idle_timeout", limit)
    yield from claims(
        RULE,
        edge,
        shown,
        predicted=route.saying(f"idle_timeout {limit}") if route is not None else None,
        telling=True,
        stage=Stage.ROUTE,
        subject=owner or edge.server_subject,
        discriminator=edge.host,
        title=f"{edge.edge}: streams are ended as idle{f' after {limit}' if limit else ''}",
        explanation=f"nothing moved on the stream for {limit or 'the idle timeout'}{f' ({owner})' if owner else ''}, so the proxy "
        "ended it (504, or an answer cut off in the middle)",
        fix=(_fix(owner, edge.host),),
    )


def _fix(owner: ObjectRef | None, host: str) -> Fix:
    effect = "idle streams hold their connection longer"
    if owner is None:
        return Fix(
            "advice",
            f"raise the stream idle timeout for {host} where it is set (an EnvoyFilter on the route's idle_timeout or the "
            "connection manager's stream_idle_timeout), or send heartbeats",
            effect,
        )
    return Fix(
        "command",
        f"kubectl edit {owner.kind.lower()} {owner.name} -n {owner.namespace}  # idle_timeout, or let {host} send heartbeats",
        effect,
    )
