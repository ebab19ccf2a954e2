"""The circuit breaker's limit on retries overflows.

Symptom
    The caller gets the server's error; its sidecar logs `UO` with `via_upstream`: the failure came from the server, and
    the retry that the policy asks for wasn't made.

Why it fails
    A DestinationRule limits how many retries may be under way at once (`maxRetries`). While the server fails, many requests
    want a retry; those beyond the limit get the first failure.

How meshscope knows
    `upstream_rq_retry_overflow` of the client's cluster rises, or its log shows `UO` with `via_upstream`; what the server
    answered is in `caused_by`.

Fix
    Mend what the server answers first. Raise `maxRetries` only if retries really help: they multiply the load on a server
    that is failing already.

References
    Istio: DestinationRule ConnectionPoolSettings; Envoy: circuit breaking.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.istio.names import metadata_object
from meshscope.model.findings import CausedBy, Fix, Unknown
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import claims, shown_by
from meshscope.rules.facts import EdgeFacts, Facts, symptom_evidence
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.destination_rules import patched
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I043",
    cause="max-retries",
    title="Retries are refused because too many are under way",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "counters", "config", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        for name in edge.clusters:
            yield from _overflowing(edge, name)


def _overflowing(edge: EdgeFacts, name: str) -> Iterable[Claim]:
    shown = shown_by(
        edge,
        client=lambda s: s.cluster == name and s.details == "via_upstream" and (s.has("UO") or s.has("URX")),
        server=lambda s: s.details == "via_upstream" and s.code >= 500,
        client_stats=("upstream_rq_retry_overflow",),
        cluster=name,
    )
    if not shown.moved and not any(s.has("UO") for s in shown.symptoms):
        return
    cluster = edge.client_cluster(name)
    rule = metadata_object(cluster.metadata.istio()) if cluster is not None else None
    most = cluster.thresholds().max_retries if cluster is not None else None
    limit = "a limited number of retries" if most is None else f"{most} retr{'ies' if most != 1 else 'y'}"
    codes = ", ".join(str(code) for code in sorted({s.code for s in shown.symptoms if s.code})) or "errors"
    answered = CausedBy(
        "application-answer",
        f"{edge.edge.destination} answers {codes}, which is what is to be retried",
        tuple(symptom_evidence(s) for s in shown.symptoms if s.side == "server")[:2],
    )
    yield from claims(
        RULE,
        edge,
        shown,
        held=edge.holding(name, f"max_retries {most}"),
        telling=True,
        stage=Stage.CLUSTER,
        subject=rule or edge.server_subject,
        discriminator=name,
        title=f"{edge.edge}: the circuit breaker refuses retries",
        explanation=f"{rule or 'the cluster'} allows {limit} at once to {name}; requests beyond get the first failure as it is",
        caused_by=(answered,),
        fix=(_fix(rule, edge.host),),
    )


def _fix(rule: ObjectRef | None, host: str) -> Fix:
    effect = "a failing server gets more repeated load: mend what it answers first"
    pool = '{"connectionPool":{"http":{"maxRetries":1024}}}'
    return patched(rule, pool, f"raise the limit of retries for {host}", effect)
