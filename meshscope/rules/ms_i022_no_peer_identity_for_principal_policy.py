"""A policy asks for the caller's identity, and the connection has none.

Symptom
    The caller gets 403 `RBAC: access denied`; the server's sidecar logs `rbac_access_denied_matched_policy[none]`, and
    no requested server name: the connection came in plaintext.

Why it fails
    `principals`, `namespaces` and `serviceAccounts` are matched against the caller's mTLS certificate. A caller without
    sidecar, a DestinationRule with TLS mode DISABLE or SIMPLE, or a port that bypasses the sidecar leaves the connection
    without a certificate. PERMISSIVE lets the connection in, and the policy then matches nobody. This is a fault of the
    connection: editing the policy's list of callers doesn't help.

How meshscope knows
    Every ALLOW rule that comes into question wants a principal, the connection has none (no mTLS by the caller's
    configuration, or no server name in the server's log), and the server refuses because no policy matched.

Fix
    Give the caller a sidecar, or remove what makes it send plaintext. Where the caller can't have one, allow it by
    something that plaintext has, such as `ipBlocks`, and know that addresses prove little.

References
    Istio: AuthorizationPolicy (Source), "Mutual TLS Migration", PeerAuthentication.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.facts.edges import short_host
from meshscope.facts.proxy import Proxy
from meshscope.facts.symptoms import Symptom
from meshscope.istio.names import policy_rule, stat_prefix
from meshscope.model.findings import Edge, Fix, RuledOut, Unknown
from meshscope.model.names import OUTSIDE, ObjectRef
from meshscope.rules.claims import PREDICTED, claims, decided
from meshscope.rules.facts import EdgeFacts, Facts, Predicted
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.refusals import (
    blamed,
    condition_in_words,
    denied_by_none,
    drift,
    edit,
    nearest,
    none_refused,
)
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I022",
    cause="no-peer-identity-for-principal-policy",
    title="A policy wants the caller's identity, and the connection has none",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        found = edge.predicted(RULE.cause) or edge.passing(RULE.cause)
        if found and not any(_has_server_name(s) for s in edge.on("server") if denied_by_none(s)):
            yield from _claimed(edge, found[0])
    for proxy in facts.proxies:
        if facts.logs_nothing(proxy):
            yield from _unseen(facts, proxy)


def _unseen(facts: Facts, proxy: Proxy) -> Iterable[Claim]:
    """Refusals that only the server's counter tells of, while no caller in the mesh counts any: somebody outside it."""
    callers = [edge for edge in facts.edges if proxy in edge.server_proxies and edge.client_proxies]
    if any(s.stat is not None and s.stat[2] == "upstream_rq_403" for edge in callers for s in edge.symptoms):
        return
    for moved in facts.moved(proxy, "http", "rbac_denied").values():
        prefix = stat_prefix(moved.name)
        if prefix is None:
            continue
        met = facts.unseen_caller(proxy, prefix.port)
        hops = [hop for branch in met.branches for hop in branch.hops if hop.cause == RULE.cause]
        if hops:
            where = short_host(met.host)
            yield Claim(
                rule=RULE,
                subject=ObjectRef("Pod", proxy.id.pod, proxy.id.namespace),
                stage=Stage.AUTHORIZATION,
                title=f"{where}: somebody without an identity is refused by a policy that asks who calls",
                explanation=f"the server refused {moved.by:g} requests by its policies, and no caller in the mesh got a 403: "
                "the caller has no sidecar, and in plaintext no policy that asks for a principal can match",
                evidence=(moved.evidence, *decided(hops[0])),
                fix=(
                    Fix(
                        "command",
                        f"kubectl logs {proxy.id.pod} -n {proxy.id.namespace} -c istio-proxy --tail=100",
                        "shows the address of who is refused",
                    ),
                ),
                confidence=PREDICTED,
                affected=(Edge("outside", where, met.port),),
            )


def _has_server_name(symptom: Symptom) -> bool:
    """Mesh TLS has a server name, so a line with one is no plaintext connection's."""
    return bool(symptom.example and symptom.example.requested_server_name)


def _claimed(edge: EdgeFacts, found: Predicted) -> Iterable[Claim]:
    seen = none_refused(edge)
    closest = nearest(found)
    rule = policy_rule(closest.policy) if closest is not None else None
    offer = found.branch.at(Stage.TLS_OFFER)
    rule_of_client = offer.kubernetes if offer is not None else None
    why = (
        f"{rule_of_client} makes its sidecar send plaintext"
        if rule_of_client is not None
        else "it has no sidecar"
    )
    if offer is not None and rule_of_client is None:
        why = "its sidecar offers no client certificate"
    wants = "; ".join(condition_in_words(c) for c in closest.conditions) if closest is not None else ""
    name = f"{rule.policy.namespace}/{rule.policy.name}" if rule is not None else "an ALLOW policy"
    yield from claims(
        RULE,
        edge,
        seen.shown,
        predicted=found,
        subject=_subject(edge, rule_of_client),
        discriminator=str(edge.edge),
        title=f"{edge.edge}: AuthorizationPolicy {name} asks who calls, and the caller has no identity",
        explanation=f"the connection is without mTLS ({why}), so there is no identity that {name} could match: {wants}",
        fix=_fixes(edge, rule_of_client, rule.policy if rule is not None else None),
        caused_by=drift(found),
        ruled_out=(
            RuledOut(
                "implicit-deny-by-allow-policy",
                "no list of callers could match a connection without identity",
            ),
            RuledOut("deny-policy", "no DENY policy matches these requests"),
        ),
        at_most=seen.at_most(found),
    )


def _subject(edge: EdgeFacts, rule_of_client: ObjectRef | None) -> ObjectRef:
    caller = edge.client_subject if edge.client != OUTSIDE else None
    return blamed(edge, rule_of_client or caller)


def _fixes(edge: EdgeFacts, rule_of_client: ObjectRef | None, policy: ObjectRef | None) -> tuple[Fix, ...]:
    found: list[Fix] = []
    if rule_of_client is not None:
        found.append(
            edit(rule_of_client, "with tls.mode ISTIO_MUTUAL (or none) callers show their certificates")
        )
    elif edge.client != OUTSIDE:
        kind, name = edge.client.kind.lower(), edge.client.name
        patch = '{"spec":{"template":{"metadata":{"labels":{"sidecar.istio.io/inject":"true"}}}}}'
        found.append(
            Fix(
                "command",
                f"kubectl patch {kind} {name} -n {edge.client.namespace} --type merge -p '{patch}'",
                "restarts the caller's pods with a sidecar; their other calls go through the mesh too",
            )
        )
    if policy is not None:
        found.append(
            edit(policy, "allow the caller by what plaintext has (ipBlocks); addresses can be borrowed")
        )
    return tuple(found)
