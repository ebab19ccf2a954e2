"""Why no ALLOW policy matches, told apart by what the nearest one misses; and what isn't known of a request."""

from __future__ import annotations

import pytest
import yaml

from meshscope.envoy.jwt import FILTER
from meshscope.envoy.request import Connection, HttpRequest
from meshscope.istio.envoy_filters import filter_config, filter_type, inbound_filters
from meshscope.istio.kubernetes import Objects
from meshscope.istio.rbac import rbac_rules
from meshscope.model.kubernetes import KubernetesObject, ObjectMeta
from meshscope.walk.hops import Hop
from meshscope.walk.inbound import decided

GET = HttpRequest("GET", "ratings:9080", "/ratings/0")
CLIENT = ("spiffe://cluster.local/ns/bookinfo/sa/client",)
REVIEWS = "{from: [{source: {principals: [cluster.local/ns/bookinfo/sa/bookinfo-reviews]}}]}"
HEALTH = "{to: [{operation: {paths: [/health]}}]}"
TOKEN = "{from: [{source: {requestPrincipals: ['*']}}]}"
NAMED_TOKEN = "{from: [{source: {requestPrincipals: ['https://issuer/reader']}}]}"


def found(kind: str, spec: str, name: str = "p", **labels: str) -> KubernetesObject:
    group = "networking.istio.io/v1" if kind == "EnvoyFilter" else "security.istio.io/v1"
    body = {"spec": yaml.safe_load(spec) or {}}
    meta = ObjectMeta(name=name, namespace="bookinfo", labels=labels)
    return KubernetesObject("v1" if kind == "Pod" else group, kind, meta, body)


def hop(*rules: str, connection: Connection, request: HttpRequest | None = GET, action: str = "ALLOW") -> Hop:
    spec = f"{{action: {action}, rules: [{', '.join(rules)}]}}"
    made = rbac_rules(
        [found("AuthorizationPolicy", spec)], "DENY" if action == "DENY" else "ALLOW", tcp=request is None
    )
    assert made is not None
    return decided(made, request, connection, None, "here")


@pytest.mark.parametrize(
    ("rules", "principals", "cause"),
    [
        ((), CLIENT, "allow-nothing"),
        ((), (), "allow-nothing"),
        ((REVIEWS,), CLIENT, "implicit-deny-by-allow-policy"),
        ((REVIEWS,), (), "no-peer-identity-for-principal-policy"),
        ((REVIEWS, HEALTH), CLIENT, "implicit-deny-by-allow-policy"),
        ((HEALTH,), (), "implicit-deny-by-allow-policy"),
        ((TOKEN,), CLIENT, "jwt-missing"),
        ((TOKEN,), (), "jwt-missing"),
        ((REVIEWS, TOKEN), CLIENT, "jwt-missing"),
    ],
)
def test_what_the_nearest_policy_misses_is_the_cause(
    rules: tuple[str, ...], principals: tuple[str, ...], cause: str
) -> None:
    decision = hop(*rules, connection=Connection(peer_principals=principals, mtls=bool(principals)))
    assert (decision.outcome, decision.cause) == ("fail", cause)


@pytest.mark.parametrize(("rule", "any_token"), [(TOKEN, True), (NAMED_TOKEN, False)])
def test_a_token_that_the_log_hides_leaves_the_decision_open(rule: str, any_token: bool) -> None:
    connection = Connection(peer_principals=CLIENT, mtls=True, unknown=frozenset({FILTER}))
    decision = hop(rule, connection=connection)
    assert (decision.outcome, decision.cause) == ("unknown", "jwt-missing")
    assert decision.detail["any_token"] is any_token


def test_a_header_that_the_log_hides_leaves_the_decision_open() -> None:
    request = HttpRequest("GET", "a", "/", partial=True)
    connection = Connection(peer_principals=CLIENT, mtls=True)
    decision = hop(
        "{when: [{key: 'request.headers[x-a]', values: [b]}]}", connection=connection, request=request
    )
    assert (decision.outcome, decision.cause) == ("unknown", "implicit-deny-by-allow-policy")


def test_a_request_that_nobody_saw_may_be_denied_by_path() -> None:
    guessed = HttpRequest("GET", "a", "/", partial=True, guessed=True)
    decision = hop(HEALTH, connection=Connection(), request=guessed, action="DENY")
    assert (decision.outcome, decision.cause) == ("unknown", "deny-policy")
    assert decision.detail["perhaps"] == ["ns[bookinfo]-policy[p]-rule[0]"]


def test_a_caller_of_whom_nothing_is_known_may_be_anybody() -> None:
    decision = hop(REVIEWS, connection=Connection(mtls=True, unknown=frozenset({"peer"})))
    assert decision.outcome == "unknown"


def test_a_hop_without_proxy_is_an_intended_one() -> None:
    decision = hop(REVIEWS, connection=Connection(peer_principals=CLIENT, mtls=True))
    assert decision.detail["intended"] is True
    assert decision.evidence[0].source == "kubernetes"


LIMIT = """
workloadSelector: {labels: {app: ratings}}
configPatches:
- applyTo: HTTP_FILTER
  match: {context: SIDECAR_INBOUND}
  patch:
    operation: INSERT_BEFORE
    value:
      name: envoy.filters.http.local_ratelimit
      typed_config:
        '@type': type.googleapis.com/udpa.type.v1.TypedStruct
        type_url: type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
        value: {token_bucket: {max_tokens: 4}}
- applyTo: HTTP_FILTER
  match: {context: SIDECAR_OUTBOUND}
  patch: {operation: INSERT_BEFORE, value: {name: other}}
- applyTo: CLUSTER
  patch: {operation: MERGE, value: {}}
"""


def test_an_envoy_filter_adds_inbound_filters_to_the_pods_it_selects() -> None:
    objects = Objects([found("EnvoyFilter", LIMIT)])
    added = list(inbound_filters(objects, found("Pod", "{}", app="ratings")))
    assert len(added) == 1
    owner, value = added[0]
    assert owner.metadata.name == "p"
    assert filter_type(value) == "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
    assert filter_config(value) == {"token_bucket": {"max_tokens": 4}}
    assert not list(inbound_filters(objects, found("Pod", "{}", app="details")))
