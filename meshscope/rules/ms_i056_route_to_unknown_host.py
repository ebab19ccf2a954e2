"""A route sends requests to a host for which the caller's proxy has no cluster.

Symptom
    All requests, or the share of the route's weight, get 503 with an empty body; the caller's sidecar logs
    `NC cluster_not_found`.

Why it fails
    The `destination.host` of a VirtualService is no Service or ServiceEntry: it is misspelt, was deleted, is in another
    namespace (short names belong to the VirtualService's own), or has no such port.

How meshscope knows
    The route in the caller's proxy leads to `outbound|PORT||HOST`, and the proxy has no such cluster, nor another of this
    host and port. Where the log is missing, `no_cluster` rises.

Fix
    Correct `destination.host` (and port) in the VirtualService, or create the Service.

References
    Istio: VirtualService Destination; Envoy: response flag NC.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.facts.symptoms import Symptom
from meshscope.istio.kubernetes import service_port
from meshscope.istio.names import cluster_name
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.routing import Case, Words, ended, unread_callers

RULE = Rule(
    code="MS-I056",
    cause="route-to-unknown-host",
    title="A route leads to a host that doesn't exist",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "config", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
    also_known_as=("IST0101", "KIA1101"),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    objects = facts.objects

    def say(case: Case) -> Words:
        name = cluster_name(case.cluster)
        host, port = (name.fqdn, name.port) if name is not None else (case.called, 0)
        service = objects.service_of_host(host)
        why = f"no Service or ServiceEntry is called {host}"
        if service is not None:
            known = service_port(service, port) is not None
            why = f"the proxy doesn't hear of {service.ref}" if known else f"{service.ref} has no port {port}"
        fix = Fix("advice", f"correct the route to {host}:{port}, or create that Service", "")
        if case.owner is not None:
            command = f"kubectl edit virtualservice {case.owner.name} -n {case.owner.namespace}"
            fix = Fix(
                "command", command, f"correct destination.host {host} (port {port}), or create that Service"
            )
        return Words(
            title=f"{case.caller} → {case.called}: its route leads to {host}:{port}, which isn't there",
            explanation=f"{case.owner or 'a route'} sends requests for {case.called} to {host}:{port}; {why}, "
            "so the caller's proxy has no such cluster",
            fix=(fix,),
            ruled_out=(RuledOut("subset-not-defined", f"the proxy has no cluster at all for {host}:{port}"),),
        )

    yield from ended(RULE, facts, no_cluster, say)
    yield from unread_callers(RULE, facts, say)


def no_cluster(symptom: Symptom) -> bool:
    return symptom.has("NC")
