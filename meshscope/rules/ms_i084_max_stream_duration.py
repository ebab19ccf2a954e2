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
from meshscope.rules.claims import Shown, claims, shown_by
from meshscope.rules.facts import EdgeFacts, Facts
from meshscope.rules.rule import Claim, Rule
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
        if shown:
            yield from _ended(edge, shown)


def _limited(action: RouteAction) -> bool:
    limit = action.max_stream_duration
    return limit is not None and bool(seconds(limit.max_stream_duration))


def _ended(edge: EdgeFacts, shown: Shown) -> Iterable[Claim]:
    route = edge.route_with(_limited)
    limit = route.max_stream_duration if route is not None else ""
    yield from claims(
        RULE,
        edge,
        shown,
        stage=Stage.ROUTE,
        subject=(route.owner if route is not None else None) or edge.server_subject,
        discriminator=edge.host,
        title=f"{edge.edge}: streams are ended after {limit or 'their longest duration'}",
        explanation=f"the stream lasted longer than {limit or 'max_stream_duration'} allows, so the proxy ended it",
        fix=(
            Fix(
                "advice",
                "raise or remove max_stream_duration where it is set (an EnvoyFilter on the route, the connection "
                "manager or the cluster)",
                "streams may live longer",
            ),
        ),
    )
