"""A request lasts longer than the longest duration that a proxy allows a stream.

Symptom
    504, or a stream cut off after always the same time; the log says `max_duration_timeout` (the connection manager's or
    route's limit) or `upstream_max_stream_duration_reached` (the cluster's).

Why it fails
    `max_stream_duration` limits the whole life of a stream, bytes moving or not: downloads, watches and gRPC streams that
    live longer are ended.

How meshscope knows
    The proxy that ended the stream says so in its log, or its `…max_duration_reached` counters rise.

Fix
    Raise or remove `max_stream_duration` for routes with long streams.

References
    Envoy: how to configure timeouts (max_stream_duration).
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.envoy.config_dump import RouteAction, seconds
from meshscope.model.findings import Fix, Unknown
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import Shown, claims, shown_by
from meshscope.rules.facts import EdgeFacts, Facts, RouteFound
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.time_limits import owner_of, presumed
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I084",
    cause="max-stream-duration",
    title="A stream is ended because it lasted too long",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)

DETAILS = frozenset({"max_duration_timeout", "upstream_max_stream_duration_reached"})


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        shown = shown_by(
            edge,
            client=lambda s: s.details in DETAILS,
            server=lambda s: s.details in DETAILS,
            client_stats=("upstream_rq_max_duration_reached",),
            client_http_stats=("downstream_rq_max_duration_reached",),
            server_stats=(("http", "downstream_rq_max_duration_reached"),),
        )
        route = edge.route_with(_limited)
        if shown or (shown.hints and route is not None and edge.client_log_missing):
            yield from _ended(facts, edge, shown, route)
        else:
            yield from presumed(RULE, facts, edge, "max_stream_duration", _fix)


def _limited(action: RouteAction) -> bool:
    limit = action.max_stream_duration
    return limit is not None and bool(seconds(limit.max_stream_duration))


def _ended(facts: Facts, edge: EdgeFacts, shown: Shown, route: RouteFound | None) -> Iterable[Claim]:
    limit = route.max_stream_duration if route is not None else ""
    owner = owner_of(facts, edge, "max_stream_duration", limit)
    yield from claims(
        RULE,
        edge,
        shown,
        predicted=route.saying(f"max_stream_duration {limit}") if route is not None else None,
        telling=True,
        stage=Stage.ROUTE,
        subject=owner or edge.server_subject,
        discriminator=edge.host,
        title=f"{edge.edge}: streams are ended after {limit or 'their longest duration'}",
        explanation=f"the stream lasted longer than {limit or 'max_stream_duration'}{f' ({owner})' if owner else ''} "
        "allows, so the proxy ended it",
        fix=(_fix(owner, edge.host),),
    )


def _fix(owner: ObjectRef | None, host: str) -> Fix:
    effect = "streams may live longer"
    if owner is None:
        return Fix(
            "advice",
            f"raise or remove max_stream_duration for {host} where it is set (an EnvoyFilter on the route, the connection "
            "manager or the cluster)",
            effect,
        )
    return Fix(
        "command",
        f"kubectl edit {owner.kind.lower()} {owner.name} -n {owner.namespace}  # raise or remove max_stream_duration",
        effect,
    )
