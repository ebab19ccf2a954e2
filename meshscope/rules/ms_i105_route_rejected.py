"""A proxy rejects a route configuration that istiod sends it.

Symptom
    VirtualServices have no effect at one workload or at all, for every host of that port. `istioctl proxy-status` shows
    RDS as ERROR or STALE.

Why it fails
    All virtual hosts of a port are one route configuration. Two with the same domain, or a route that Envoy can't take
    (usually by an EnvoyFilter, or two VirtualServices for one host in different spellings), make it refuse all of it and
    go on with the old one.

How meshscope knows
    The proxy's log says `config for …RouteConfiguration rejected`, istiod's `/debug/syncz` has the proxy's last error, or
    `http.*.rds.*.update_rejected` rises. A refusal that was followed by an accepted update counts no more.

Fix
    Mend what the message names: the EnvoyFilter or VirtualService that defines the domain or the route a second time.

References
    Istio: "Debugging Envoy and Istiod"; Envoy: xDS, configuration dump.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import Unknown
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.rejections import ROUTES, rejected

RULE = Rule(
    code="MS-I105",
    cause="route-rejected",
    title="A proxy rejects a route configuration",
    severity="error",
    mesh="istio",
    inputs=("config", "sync", "log", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    yield from rejected(RULE, facts, ROUTES)
