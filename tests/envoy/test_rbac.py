"""RBAC decisions, what stays unknown, and what a reader is told of policies that didn't match."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshscope.envoy.config_dump import ConfigDump, HttpConnectionManager
from meshscope.envoy.rbac import Decision, HttpRbac, NetworkRbac, RbacRules, evaluate, explain
from meshscope.envoy.request import Connection, HttpRequest

Json = dict[str, Any]
REVIEWS = "spiffe://cluster.local/ns/bookinfo/sa/bookinfo-reviews"
ANY: Json = {"permissions": [{"any": True}], "principals": [{"any": True}]}
UNKNOWN: Json = {"permissions": [{"by_telepathy": {}}], "principals": [{"any": True}]}
NEVER: Json = {"permissions": [{"not_rule": {"any": True}}], "principals": [{"any": True}]}


def rules(action: str = "ALLOW", **policies: Json) -> RbacRules:
    return msgspec.convert({"action": action, "policies": policies}, RbacRules)


def policy(permission: Json | None = None, principal: Json | None = None) -> Json:
    return {"permissions": [permission or {"any": True}], "principals": [principal or {"any": True}]}


def peer(*names: str) -> Connection:
    return Connection(
        source_address="10.0.0.1",
        destination_address="10.0.0.2",
        destination_port=9080,
        peer_principals=names,
        mtls=bool(names),
    )


def matches(
    condition: Json, request: HttpRequest | None = None, connection: Connection | None = None
) -> bool | None:
    """Whether an ALLOW policy of this one principal or permission lets it in."""
    kind = (
        "principal"
        if {"authenticated", "source_ip", "remote_ip", "and_ids", "not_id"} & set(condition)
        else "permission"
    )
    it = policy(**{kind: condition})
    return evaluate(rules(it=it), request or HttpRequest(), connection or peer()).allowed


@pytest.mark.parametrize(
    ("action", "policies", "allowed", "matched"),
    [
        ("ALLOW", {}, False, ""),
        ("ALLOW", {"b": ANY, "a": ANY, "B": ANY}, True, "B"),
        ("ALLOW", {"a": NEVER}, False, ""),
        ("DENY", {}, True, ""),
        ("DENY", {"a": NEVER, "b": ANY}, False, "b"),
        ("LOG", {"a": ANY}, True, "a"),
        ("LOG", {"a": NEVER}, True, ""),
        # What isn't understood matters only where it decides.
        ("ALLOW", {"a": UNKNOWN}, None, ""),
        ("ALLOW", {"a": UNKNOWN, "b": ANY}, True, "b"),
        ("DENY", {"a": UNKNOWN}, None, ""),
        ("DENY", {"a": UNKNOWN, "b": ANY}, False, "b"),
        ("LOG", {"a": UNKNOWN}, True, ""),
    ],
)
def test_actions(action: str, policies: dict[str, Json], allowed: bool | None, matched: str) -> None:
    decision = evaluate(rules(action, **policies), HttpRequest(), Connection())
    assert (decision.allowed, decision.policy) == (allowed, matched)


def test_an_unknown_decision_says_what_is_missing() -> None:
    decision = evaluate(rules(a=UNKNOWN), HttpRequest(), Connection())
    assert decision.why == "whether a matches can't be told: a permission of its kind isn't understood here"


def test_an_unknown_principal_does_not_matter_where_the_permission_fails() -> None:
    it = policy(
        {"header": {"name": ":method", "string_match": {"exact": "GET"}}}, {"filter_state": {"key": "x"}}
    )
    assert evaluate(rules(a=it), HttpRequest("POST"), peer()).allowed is False
    assert evaluate(rules(a=it), HttpRequest("GET"), peer()).allowed is None


def test_a_condition_in_cel_is_not_understood() -> None:
    assert evaluate(rules(a={**ANY, "condition": {}}), HttpRequest(), peer()).allowed is None


@pytest.mark.parametrize(
    ("names", "principal", "expected"),
    [
        ((REVIEWS,), {"exact": REVIEWS}, True),
        ((REVIEWS,), {"safe_regex": {"regex": ".*/ns/bookinfo/.*"}}, True),
        (("spiffe://a/b", REVIEWS), {"exact": REVIEWS}, True),
        ((), {"safe_regex": {"regex": ".*"}}, False),
        # The subject is tried too, and Istio's is empty.
        ((REVIEWS,), {"exact": ""}, True),
        ((REVIEWS,), {"safe_regex": {"regex": "[^/]*"}}, True),
        ((REVIEWS, "CN=reviews"), {"exact": ""}, False),
        ((REVIEWS, "CN=reviews"), {"exact": "CN=reviews"}, True),
    ],
)
def test_principals(names: tuple[str, ...], principal: Json, expected: bool) -> None:
    assert matches({"authenticated": {"principal_name": principal}}, connection=peer(*names)) is expected


def test_without_a_name_any_tls_is_authenticated() -> None:
    assert matches({"authenticated": {}}, connection=Connection(tls=True)) is True
    assert matches({"authenticated": {}}, connection=Connection()) is False


def test_tls_without_a_client_certificate_has_the_empty_name() -> None:
    some: Json = {"authenticated": {"principal_name": {"safe_regex": {"regex": ".+"}}}}
    assert matches(some, connection=Connection(server_name="reviews")) is False


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"destination_port": 9080}, True),
        ({"destination_port": 0}, False),
        ({"destination_port_range": {"start": 9080, "end": 9081}}, True),
        ({"destination_port_range": {"start": 9000, "end": 9080}}, False),
        ({"destination_ip": {"address_prefix": "10.0.0.9", "prefix_len": 24}}, True),
        ({"source_ip": {"address_prefix": "10.0.0.1", "prefix_len": 32}}, True),
        ({"remote_ip": {"address_prefix": "10.0.0.2", "prefix_len": 32}}, False),
        ({"requested_server_name": {"exact": ""}}, True),
        ({"url_path": {"path": {"exact": "/a"}}}, True),
        ({"and_ids": {"ids": []}}, True),
        ({"or_rules": {"rules": []}}, False),
        ({"not_id": {"any": True}}, False),
        ({"metadata": {"filter": "jwt", "path": [{"key": "iss"}], "value": {"present_match": True}}}, False),
        ({"sourced_metadata": {"metadata_matcher": {"filter": "jwt"}, "metadata_source": "ROUTE"}}, None),
        ({"uri_template": {}}, None),
    ],
)
def test_conditions(condition: Json, expected: bool | None) -> None:
    assert matches(condition, HttpRequest(path="/a?b")) is expected


def test_addresses_that_are_not_known_are_not_guessed() -> None:
    assert matches({"destination_port": 80}, connection=Connection()) is None
    assert (
        matches({"source_ip": {"address_prefix": "10.0.0.0", "prefix_len": 8}}, connection=Connection())
        is None
    )


def test_the_address_behind_x_forwarded_for_depends_on_more_than_is_known_here() -> None:
    request = HttpRequest(headers=(("x-forwarded-for", "192.0.2.1"),))
    assert matches({"remote_ip": {"address_prefix": "10.0.0.1", "prefix_len": 32}}, request) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"list_match": {"one_of": {"string_match": {"exact": "admins"}}}}, True),
        ({"list_match": {"one_of": {"string_match": {"exact": "users"}}}}, False),
        ({"string_match": {"exact": "admins"}}, False),
        ({"or_match": {"value_matchers": [{"null_match": {}}, {"present_match": True}]}}, True),
    ],
)
def test_metadata(value: Json, expected: bool) -> None:
    connection = Connection(dynamic_metadata={"jwt": {"groups": ["admins"]}})
    matcher: Json = {"filter": "jwt", "path": [{"key": "groups"}], "value": value}
    assert matches({"metadata": matcher}, connection=connection) is expected
    assert matches({"metadata": {**matcher, "invert": True}}, connection=connection) is not expected


def test_on_tcp_no_header_and_no_path_is_there() -> None:
    header: Json = {"header": {"name": ":method", "present_match": False}}
    assert evaluate(rules(a=policy(header)), None, peer()).allowed is True
    assert evaluate(rules(a=policy({"url_path": {"path": {"prefix": "/"}}})), None, peer()).allowed is False


# --- explanation ------------------------------------------------------------------------------------------


def reasons(it: Json, request: HttpRequest, connection: Connection) -> list[str]:
    return [str(mismatch) for mismatch in explain(rules(it=it), request, connection)]


def method(name: str) -> Json:
    return {"header": {"name": ":method", "string_match": {"exact": name}}}


def path(name: str) -> Json:
    return {"url_path": {"path": {"exact": name}}}


def test_a_reader_is_told_what_is_there_and_what_is_wanted() -> None:
    it = policy(
        {
            "and_rules": {
                "rules": [{"or_rules": {"rules": [method("GET"), method("HEAD")]}}, path("/reviews")]
            }
        },
        {"and_ids": {"ids": [{"authenticated": {"principal_name": {"exact": REVIEWS}}}]}},
    )
    assert reasons(it, HttpRequest("POST", path="/x?y"), peer("spiffe://cluster.local/ns/a/sa/default")) == [
        "method is POST, the policy wants GET or HEAD; path is /x, the policy wants /reviews; "
        f"principal is spiffe://cluster.local/ns/a/sa/default, the policy wants {REVIEWS}"
    ]


def test_a_plaintext_caller_has_no_principal() -> None:
    it = policy(principal={"authenticated": {"principal_name": {"prefix": "spiffe://"}}})
    assert reasons(it, HttpRequest(), Connection()) == [
        "principal is absent (plaintext), the policy wants spiffe://*"
    ]


def test_of_alternatives_the_nearest_is_shown() -> None:
    alternatives = [
        {"and_rules": {"rules": [method("GET"), path("/a")]}},
        {"and_rules": {"rules": [method("POST"), path("/b")]}},
    ]
    it = {"permissions": alternatives, "principals": [{"any": True}]}
    assert reasons(it, HttpRequest("GET", path="/c"), peer()) == ["path is /c, the policy wants /a"]


def test_an_exclusion_that_holds_is_shown_as_such() -> None:
    it = policy({"not_rule": {"or_rules": {"rules": [path("/a"), path("/b")]}}})
    assert reasons(it, HttpRequest(path="/a"), peer()) == ["path is /a, the policy wants anything but /a"]


def test_what_cannot_be_judged_is_said() -> None:
    assert reasons(UNKNOWN, HttpRequest(), peer()) == [
        "a permission of its kind can't be judged: a permission of its kind isn't understood here"
    ]


def test_policies_that_match_need_no_explanation() -> None:
    assert explain(rules(a=ANY), HttpRequest(), peer()) == []


# --- a real Istio -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ratings(request: pytest.FixtureRequest) -> ConfigDump:
    """The ratings pod's dump of a recorded mesh with a DENY policy for reviews."""
    archive = Path(__file__).parents[1] / "data/istio/authz-deny.tar.gz"
    with tarfile.open(archive) as bundle:
        name = next(n for n in bundle.getnames() if "/ratings-" in n and n.endswith("config_dump.json"))
        member = bundle.extractfile(name)
        assert member is not None
        return ConfigDump(member.read())


def _decisions(
    dump: ConfigDump, request: HttpRequest, connection: Connection
) -> set[tuple[bool | None, str]]:
    found: list[Decision] = []
    for chain in (chain for listener in dump.listeners for chain in listener.filter_chains):
        network = chain.network_filter("network.rbac.v3.RBAC")
        if network and (engine := network.decode(NetworkRbac).rules):
            found.append(evaluate(engine, None, connection))
        manager = chain.network_filter("HttpConnectionManager")
        for http_filter in manager.decode(HttpConnectionManager).http_filters if manager else ():
            if http_filter.type_url.endswith("http.rbac.v3.RBAC"):
                engine = http_filter.decode(HttpRbac).rules
                assert engine is not None
                found.append(evaluate(engine, request, connection))
    return {(decision.allowed, decision.policy) for decision in found}


def test_the_recorded_denial(ratings: ConfigDump) -> None:
    denied = "ns[bookinfo]-policy[ratings-deny]-rule[0]"
    assert _decisions(ratings, HttpRequest("GET", path="/ratings/0"), peer(REVIEWS)) == {(False, denied)}
    other = peer("spiffe://cluster.local/ns/bookinfo/sa/bookinfo-details")
    assert _decisions(ratings, HttpRequest("GET", path="/ratings/0"), other) == {(True, "")}
