"""The external authorizer doesn't answer, so requests are refused.

Symptom
    The caller gets 403 (or the provider's `statusOnError`) with an empty body; the server's sidecar logs the flag `UAEX`
    with `ext_authz_error`.

Why it fails
    A CUSTOM policy has the server's sidecar ask an external authorizer, and the question fails: nothing listens, it has no
    endpoint, it answers 5xx, it takes longer than its timeout, or mTLS between the two fails. Unless the provider says
    `failOpen`, what can't be asked is refused. A provider that the mesh configuration doesn't define refuses everything too.

How meshscope knows
    The server's sidecar says so in its access log or by the counter `ext_authz.error`; failing connections to the
    authorizer's cluster, or a cluster without usable endpoints, say why.

Fix
    Bring the authorizer up, or correct the provider's service and port in the mesh configuration. `failOpen: true` lets
    requests pass unchecked while it is down.

References
    Istio: "External Authorization", MeshConfig ExtensionProvider; Envoy: external authorization filter.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.istio.names import cluster_name, denied_by, service_host
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import COUNTED, LIKELY, PREDICTED, claims
from meshscope.rules.facts import EdgeFacts, Facts, Predicted
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.refusals import (
    NO_BODY,
    Refused,
    asked_about,
    blamed,
    failing_calls,
    refused,
    with_asking,
)
from meshscope.walk.hops import Stage
from meshscope.walk.inbound import BAD_PROVIDER

RULE = Rule(
    code="MS-I038",
    cause="ext-authz-unreachable",
    title="The external authorizer doesn't answer, so requests are refused",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)
STATS = (("http", "ext_authz_error"),)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        predicted = edge.predicted(RULE.cause)
        asked = predicted[0] if predicted else asked_about(edge)
        seen = refused(
            edge,
            refusal=lambda s: (
                (s.has("UAEX") and s.details.startswith("ext_authz_error"))
                or denied_by(s.details) == BAD_PROVIDER
            ),
            codes=(403, 500, 503) if asked is None or not predicted else (403,),
            stats=STATS,
            bodies=NO_BODY,
        )
        if seen.told or (seen.shown and asked is not None and not asked.hop.detail.get("fail_open")):
            yield from _claimed(facts, edge, seen, asked, bool(predicted))


def _claimed(
    facts: Facts, edge: EdgeFacts, seen: Refused, asked: Predicted | None, predicted: bool
) -> Iterable[Claim]:
    policy = asked.hop.kubernetes if asked is not None else None
    authorizer = str(asked.hop.detail.get("cluster") or "") if asked is not None else ""
    undefined = any(denied_by(s.details) == BAD_PROVIDER for s in seen.shown.symptoms)
    calls = failing_calls(edge, authorizer)
    why = f": {asked.hop.decision}" if predicted and asked is not None else ""
    if undefined:
        why = ": the CUSTOM policy names a provider that the mesh configuration doesn't define"
    elif calls:
        why = f": {calls[0].by:g} calls to it failed ({calls[0].stat})"
    shown = with_asking(facts, edge, seen.shown, authorizer)
    yield from claims(
        RULE,
        edge,
        shown,
        predicted=asked,
        stage=Stage.AUTHORIZATION,
        subject=blamed(edge, policy),
        discriminator=authorizer,
        title=f"{edge.edge}: {authorizer or 'the external authorizer'} doesn't answer, so the requests are refused",
        explanation=f"the server's sidecar must ask {authorizer or 'an external authorizer'} and gets no answer{why}; "
        "the provider isn't failOpen, so it refuses",
        fix=_fixes(authorizer),
        ruled_out=(
            RuledOut("ext-authz-denied", "the authorizer gave no verdict: the question itself failed"),
        )
        if seen.told
        else (),
        at_most=_at_most(seen, asked, predicted),
    )


def _at_most(seen: Refused, asked: Predicted | None, predicted: bool) -> float:
    if seen.told or predicted:
        return seen.at_most(asked)
    if seen.shown.moved:
        return COUNTED
    return PREDICTED if seen.body_fits else LIKELY


def _fixes(authorizer: str) -> tuple[Fix, ...]:
    name = cluster_name(authorizer)
    host = service_host(name.fqdn) if name is not None else None
    found: list[Fix] = []
    if host is not None:
        service = ObjectRef("Service", host.service, host.namespace)
        found.append(
            Fix(
                "command",
                f"kubectl get endpointslices -n {host.namespace} -l kubernetes.io/service-name={host.service}",
                f"shows whether {service} has a ready endpoint on the port that the provider names",
            )
        )
    found.append(
        Fix(
            "command",
            "kubectl edit configmap istio -n istio-system  # mesh: extensionProviders: service, port, timeout, failOpen",
            "applies to every workload that asks this provider; failOpen lets requests pass unchecked while it is down",
        )
    )
    return tuple(found)
