"""ALLOW policies select the server, and none of them matches the request.

Symptom
    The caller gets 403 `RBAC: access denied`; its sidecar logs `403 via_upstream`, the server's sidecar
    `rbac_access_denied_matched_policy[none]`. On a TCP port the connection is closed with nothing sent.

Why it fails
    As soon as one ALLOW policy selects a workload, everything that no ALLOW policy matches is refused. Usually a caller,
    a method or a path was forgotten. `from`, `to` and `when` of one rule must all hold; two list items where one was
    meant are alternatives. A principal is written without `spiffe://`, and on a TCP port a rule with methods, paths or
    hosts is left out altogether.

How meshscope knows
    The server's sidecar says that no policy matched. Each ALLOW rule that it holds is evaluated for this request and
    this caller; the finding names the conditions that failed, of the rule that came nearest. Headers and tokens aren't
    in access logs: conditions on them can't be judged, and the finding says so.

Fix
    Add the caller, method or path to the rule that should have matched, or add a rule. Deleting the last ALLOW policy
    of a workload opens it to everybody.

References
    Istio: AuthorizationPolicy, "Authorization policy precedence"; Envoy: RBAC filter.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.istio.names import policy_rule
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import LIKELY, PREDICTED, claims
from meshscope.rules.facts import EdgeFacts, Facts, Predicted
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.refusals import (
    NONE_CAUSES,
    Refused,
    condition_in_words,
    connection_of,
    drift,
    edit,
    held,
    identity_in_words,
    mismatches,
    none_refused,
    token_may_be_there,
)
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I032",
    cause="implicit-deny-by-allow-policy",
    title="No ALLOW policy matches the request",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        seen = none_refused(edge)
        if not seen.shown:
            continue
        found = held(edge, RULE.cause)
        others = held(edge, *NONE_CAUSES)
        if found:
            yield from _claimed(edge, seen, found[0])
        elif seen.told and not others:
            yield from _unseen(edge, seen)
        for token in others:
            # A token may have been there, and be another's than the policy wants: the log doesn't tell. That it had
            # none is the simpler reason: a valid token of the right issuer would have to lack what is wanted.
            if not found and token.hop.cause == "jwt-missing" and token_may_be_there(edge, token):
                yield from _claimed(edge, seen, token, at_most=LIKELY)
                break


def _claimed(edge: EdgeFacts, seen: Refused, found: Predicted, at_most: float = 1.0) -> Iterable[Claim]:
    nearest = sorted(mismatches(found), key=lambda each: len(each.conditions))
    rule = policy_rule(nearest[0].policy) if nearest else None
    who = identity_in_words(connection_of(found))
    why = "; ".join(condition_in_words(c) for c in nearest[0].conditions) if nearest else ""
    if not nearest:
        why = "on this TCP port every rule has HTTP conditions, which leave it out"
    name = f"rule {rule.rule} of {rule.policy.namespace}/{rule.policy.name}" if rule is not None else "none"
    request = found.walk.request
    what = f"{request.method} {request.path} by {who}" if request.method else f"a connection of {who}"
    yield from claims(
        RULE,
        edge,
        seen.shown,
        predicted=found,
        subject=_subject(edge, found),
        title=f"{edge.edge}: no ALLOW policy matches ({why})",
        explanation=f"ALLOW policies select the server, so it refuses what none of them matches. {what}: "
        f"{name} comes nearest; {why}",
        fix=(
            (
                edit(
                    rule.policy,
                    f"let rule {rule.rule} match {what}; whatever else the wider rule matches is let in too",
                ),
            )
            if rule is not None
            else ()
        ),
        caused_by=drift(found),
        ruled_out=(
            RuledOut("deny-policy", "the server's sidecar names no policy that matched"),
            RuledOut("allow-nothing", "some of the ALLOW rules could match other requests"),
        ),
        at_most=min(seen.at_most(found), at_most),
    )


def _subject(edge: EdgeFacts, found: Predicted) -> ObjectRef:
    """The policy, where there is only one; else what is called."""
    policies = {rule.policy for each in mismatches(found) if (rule := policy_rule(each.policy)) is not None}
    return policies.pop() if len(policies) == 1 else edge.server_subject


def _unseen(edge: EdgeFacts, seen: Refused) -> Iterable[Claim]:
    """The server says so, and its policies couldn't be read or read otherwise by now."""
    plain = not any(
        entry.requested_server_name for s in edge.on("server") for entry in s.entries[-1:] if s.from_log
    )
    yield from claims(
        RULE,
        edge,
        seen.shown,
        stage=Stage.AUTHORIZATION,
        subject=edge.server_subject,
        discriminator=str(edge.edge),
        title=f"{edge.edge}: no ALLOW policy matches",
        explanation="the server's sidecar says that no ALLOW policy matched; which condition failed can't be told, because "
        "its policies couldn't be read, or let these requests through as they are now"
        + (
            ". The connection has no server name: a caller without mTLS has no identity that a policy could allow"
            if plain
            else ""
        ),
        fix=(
            Fix(
                "command",
                f"kubectl get authorizationpolicies.security.istio.io -A  # those that select {edge.host}",
                "shows the ALLOW rules, one of which should match these requests",
            ),
        ),
        at_most=PREDICTED,
    )
