"""The server's sidecar sheds load to protect itself.

Symptom
    The caller gets 503 `via_upstream` with the body `envoy overloaded`; the server's sidecar logs `503 - overload`
    without an upstream host. With a limit on connections the caller's connections are reset.

Why it fails
    Envoy's overload manager watches a resource (heap, connections) and, above its threshold, refuses requests or
    connections. The sidecar has too little memory or takes more connections than it is allowed.

How meshscope knows
    The server's sidecar says `overload` in its log, or its counters of refused requests or connections rise; gauges of
    the overload manager show the action in force and the resource's pressure.

Fix
    Give the sidecar more memory (`sidecar.istio.io/proxyMemoryLimit`), raise the threshold, or spread the load over more
    pods.

References
    Envoy: overload manager; Istio: sidecar resource annotations.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.envoy.local_replies import OVERLOADED
from meshscope.facts.proxy import Proxy
from meshscope.facts.symptoms import Symptom
from meshscope.model.findings import Evidence, Fix, RuledOut, Unavailable, Unknown
from meshscope.rules.claims import COUNTED
from meshscope.rules.facts import EdgeFacts, Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.application import Met, met, told
from meshscope.sources.source import Part
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I075",
    cause="overload-manager",
    title="The server's sidecar sheds load to protect itself",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "config", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)

REFUSED_REQUESTS = (("http", "downstream_rq_overload_close"),)
REFUSED_CONNECTIONS = (
    ("listener", "downstream_global_cx_overflow"),
    ("listener", "downstream_cx_overload_reject"),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        found = _seen(edge)
        if found is None:
            continue
        states = tuple(state for proxy in edge.server_proxies for state in _state(facts, proxy))
        yield from told(
            RULE,
            edge,
            found,
            stage=Stage.FILTER_CHAIN,
            title=f"{edge.edge}: the server's sidecar refuses requests because it is overloaded",
            explanation=f"the overload manager of the sidecar of {edge.edge.destination} refuses what comes in; the "
            "application never sees it",
            evidence=states[:4],
            fix=(
                Fix(
                    "advice",
                    f"raise the memory limit of the sidecar of {edge.edge.destination} (pod annotation "
                    "sidecar.istio.io/proxyMemoryLimit), or the threshold of its overload manager, or add replicas",
                    "a new annotation restarts the pods",
                ),
            ),
            ruled_out=(RuledOut("application-answer", "the application was never asked"),),
        )


def _seen(edge: EdgeFacts) -> Met | None:
    found = met(edge, lines=_shed, counters=(), bodies=frozenset({len(OVERLOADED)}))
    if found is not None:
        return found
    moved = tuple(m for scope, stat in REFUSED_CONNECTIONS for m in edge.server_moved(scope, stat))
    resets = tuple(s for s in edge.on("client") if s.from_log and (s.has("UF") or s.has("UC")))
    if moved and (resets or not edge.client_seen):
        return Met(resets, moved, COUNTED)
    if edge.server_seen:
        return None
    moved = tuple(m for scope, stat in REFUSED_REQUESTS for m in edge.server_moved(scope, stat))
    if not moved:
        return None
    counted = tuple(s for s in edge.on("client") if _counted(s))
    return Met(counted, moved, COUNTED) if counted or not edge.client_seen else None


def _shed(symptom: Symptom) -> bool:
    return symptom.details.startswith("overload") or symptom.has("OM")


def _counted(symptom: Symptom) -> bool:
    if symptom.stat is not None:
        return symptom.stat[2] in {"upstream_rq_5xx", "upstream_rq_503"}
    return symptom.code == 503 and symptom.details == "via_upstream"


def _state(facts: Facts, proxy: Proxy) -> Iterable[Evidence]:
    """The gauges that are up, and the resource monitors with their thresholds."""
    config = facts.config(proxy)
    if not isinstance(proxy.stats, Unavailable):
        facts.note("counters")
        for stat, value in sorted(proxy.stats.scope("overload").items()):
            if value and stat.endswith(("_active", "_pressure")):
                yield Evidence(f"proxy {proxy.id}", proxy.path(Part.METRICS), f"overload.{stat} {value:g}")
    manager = (config.bootstrap.overload_manager or {}) if config is not None else {}
    for action in manager.get("actions") or ():
        triggers = ", ".join(str(trigger.get("name")) for trigger in action.get("triggers") or ())
        yield Evidence(
            f"proxy {proxy.id}",
            f"{proxy.path(Part.CONFIG_DUMP)}: bootstrap / overload_manager",
            f"{action.get('name')} by {triggers}",
        )
