"""The caller's sidecar has no virtual host for the name that was asked for.

Symptom
    The caller gets 404 with an empty body; its sidecar logs `NR route_not_found`, no upstream cluster and no route name.

Why it fails
    The request's Host header is in none of the virtual hosts of the port's route configuration, and nothing catches
    the rest. Istio's own tables end in `allow_any` or `block_all`; without it the name is misspelt and an EnvoyFilter
    took the last one away, or the request came to a gateway that serves other hosts.

How meshscope knows
    It looks the name up in the route configuration that the proxy holds, by Envoy's order (exact, suffix, prefix, `*`).
    Where the log is missing, `no_route` of the port's HTTP statistics rises, and the table has no `*`.

Fix
    Correct the name in the caller, or define a Service or ServiceEntry for it. If an EnvoyFilter removes the catch-all
    virtual host, remove that EnvoyFilter.

References
    Envoy: route matching, response flag NR; Istio: outboundTrafficPolicy.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.facts.symptoms import Symptom
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.routing import Case, Words, ended

RULE = Rule(
    code="MS-I051",
    cause="no-vhost",
    title="The caller's proxy knows no such host",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "config", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    filters = [found.ref for found in facts.objects.of("EnvoyFilter")]

    def say(case: Case) -> Words:
        fix = [
            Fix(
                "advice",
                f"correct the name that {case.caller} calls, or define a Service or ServiceEntry for {case.called}",
                "",
            )
        ]
        if filters:
            looked = "; ".join(
                f"kubectl get envoyfilter {ref.name} -n {ref.namespace} -o yaml" for ref in filters[:3]
            )
            fix.append(
                Fix("command", looked, "shows whether an EnvoyFilter takes the catch-all virtual host away")
            )
        return Words(
            title=f"{case.caller} calls {case.called}, a host that its proxy doesn't know",
            explanation=f"{case.decision}, so the proxy answers 404 by itself",
            fix=tuple(fix),
            ruled_out=(
                RuledOut("no-matching-route", "there is no virtual host whose routes could match"),
                RuledOut("registry-only", "a forbidden host gets 502 from block_all, not 404"),
            ),
        )

    yield from ended(RULE, facts, unknown_host, say)


def unknown_host(symptom: Symptom) -> bool:
    return symptom.has("NR")
