"""A proxy rejects a cluster that istiod sends it.

Symptom
    A DestinationRule or a new Service has no effect at one workload or at all; calls to a new host may get 503 `NC`.
    `istioctl proxy-status` shows CDS as ERROR or STALE.

Why it fails
    Envoy checks each cluster before it takes it. Values that don't go together (by an EnvoyFilter, or a DestinationRule
    that this Envoy can't take) make it refuse the cluster and go on with the old one, or without.

How meshscope knows
    The proxy's log says `config for …Cluster rejected`, istiod's `/debug/syncz` has the proxy's last error, or
    `cluster_manager.cds.update_rejected` rises. Refused clusters stand nowhere in the config dump. A refusal that was
    followed by an accepted update counts no more.

Fix
    Mend what the message names: the EnvoyFilter or DestinationRule behind the cluster.

References
    Istio: "Debugging Envoy and Istiod"; Envoy: xDS, configuration dump.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import Unknown
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.rejections import CLUSTERS, rejected

RULE = Rule(
    code="MS-I104",
    cause="cluster-rejected",
    title="A proxy rejects a cluster",
    severity="error",
    mesh="istio",
    inputs=("config", "sync", "log", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    yield from rejected(RULE, facts, CLUSTERS)
