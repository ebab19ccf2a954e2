"""The request's token was refused.

Symptom
    The caller gets 401 with Envoy's reason as the body (`Jwt is expired`, `Jwt verification fails`, …); its sidecar
    logs `401 via_upstream`, the server's sidecar `jwt_authn_access_denied{REASON}`.

Why it fails
    A RequestAuthentication accepts tokens of certain issuers. A request without a token passes it; one with a token
    that has expired, is of another issuer or audience, or is signed with a key that isn't in the issuer's key set, doesn't. With
    keys from a URL (`jwksUri`) it is istiod that fetches them: when it can't, every token fails.

How meshscope knows
    The server's sidecar gives the reason in its access log, or its JWT filter's denials rise together with 401 answers
    at the caller. Tokens themselves are never read from a mesh.

Fix
    By the reason: get a fresh token, add issuer or audience to the RequestAuthentication, or make the key set reachable.

References
    Istio: RequestAuthentication; Envoy: JWT authentication filter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from meshscope.facts.symptoms import Symptom
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import LIKELY, PREDICTED, claims
from meshscope.rules.facts import EdgeFacts, Facts, Predicted
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.refusals import JWT_BODIES, Refused, blamed, edit, refused
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I035",
    cause="jwt-invalid",
    title="The request's token is refused",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)
STATS = (("http", "jwt_authn_denied"),)
_REASON = re.compile(r"jwt_authn_access_denied\{(.*)\}")
_FIXES = (
    ("expired", "get a fresh token: the one that is sent has run out (and check the clock of who issues it)"),
    ("not_yet_valid", "check the clocks of the issuer and of the server's node: the token begins later"),
    (
        "issuer",
        "add the token's issuer to the RequestAuthentication's jwtRules, or send a token of a listed issuer",
    ),
    (
        "udience",
        "add the token's audience to jwtRules[].audiences, or ask the issuer for a token with a listed one",
    ),
    ("fetch", "make the issuer's jwksUri reachable from istiod: it fetches the keys for all proxies"),
    ("ks", "check that the issuer's key set holds the key that the token names (kid)"),
    (
        "verification_fails",
        "the signature is of another key: check jwks or jwksUri, and whether the keys were rotated",
    ),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        seen = refused(edge, refusal=_invalid, codes=(401,), stats=STATS, bodies=JWT_BODIES)
        held = _filter(edge)
        if seen.told or (seen.shown and held is not None):
            yield from _claimed(edge, seen, held)


def reason(symptom: Symptom) -> str:
    """Why the JWT filter refused: `Jwt_is_expired`; "" where it didn't."""
    match = _REASON.search(symptom.details)
    return match[1] if match else ""


def _invalid(symptom: Symptom) -> bool:
    return bool(reason(symptom)) and reason(symptom) != "Jwt_is_missing"


def _filter(edge: EdgeFacts) -> Predicted | None:
    """The hop of a JWT filter (held, or asked for in Kubernetes) on the way."""
    for one in edge.walks:
        for branch in one.branches:
            hop = branch.at(Stage.JWT)
            if hop is not None:
                return Predicted(one, branch, hop)
    return None


def _claimed(edge: EdgeFacts, seen: Refused, held: Predicted | None) -> Iterable[Claim]:
    why = next((reason(s) for s in seen.shown.symptoms if _invalid(s)), "")
    words = why.replace("_", " ") or "the token isn't valid"
    behind = held.hop.kubernetes if held is not None else None
    issuers = ", ".join(held.hop.detail.get("issuers") or ()) if held is not None else ""
    accepts = f"{behind or 'its JWT filter'} accepts tokens" + (f" of {issuers}" if issuers else "")
    yield from claims(
        RULE,
        edge,
        seen.shown,
        predicted=held,
        stage=Stage.JWT,
        subject=blamed(edge, behind),
        discriminator=why,
        title=f"{edge.edge}: the server refuses the request's token ({words})",
        explanation=f"the server's sidecar answers 401: {words}; {accepts}, and requests without a token pass it",
        fix=_fixes(why, behind),
        ruled_out=(RuledOut("jwt-missing", "a request without a token isn't refused with this reason"),)
        if why
        else (),
        at_most=_at_most(edge, seen, held),
    )


def _at_most(edge: EdgeFacts, seen: Refused, held: Predicted | None) -> float:
    """Without the server's log: its counters say that it refused tokens, else only the body's size speaks for it."""
    if seen.told:
        return seen.at_most(held)
    if seen.shown.moved:
        demanded = held is not None and "demanded" in held.hop.decision
        return PREDICTED if demanded and not edge.server_moved("http", "jwt_authn_jwt_cache_miss") else 1.0
    return PREDICTED if seen.body_fits else LIKELY


def _fixes(why: str, behind: ObjectRef | None) -> tuple[Fix, ...]:
    advice = next(
        (text for word, text in _FIXES if word in why), "send a token that the server's jwtRules accept"
    )
    found = [Fix("advice", advice, "")]
    if behind is not None:
        found.append(edit(behind, "jwtRules name the issuers, audiences and keys that are accepted"))
    return tuple(found)
