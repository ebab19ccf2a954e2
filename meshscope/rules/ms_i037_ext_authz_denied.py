"""The external authorizer refused the request.

Symptom
    The caller gets the authorizer's own status (mostly 403 or 401) and body; its sidecar logs it as `via_upstream`. The
    server's sidecar logs the flag `UAEX` with `ext_authz_denied`.

Why it fails
    An AuthorizationPolicy with action CUSTOM has the server's sidecar ask an external authorizer (an extension provider
    of the mesh configuration) before anything else, and the authorizer said no. The mesh carried out what it was told.

How meshscope knows
    The server's sidecar says in its access log, or by the counter `ext_authz.denied`, that the authorizer refused. Without
    both, a CUSTOM policy on the server and the caller's status leave the application as another possible author.

Fix
    Look at the authorizer's own log and rules for these requests; or take them out of the CUSTOM policy's rules.

References
    Istio: "External Authorization", AuthorizationPolicy (CUSTOM); Envoy: external authorization filter.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.istio.names import policy_rule
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import COUNTED, LIKELY, PREDICTED, claims
from meshscope.rules.facts import EdgeFacts, Facts, Predicted
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.refusals import (
    NO_BODY,
    RBAC_BODY,
    Refused,
    asked_about,
    blamed,
    edit,
    refused,
    with_asking,
)
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I037",
    cause="ext-authz-denied",
    title="The external authorizer refuses the request",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)
STATS = (("http", "ext_authz_denied"),)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        asked = asked_about(edge)
        seen = refused(
            edge,
            refusal=lambda s: s.has("UAEX") and s.details == "ext_authz_denied",
            codes=(401, 403),
            stats=STATS,
            bodies=NO_BODY | RBAC_BODY,
        )
        if seen.told or (seen.shown and asked is not None):
            yield from _claimed(facts, edge, seen, asked)


def _claimed(facts: Facts, edge: EdgeFacts, seen: Refused, asked: Predicted | None) -> Iterable[Claim]:
    policy = asked.hop.kubernetes if asked is not None else None
    rule = policy_rule(asked.hop.detail.get("policy") or "") if asked is not None else None
    authorizer = str(asked.hop.detail.get("cluster") or "") if asked is not None else ""
    where = f" (rule {rule.rule} of {policy})" if rule is not None else ""
    yield from claims(
        RULE,
        edge,
        with_asking(facts, edge, seen.shown, authorizer),
        predicted=asked,
        stage=Stage.AUTHORIZATION,
        subject=blamed(edge, policy),
        discriminator=authorizer,
        title=f"{edge.edge}: {authorizer or 'the external authorizer'} refuses the requests",
        explanation=f"a CUSTOM policy{where} has the server ask {authorizer or 'an external authorizer'}, which refused",
        fix=_fixes(policy, authorizer),
        ruled_out=(
            RuledOut("ext-authz-unreachable", "the authorizer answered: the sidecar says that it denied"),
            RuledOut("deny-policy", "no policy of the sidecar's own matched; the authorizer decided"),
        )
        if seen.told
        else (),
        at_most=_at_most(seen, asked),
    )


def _at_most(seen: Refused, asked: Predicted | None) -> float:
    if seen.told:
        return seen.at_most(asked)
    if seen.shown.moved:
        return COUNTED
    # A body of the size that Envoy itself would send speaks against the authorizer, which sends its own.
    return LIKELY if seen.body_fits else PREDICTED


def _fixes(policy: ObjectRef | None, authorizer: str) -> tuple[Fix, ...]:
    found = [
        Fix(
            "advice", f"look in the log of {authorizer or 'the authorizer'} for the reason of its refusal", ""
        )
    ]
    if policy is not None:
        found.append(
            edit(policy, "requests that no rule of it matches aren't asked about, and pass unchecked")
        )
    return tuple(found)
