"""A policy demands a token, and the request has none.

Symptom
    The caller gets 403 `RBAC: access denied`; the server's sidecar logs `rbac_access_denied_matched_policy[none]`.
    Where the JWT filter itself demands a token, it is 401 `Jwt is missing` and `jwt_authn_access_denied{Jwt_is_missing}`.

Why it fails
    A RequestAuthentication alone lets requests without a token pass. The ALLOW policy with `requestPrincipals` (or a
    condition on `request.auth.*`) is what demands one: without a token there is no request principal, and no rule matches.
    An application that calls on behalf of its caller must pass the `authorization` header on by itself.

How meshscope knows
    The nearest ALLOW rule of the server's sidecar misses nothing but the token's claims, and the sidecar refuses because
    no policy matched. Access logs don't show tokens: where the rule wants certain claims, a token with others would be
    refused just so, and both causes are named unless the JWT filter's counters show that no token came.

Fix
    Send a token, or pass on the one that came in; or take the demand out of the policy for these callers or paths.

References
    Istio: RequestAuthentication, AuthorizationPolicy (requestPrincipals), "JWT token".
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.istio.names import policy_rule
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import PREDICTED, claims
from meshscope.rules.facts import EdgeFacts, Facts, Predicted
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.refusals import (
    JWT_BODIES,
    blamed,
    condition_in_words,
    drift,
    edit,
    held,
    nearest,
    none_refused,
    refused,
    token_may_be_there,
)
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I036",
    cause="jwt-missing",
    title="A token is demanded, and the request has none",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)
SEPARATES = (
    "A token with other claims would be refused just so: whether one came shows in the request itself, or by the server's "
    "counters jwt_authn.jwt_cache_miss and jwt_cache_hit"
)
MISSING = "jwt_authn_access_denied{Jwt_is_missing}"


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        for found in held(edge, RULE.cause):
            if found.hop.stage is Stage.AUTHORIZATION:
                yield from _by_policy(edge, found)
                break
        yield from _by_filter(edge)


def _by_policy(edge: EdgeFacts, found: Predicted) -> Iterable[Claim]:
    seen = none_refused(edge)
    if not seen.shown:
        return
    closest = nearest(found)
    rule = policy_rule(closest.policy) if closest is not None else None
    name = f"{rule.policy.namespace}/{rule.policy.name}" if rule is not None else "an ALLOW policy"
    wants = "; ".join(condition_in_words(c) for c in closest.conditions) if closest is not None else ""
    yield from claims(
        RULE,
        edge,
        seen.shown,
        predicted=found,
        subject=blamed(edge, rule.policy if rule is not None else None),
        title=f"{edge.edge}: AuthorizationPolicy {name} demands a token, and the requests have none",
        explanation=f"all that {name} misses is the token: {wants}; {_validated(found)}"
        + (f". {SEPARATES}" if token_may_be_there(edge, found) else ""),
        fix=_fixes(edge, rule.policy if rule is not None else None),
        caused_by=drift(found),
        ruled_out=(
            RuledOut("jwt-invalid", "a token that is refused gives 401 and its reason, not 403"),
            RuledOut("deny-policy", "the server's sidecar names no policy that matched"),
        ),
        at_most=min(seen.at_most(found), PREDICTED if token_may_be_there(edge, found) else 1.0),
    )


def _validated(found: Predicted) -> str:
    if found.branch.at(Stage.JWT) is None:
        return "no RequestAuthentication applies to the server, so that no token of any issuer would count"
    return "the RequestAuthentication alone would let them pass"


def _by_filter(edge: EdgeFacts) -> Iterable[Claim]:
    seen = refused(
        edge,
        refusal=lambda s: s.details == MISSING,
        codes=(401,),
        stats=(("http", "jwt_authn_denied"),),
        bodies=JWT_BODIES,
    )
    demanded = [
        Predicted(one, branch, hop)
        for one in edge.walks
        for branch in one.branches
        if (hop := branch.at(Stage.JWT)) is not None and "demanded" in hop.decision and hop.outcome != "pass"
    ]
    if not seen.told and not (seen.shown and demanded):
        return
    found = demanded[0] if demanded else None
    behind = found.hop.kubernetes if found is not None else None
    yield from claims(
        RULE,
        edge,
        seen.shown,
        predicted=found,
        stage=Stage.JWT,
        subject=blamed(edge, behind),
        discriminator=str(edge.edge),
        title=f"{edge.edge}: the server demands a token, and the requests have none",
        explanation="the server's JWT filter demands a token of every request that it applies to, and these have none",
        fix=_fixes(edge, behind),
        ruled_out=(RuledOut("jwt-invalid", "the reason is that there is no token, not that one was refused"),)
        if seen.told
        else (),
        at_most=seen.at_most(found) if seen.told else PREDICTED,
    )


def _fixes(edge: EdgeFacts, demands: ObjectRef | None) -> tuple[Fix, ...]:
    advice = f"have {edge.client} send a token to {edge.host}, or pass on the authorization header that it was called with"
    found = [Fix("advice", advice, "requests then are who their token says")]
    if demands is not None:
        found.append(
            edit(demands, "without the demand requests need no token: everybody who may connect gets in")
        )
    return tuple(found)
