"""The server's listener takes no more connections.

Symptom
    Some of the caller's connections are reset as soon as they are made: its sidecar logs `UF` with
    `Connection_reset_by_peer` (or `Broken_pipe`), or `UC` in plaintext. The server's sidecar logs nothing.

Why it fails
    A limit on the listener (`envoy.resource_limits.listener.NAME.connection_limit` in the runtime, or a connection limit
    filter) is reached: Envoy closes every further connection at once.

How meshscope knows
    `downstream_cx_overflow` of the server's listener rises, or the limit stands in the runtime or the filter chains that
    the server's sidecar holds while callers are reset, and nothing else in the two configurations resets them.

Fix
    Raise the limit, or spread the callers' connections over more pods.

References
    Envoy: connection limiting, `envoy.resource_limits.listener`; connection limit filter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from meshscope.facts.proxy import Proxy
from meshscope.facts.symptoms import Symptom
from meshscope.model.findings import Evidence, Fix, RuledOut, Unavailable, Unknown
from meshscope.rules.claims import COUNTED, LIKELY, SEEN
from meshscope.rules.facts import EdgeFacts, Facts, Moved
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.application import Met, offers_tls, tls_fails, told
from meshscope.sources.source import Part
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I074",
    cause="listener-connection-limit",
    title="The server's listener takes no more connections",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "config", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)

LIMIT_FILTER = "connection_limit.v3.ConnectionLimit"


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        limits = tuple(limit for proxy in edge.server_proxies for limit in _limits(facts, proxy))
        found = _seen(edge, bool(limits))
        if found is None:
            continue
        unread = found.confidence == LIKELY
        yield from told(
            RULE,
            edge,
            found,
            stage=Stage.FILTER_CHAIN,
            title=f"{edge.edge}: the server's listener takes no more connections",
            explanation=f"the listener of {edge.edge.destination} has as many connections as it may have, and closes each "
            "further one at once"
            + (
                "; what the server's sidecar counts wasn't read, so this is only one of the possible"
                if unread
                else ""
            ),
            evidence=limits[:3],
            fix=(
                Fix(
                    "advice",
                    f"raise the connection limit in the sidecar of {edge.edge.destination} (bootstrap override or "
                    "EnvoyFilter), or add replicas",
                    "the sidecar needs memory for each connection",
                ),
            ),
            ruled_out=()
            if unread
            else (
                RuledOut(
                    "client-mtls-server-disable", "the server's filter chains take what the caller offers"
                ),
                RuledOut("app-closes-connection", "the connection ends before any request"),
            ),
        )


def _seen(edge: EdgeFacts, limited: bool) -> Met | None:
    resets = tuple(s for s in edge.on("client") if s.from_log and _reset(s, tls=offers_tls(edge)))
    overflow = _overflow(edge)
    if overflow:
        if resets:
            return Met(resets, overflow, SEEN)
        if edge.client_seen:
            return None
        counted = tuple(
            s for s in edge.on("client") if s.stat is not None and s.stat[2] in {*FAILED, "upstream_rq_5xx"}
        )
        if counted or (not edge.client_proxies and not edge.server_counts(*OVERFLOW[:1])):
            return Met(counted, overflow, COUNTED)
        return Met((), overflow, COUNTED) if not edge.client_proxies else None
    if not resets or tls_fails(edge) or edge.server_counts(*OVERFLOW[:1]):
        return None
    if limited:
        return Met(resets, (), COUNTED)
    unread = not any(not isinstance(proxy.config, Unavailable) for proxy in edge.server_proxies)
    return Met(resets, (), LIKELY) if unread and edge.successes() > 0 else None


FAILED = ("upstream_cx_connect_fail", "upstream_rq_503", "upstream_rq_retry_limit_exceeded")
OVERFLOW = (("listener", "downstream_cx_overflow"), ("connection_limit", "limited_connections"))


def _overflow(edge: EdgeFacts) -> tuple[Moved, ...]:
    return tuple(m for scope, stat in OVERFLOW for m in edge.server_moved(scope, stat))


def _reset(symptom: Symptom, *, tls: bool) -> bool:
    text = f"{symptom.details} {symptom.failure_reason}".replace(" ", "_").lower()
    if symptom.has("UF"):
        return "connection_reset_by_peer" in text or "broken_pipe" in text
    return not tls and symptom.has("UC") and "before_response_started" in text


def _limits(facts: Facts, proxy: Proxy) -> Iterator[Evidence]:
    config = facts.config(proxy)
    if config is None:
        return
    for layer in (config.bootstrap.layered_runtime or {}).get("layers") or ():
        for key, value in _flat(layer.get("static_layer") or {}):
            if key.startswith("envoy.resource_limits.listener.") and key.endswith(".connection_limit"):
                where = f"{proxy.path(Part.CONFIG_DUMP)}: bootstrap / layered_runtime"
                yield Evidence(f"proxy {proxy.id}", where, f"{key}: {value}")
    for listener in config.listeners:
        for chain in listener.filter_chains:
            for found in chain.filters:
                if found.type_url.endswith(LIMIT_FILTER):
                    limit = found.decode(dict[str, Any]).get("max_connections")
                    where = f"{proxy.path(Part.CONFIG_DUMP)}: listener {listener.name} / {found.name}"
                    yield Evidence(f"proxy {proxy.id}", where, f"max_connections: {limit}")


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A runtime layer's keys, which may be nested or dotted."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
