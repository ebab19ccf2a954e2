"""A proxy rejects a listener that istiod sends it.

Symptom
    Changes don't take effect at one workload or at all: new ports aren't served, policies of its inbound side stay as they
    were. Nothing fails at once, and `istioctl proxy-status` shows LDS as ERROR or STALE.

Why it fails
    Envoy checks each listener before it takes it. An EnvoyFilter that leaves a filter chain without its last filter, a
    filter that this Envoy doesn't know, two filter chains with the same match: it refuses the listener and goes on with
    the old one, until a push without the mistake comes.

How meshscope knows
    The proxy's config dump holds the refused listener with an error state, its log says `config for …Listener rejected`,
    istiod's `/debug/syncz` has the proxy's last error, or `listener_manager.lds.update_rejected` rises. A refusal that
    was followed by an accepted update counts no more.

Fix
    Mend what the message names: the EnvoyFilter, Telemetry or WasmPlugin that changes the listener, or an extension
    that the proxy's version lacks.

References
    Istio: "Debugging Envoy and Istiod"; Envoy: xDS, configuration dump.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import Unknown
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.rejections import LISTENERS, rejected

RULE = Rule(
    code="MS-I103",
    cause="listener-rejected",
    title="A proxy rejects a listener",
    severity="error",
    mesh="istio",
    inputs=("config", "sync", "log", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    yield from rejected(RULE, facts, LISTENERS)
