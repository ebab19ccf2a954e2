"""Every try of a request runs into the retry policy's per-try timeout.

Symptom
    The caller gets 504; its sidecar logs `UT` (with `URX` once the retries are spent) and `upstream_per_try_timeout`.
    The server's sidecar logs one `0 DC downstream_remote_disconnect` a try.

Why it fails
    `retries.perTryTimeout` of the VirtualService is shorter than the server needs, so each try is cut off and
    repeated: the server gets several times the load and no caller gets an answer.

How meshscope knows
    The client's log names `upstream_per_try_timeout`, or `upstream_rq_per_try_timeout` rises; the limit is read from the
    route that the client's proxy holds.

Fix
    Raise `perTryTimeout` (attempts × perTryTimeout must stay below the route's and the caller's timeout), or make the
    server faster.

References
    Istio: VirtualService HTTPRetry; Envoy: retry policy.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import Fix, Unknown
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import Shown, claims, shown_by
from meshscope.rules.facts import EdgeFacts, Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.time_limits import presumed
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I082",
    cause="per-try-timeout",
    title="Each try runs into the per-try timeout",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        shown = shown_by(
            edge,
            client=lambda s: "upstream_per_try_timeout" in s.details,
            client_stats=("upstream_rq_per_try_timeout",),
        )
        if shown:
            yield from _cut_off(edge, shown)
        else:
            yield from presumed(RULE, facts, edge, "per_try_timeout", _fix)


def _cut_off(edge: EdgeFacts, shown: Shown) -> Iterable[Claim]:
    route = edge.route_with(lambda action: bool(action.retry_policy and action.retry_policy.per_try_timeout))
    owner = route.owner if route is not None else None
    limit = route.per_try_timeout if route is not None else ""
    tries = f" and {route.retries} retries" if route is not None else ""
    held = (
        route.saying(f"per_try_timeout {limit}, num_retries {route.retries}") if route is not None else None
    )
    yield from claims(
        RULE,
        edge,
        shown,
        predicted=held,
        telling=True,
        stage=Stage.ROUTE,
        subject=owner or edge.server_subject,
        discriminator=edge.host,
        title=f"{edge.edge}: each try is cut off after {limit or 'the per-try timeout'}",
        explanation=f"{owner or 'the retry policy'} allows a try {limit or 'too little time'}{tries}; "
        f"{edge.edge.destination} needs longer, so every try fails and is repeated",
        fix=(_fix(owner, edge.host),),
    )


def _fix(owner: ObjectRef | None, host: str) -> Fix:
    effect = "each try may take longer; attempts × perTryTimeout must stay below the timeout"
    if owner is None:
        return Fix("advice", f"raise perTryTimeout for {host}", effect)
    return Fix(
        "command",
        f"kubectl edit {owner.kind.lower()} {owner.name} -n {owner.namespace}  # spec.http[].retries.perTryTimeout",
        effect,
    )
