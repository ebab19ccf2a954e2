"""A route sends requests to a subset that no DestinationRule in force defines.

Symptom
    All requests, or the share that the route's weight gives to the subset, get 503 with an empty body; the caller's sidecar
    logs `NC cluster_not_found`.

Why it fails
    A VirtualService names `subset: X` of a host. Without a DestinationRule that defines X there is no such cluster: the
    rule is missing, spells the subset or the host otherwise, or isn't exported to the caller's namespace.

How meshscope knows
    The route in the caller's proxy leads to `outbound|PORT|SUBSET|HOST`; the proxy has clusters for this host and
    port, that one not. Where the log is missing, `no_cluster` rises.

Fix
    Define the subset in the DestinationRule of the host, or route to one that exists.

References
    Istio: DestinationRule Subset, VirtualService Destination; Envoy: response flag NC.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.facts.symptoms import Symptom
from meshscope.istio.names import cluster_name
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.routing import Case, Words, ended, unread_callers

RULE = Rule(
    code="MS-I055",
    cause="subset-not-defined",
    title="A route names a subset that no DestinationRule defines",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "config", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
    also_known_as=("IST0101", "KIA1107"),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    yield from ended(RULE, facts, no_cluster, say)
    yield from unread_callers(RULE, facts, say)


def no_cluster(symptom: Symptom) -> bool:
    return symptom.has("NC")


def say(case: Case) -> Words:
    name = cluster_name(case.cluster)
    subset, host = (name.subset, name.fqdn) if name is not None else ("a subset", case.called)
    fixes = [
        Fix(
            "patch",
            f"""# in the DestinationRule of {host}
spec:
  host: {host}
  subsets:
  - name: {subset}
    labels: {{version: {subset}}}
""",
            "requests for the subset go to the pods with these labels: use those that its pods carry",
        )
    ]
    if case.owner is not None:
        command = f"kubectl edit virtualservice {case.owner.name} -n {case.owner.namespace}"
        fixes.append(Fix("command", command, f"to take the route to subset {subset} out instead"))
    return Words(
        title=f"{case.caller} → {host}: the subset {subset} isn't defined",
        explanation=f"{case.owner or 'a route'} sends requests to the subset {subset} of {host}, "
        "which no DestinationRule that the caller hears of defines: its proxy has no such cluster",
        fix=tuple(fixes),
        ruled_out=(RuledOut("route-to-unknown-host", f"the proxy has other clusters for {host}"),),
    )
