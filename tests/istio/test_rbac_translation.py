"""AuthorizationPolicies as RBAC rules: as a real istiod writes them, and what they then decide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from meshscope.envoy.config_dump import HttpConnectionManager
from meshscope.envoy.rbac import HttpRbac, NetworkRbac, RbacRules, evaluate, matches_nothing
from meshscope.envoy.request import Connection, HttpRequest
from meshscope.facts.mesh import Mesh
from meshscope.istio.authorization import Action, applying
from meshscope.istio.rbac import rbac_rules
from meshscope.model.findings import Unavailable
from meshscope.model.kubernetes import KubernetesObject, ObjectMeta
from meshscope.sources.bundle import open_bundle

RECORDING = Path(__file__).parent.parent / "data" / "istio" / "authz-deny.tar.gz"
REVIEWS = "spiffe://cluster.local/ns/bookinfo/sa/bookinfo-reviews"
GET = HttpRequest("GET", "ratings:9080", "/ratings/0")


def policy(text: str, name: str = "p") -> KubernetesObject:
    body = yaml.safe_load(text) or {}
    return KubernetesObject(
        "security.istio.io/v1",
        "AuthorizationPolicy",
        ObjectMeta(name=name, namespace="bookinfo"),
        {"spec": body},
    )


def rules(text: str, action: Action = "ALLOW", *, tcp: bool = False) -> RbacRules:
    found = rbac_rules([policy(text)], action, tcp=tcp)
    assert found is not None
    return found


def allowed(
    text: str, request: HttpRequest | None = GET, principal: str = REVIEWS, **connection: Any
) -> bool | None:
    names = (principal,) if principal else ()
    made = Connection(peer_principals=names, mtls=bool(names), **connection)
    return evaluate(rules(text, tcp=request is None), request, made).allowed


def test_the_translation_is_that_of_a_real_istiod() -> None:
    source = open_bundle(RECORDING)
    mesh = Mesh(source)
    proxy = next(proxy for proxy in mesh.proxies.values() if proxy.id.pod.startswith("ratings"))
    pod = mesh.pod(proxy.id)
    assert pod is not None
    assert not isinstance(proxy.config, Unavailable)
    inbound = proxy.config.listeners.get("virtualInbound")
    assert inbound is not None
    http, tcp = [], []
    for chain in inbound.filter_chains:
        for network in chain.filters:
            if network.type_url.endswith("network.rbac.v3.RBAC"):
                tcp.append(network.decode(NetworkRbac).rules)
            if network.type_url.endswith("HttpConnectionManager"):
                for found in network.decode(HttpConnectionManager).http_filters:
                    if found.type_url.endswith("http.rbac.v3.RBAC"):
                        http.append(found.decode(HttpRbac).rules)
    policies = applying(mesh.objects, pod)
    assert http
    assert tcp
    assert all(held == rbac_rules(policies, "DENY", tcp=False) for held in http)
    assert all(held == rbac_rules(policies, "DENY", tcp=True) for held in tcp)
    source.close()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("rules: [{}]", True),
        ("rules: [{from: [{source: {principals: [cluster.local/ns/bookinfo/sa/bookinfo-reviews]}}]}]", True),
        ("rules: [{from: [{source: {principals: ['*']}}]}]", True),
        ("rules: [{from: [{source: {principals: ['*/sa/bookinfo-reviews']}}]}]", True),
        ("rules: [{from: [{source: {principals: ['cluster.local/ns/bookinfo/*']}}]}]", True),
        ("rules: [{from: [{source: {principals: [cluster.local/ns/bookinfo/sa/client]}}]}]", False),
        ("rules: [{from: [{source: {namespaces: [bookinfo]}}]}]", True),
        ("rules: [{from: [{source: {namespaces: ['book*']}}]}]", True),
        ("rules: [{from: [{source: {namespaces: [book]}}]}]", False),
        ("rules: [{from: [{source: {notNamespaces: [bookinfo]}}]}]", False),
        ("rules: [{from: [{source: {serviceAccounts: [bookinfo-reviews]}}]}]", True),
        ("rules: [{from: [{source: {serviceAccounts: [other/bookinfo-reviews]}}]}]", False),
        ("rules: [{to: [{operation: {methods: [GET], paths: ['/ratings/*']}}]}]", True),
        ("rules: [{to: [{operation: {methods: [POST], paths: ['/ratings/*']}}]}]", False),
        ("rules: [{to: [{operation: {methods: [POST]}}, {operation: {paths: ['/ratings/*']}}]}]", True),
        ("rules: [{to: [{operation: {notPaths: ['/ratings/*']}}]}]", False),
        ("rules: [{to: [{operation: {hosts: ['RATINGS:9080']}}]}]", True),
        ("rules: [{to: [{operation: {ports: ['9080']}}]}]", True),
        ("rules: [{when: [{key: destination.port, notValues: ['9080']}]}]", False),
        ("rules: [{when: [{key: 'request.headers[x-a]', values: [b]}]}]", False),
        ("rules: [{when: [{key: source.namespace, values: [bookinfo]}]}]", True),
        ("rules: [{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}]", True),
        ("rules: [{from: [{source: {ipBlocks: [11.1.1.1]}}]}]", False),
        ("rules: [{when: [{key: no.such.key, values: [a]}]}]", False),
        ("{}", False),
    ],
)
def test_a_request_of_reviews(spec: str, expected: bool) -> None:
    assert allowed(spec, destination_port=9080, source_address="10.1.2.3") is expected


@pytest.mark.parametrize("condition", ["notPrincipals: [a]", "notNamespaces: [a]"])
def test_negative_conditions_match_a_caller_without_identity(condition: str) -> None:
    assert allowed(f"rules: [{{from: [{{source: {{{condition}}}}}]}}]", principal="") is True


@pytest.mark.parametrize("condition", ["principals: ['*']", "namespaces: ['*']", "serviceAccounts: [a]"])
def test_positive_conditions_never_do(condition: str) -> None:
    assert allowed(f"rules: [{{from: [{{source: {{{condition}}}}}]}}]", principal="") is False


@pytest.mark.parametrize(
    ("wanted", "payload", "expected"),
    [
        ("requestPrincipals: ['*']", {"iss": "i", "sub": "s"}, True),
        ("requestPrincipals: ['*']", {}, False),
        ("requestPrincipals: ['https://i/s']", {"iss": "https://i", "sub": "s"}, True),
        ("requestPrincipals: ['https://i/*']", {"iss": "https://i", "sub": "t"}, True),
        ("requestPrincipals: ['*/s']", {"iss": "https://i", "sub": "t"}, False),
        ("notRequestPrincipals: ['*']", {"iss": "i", "sub": "s"}, False),
    ],
)
def test_conditions_on_a_token(wanted: str, payload: dict[str, Any], expected: bool) -> None:
    metadata = {"envoy.filters.http.jwt_authn": {"payload": payload}}
    assert allowed(f"rules: [{{from: [{{source: {{{wanted}}}}}]}}]", dynamic_metadata=metadata) is expected


@pytest.mark.parametrize(
    ("key", "values", "expected"),
    [
        ("request.auth.claims[groups]", "[admin]", True),
        ("request.auth.claims[groups]", "[none]", False),
        ("request.auth.claims[nested][key]", "['v*']", True),
        ("request.auth.audiences", "[a, b]", True),
        ("request.auth.presenter", "[me]", False),
    ],
)
def test_conditions_on_claims(key: str, values: str, expected: bool) -> None:
    payload = {"groups": ["dev", "admin"], "nested": {"key": "value"}, "aud": ["b"]}
    metadata = {"envoy.filters.http.jwt_authn": {"payload": payload}}
    spec = f"rules: [{{when: [{{key: '{key}', values: {values}}}]}}]"
    assert allowed(spec, dynamic_metadata=metadata) is expected


def test_on_tcp_an_allow_rule_with_http_conditions_is_left_out() -> None:
    spec = "rules: [{to: [{operation: {methods: [GET]}}]}, {to: [{operation: {ports: ['27017']}}]}]"
    assert list(rules(spec, tcp=True).policies) == ["ns[bookinfo]-policy[p]-rule[1]"]
    assert allowed(spec, None, destination_port=27017) is True
    assert allowed("rules: [{to: [{operation: {methods: [GET]}}]}]", None) is False


def test_on_tcp_a_deny_rule_loses_them_and_matches_more() -> None:
    spec = "{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}"
    assert evaluate(rules(spec, "DENY", tcp=True), None, Connection()).allowed is False


def test_a_policy_without_rules_matches_nothing() -> None:
    assert matches_nothing(rules("{}"))
    assert not matches_nothing(rules("rules: [{}]"))
    both = rbac_rules([policy("{}"), policy("rules: [{}]", "q")], "ALLOW", tcp=False)
    assert both is not None
    assert not matches_nothing(both)


def test_actions_are_kept_apart() -> None:
    assert rbac_rules([policy("{action: AUDIT, rules: [{}]}")], "ALLOW", tcp=False) is None
    audit = rbac_rules([policy("{action: AUDIT, rules: [{}]}")], "AUDIT", tcp=False)
    assert audit is not None
    assert audit.action == "LOG"


@pytest.mark.parametrize(
    "broken",
    ["rules: 1", "rules: [1, a]", "rules: [{from: 1, to: [1], when: [a]}]", "rules: [{from: [{source: 1}]}]"],
)
def test_a_policy_that_is_none_breaks_nothing(broken: str) -> None:
    rbac_rules([policy(broken)], "DENY", tcp=False)
