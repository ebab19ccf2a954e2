"""Virtual hosts, routes, and the exact shares of fractions and weights."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from meshscope.envoy.config_dump import HttpConnectionManager, RouteConfiguration
from meshscope.envoy.request import Connection, HttpRequest
from meshscope.envoy.routes import RouteOutcome, normalized, route, virtual_host
from meshscope.envoy.shares import RandomNumbers

Json = dict[str, Any]


def configuration(*hosts: Json, **options: Any) -> RouteConfiguration:
    return msgspec.convert({"virtual_hosts": list(hosts), **options}, RouteConfiguration)


def routes(*table: Json, **options: Any) -> RouteConfiguration:
    return configuration({"name": "all", "domains": ["*"], "routes": list(table)}, **options)


def to(name: str, **match: Any) -> Json:
    return {"name": name, "match": match or {"prefix": "/"}, "route": {"cluster": name}}


def percent(numerator: int, denominator: str = "HUNDRED") -> Json:
    return {"default_value": {"numerator": numerator, "denominator": denominator}}


def shares(outcomes: tuple[RouteOutcome, ...]) -> dict[str, float]:
    return {outcome.cluster or outcome.kind: round(outcome.share, 9) for outcome in outcomes}


def taken(config: RouteConfiguration, **request: Any) -> str:
    (outcome,) = route(config, HttpRequest(**{"authority": "x", **request}))
    return outcome.route.name if outcome.route else outcome.kind


# --- virtual hosts ----------------------------------------------------------------------------------------

HOSTS = configuration(
    *(
        {"name": domain, "domains": [domain]}
        for domain in ("a.example.com", "*.example.com", "*-b.example.com", "a.*", "a.example.*", "*", "p:80")
    )
)


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("A.Example.com", "a.example.com"),
        ("x.example.com", "*.example.com"),
        ("x-b.example.com", "*-b.example.com"),
        ("a.y.example.com", "*.example.com"),
        ("a.example.org", "a.example.*"),
        ("a.b", "a.*"),
        ("a.", "*"),
        (".example.com", "*"),
        ("p:80", "p:80"),
        ("p", "*"),
        ("a.example.com:80", "a.example.*"),
    ],
)
def test_the_domain_that_fits_best(authority: str, expected: str) -> None:
    found = virtual_host(HOSTS, authority)
    assert found is not None
    assert found.name == expected


def test_the_port_can_be_left_out_of_the_comparison() -> None:
    config = configuration({"name": "v6", "domains": ["[::1]"]}, ignore_port_in_host_matching=True)
    assert virtual_host(config, "[::1]:80") == virtual_host(config, "[::1]") == config.virtual_hosts[0]


def test_no_virtual_host() -> None:
    assert route(configuration({"domains": ["a"]}), HttpRequest(authority="b")) == (
        RouteOutcome("no_vhost", 1.0),
    )


def test_a_match_tree_is_not_understood_and_says_so() -> None:
    config = configuration({"name": "tree", "domains": ["*"], "matcher": {}})
    (outcome,) = route(config, HttpRequest(authority="x"))
    assert outcome.kind == "unknown"
    assert "match tree" in outcome.why


@pytest.mark.parametrize(
    ("forwarded", "connection", "expected"),
    [
        ((), Connection(), "redirect"),
        ((), Connection(mtls=True), "no_route"),
        ((("x-forwarded-proto", "https"),), Connection(), "no_route"),
        ((("x-forwarded-proto", "http"),), Connection(mtls=True), "redirect"),
        ((("x-forwarded-proto", "ftp"),), Connection(mtls=True), "redirect"),
    ],
)
def test_require_tls(forwarded: tuple[tuple[str, str], ...], connection: Connection, expected: str) -> None:
    config = configuration({"name": "secure", "domains": ["*"], "require_tls": "ALL"})
    (outcome,) = route(config, HttpRequest(authority="x", headers=forwarded), connection)
    assert outcome.kind == expected


# --- matches ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("match", "path", "expected"),
    [
        ({"prefix": "/a"}, "/ab", True),
        ({"prefix": "/a?b"}, "/a?b", False),
        ({"prefix": "/A", "case_sensitive": False}, "/ab", True),
        ({"path": "/a"}, "/a?b=c", True),
        ({"path": "/a"}, "/a/", False),
        ({"path": "/A", "case_sensitive": False}, "/a", True),
        ({"safe_regex": {"regex": "/a"}}, "/ab", False),
        ({"safe_regex": {"regex": "/a"}}, "/a?b", True),
        ({"safe_regex": {"regex": "/A"}, "case_sensitive": False}, "/a", False),
        ({"path_separated_prefix": "/a"}, "/a", True),
        ({"path_separated_prefix": "/a"}, "/a/b", True),
        ({"path_separated_prefix": "/a"}, "/ab", False),
        ({"connect_matcher": {}}, "/a", False),
    ],
)
def test_paths(match: Json, path: str, expected: bool) -> None:
    assert (taken(routes(to("it", **match)), path=path) == "it") is expected


def test_path_parameters_can_be_left_out_segment_by_segment() -> None:
    config = routes(to("it", path="/a/b"), ignore_path_parameters_in_path_matching=True)
    assert taken(config, path="/a;x/b;y?c;d") == "it"


def test_a_connect_request_has_no_path_and_needs_a_connect_matcher() -> None:
    config = routes(to("rest"), to("tunnel", connect_matcher={}))
    assert taken(config, method="CONNECT", path="") == "tunnel"
    config = routes(to("grpc", connect_matcher={}, grpc={}))
    assert (
        taken(config, method="CONNECT", path="", headers=(("content-type", "application/grpc"),))
        == "no_route"
    )


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [("application/grpc", True), ("application/grpc+proto", True), ("application/grpc-web", False)],
)
def test_grpc(content_type: str, expected: bool) -> None:
    config = routes(to("it", prefix="/", grpc={}))
    assert (taken(config, headers=(("content-type", content_type),)) == "it") is expected


def test_all_conditions_of_a_route_must_hold() -> None:
    match = {
        "headers": [{"name": "user", "string_match": {"exact": "tester"}}],
        "query_parameters": [{"name": "v"}],
    }
    config = routes(to("it", prefix="/", **match), to("rest"))
    assert taken(config, path="/?v=1", headers=(("user", "tester"),)) == "it"
    assert taken(config, path="/?v=1") == "rest"


def test_a_condition_that_is_not_understood_ends_the_search() -> None:
    config = routes(to("it", prefix="/", filter_state=[{"key": "x"}]), to("rest"))
    (outcome,) = route(config, HttpRequest(authority="x"))
    assert (outcome.kind, outcome.why) == ("unknown", "the route asks for filter state")


def test_a_condition_that_is_not_understood_does_not_matter_where_another_fails() -> None:
    config = routes(to("it", prefix="/a", filter_state=[{"key": "x"}]), to("rest"))
    assert taken(config, path="/b") == "rest"


def test_a_path_specifier_of_a_later_envoy_is_not_understood() -> None:
    (outcome,) = route(routes(to("it", by_telepathy={})), HttpRequest(authority="x"))
    assert outcome.kind == "unknown"


# --- what a route does ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "kind", "status"),
    [
        ({"redirect": {}}, "redirect", 301),
        ({"redirect": {"response_code": "TEMPORARY_REDIRECT"}}, "redirect", 307),
        ({"direct_response": {"status": 418}}, "direct_response", 418),
        ({"non_forwarding_action": {}}, "non_forwarding", 0),
        ({"route": {"cluster_specifier_plugin": "lua"}}, "unknown", 0),
        ({}, "unknown", 0),
    ],
)
def test_actions(action: Json, kind: str, status: int) -> None:
    (outcome,) = route(routes({"match": {"prefix": "/"}, **action}), HttpRequest(authority="x"))
    assert (outcome.kind, outcome.status) == (kind, status)


def test_the_cluster_can_come_from_a_header() -> None:
    config = routes({"match": {"prefix": "/"}, "route": {"cluster_header": "x-to"}})
    (outcome,) = route(config, HttpRequest(headers=(("x-to", "a"), ("x-to", "b"))))
    assert (outcome.kind, outcome.cluster) == ("cluster_header", "a")


# --- shares -----------------------------------------------------------------------------------------------


def weighted(name: str, weights: dict[str, int], match: Json | None = None, **options: Any) -> Json:
    clusters = [{"name": cluster, "weight": weight} for cluster, weight in weights.items()]
    action = {"weighted_clusters": {"clusters": clusters, **options}}
    return {"name": name, "match": match or {"prefix": "/"}, "route": action}


def test_weights_are_parts_of_their_sum_whatever_the_total_says() -> None:
    config = routes(weighted("it", {"v1": 90, "v2": 9, "v3": 0}, total_weight=1000))
    assert shares(route(config, HttpRequest())) == {"v1": round(90 / 99, 9), "v2": round(9 / 99, 9)}


def test_fractions_of_one_table_use_one_number() -> None:
    config = routes(
        to("first", prefix="/", runtime_fraction=percent(30)),
        to("second", prefix="/", runtime_fraction=percent(50)),
    )
    assert shares(route(config, HttpRequest())) == {"first": 0.3, "second": 0.2, "no_route": 0.5}


def test_a_fraction_and_the_weights_behind_it_use_one_number_too() -> None:
    match = {"prefix": "/", "runtime_fraction": percent(50)}
    config = routes(weighted("it", {"a": 50, "b": 50}, match), to("rest"))
    assert shares(route(config, HttpRequest())) == {"a": 0.5, "rest": 0.5}


def test_fractions_of_coprime_moduli_are_independent() -> None:
    match = {"prefix": "/", "runtime_fraction": percent(50)}
    config = routes(weighted("it", {"a": 1, "b": 2}, match), to("rest"))
    assert shares(route(config, HttpRequest())) == {
        "a": round(1 / 6, 9),
        "b": round(1 / 3, 9),
        "rest": 0.5,
    }


def test_a_request_can_bring_its_number_along() -> None:
    config = routes(weighted("it", {"a": 1, "b": 2}, header_name="x-number"))
    assert shares(route(config, HttpRequest(headers=(("x-number", "3"),)))) == {"a": 1.0}
    assert len(route(config, HttpRequest(headers=(("x-number", "3"), ("x-number", "4"))))) == 2


def test_an_unknown_condition_behind_a_fraction_has_the_fractions_share() -> None:
    match = {"prefix": "/", "runtime_fraction": percent(25), "filter_state": [{}]}
    config = routes(to("it", **match), to("rest"))
    assert [(o.kind, o.share) for o in route(config, HttpRequest())] == [("unknown", 0.25), ("cluster", 0.75)]


def test_shares_of_many_odd_moduli_stay_near_the_truth() -> None:
    numbers = RandomNumbers()
    for modulus in (999_983, 999_979, 999_961):
        numbers = numbers.within(modulus, 0, modulus // 2)
    assert numbers.share == pytest.approx(0.125, rel=1e-5)


# --- what the connection manager does before --------------------------------------------------------------


def test_normalization_of_path_host_and_scheme() -> None:
    manager = HttpConnectionManager(
        normalize_path=True, strip_any_host_port=True, strip_trailing_host_dot=True
    )
    request = normalized(manager, HttpRequest(authority="a.b.:80", path="/x/../y?z"), Connection(mtls=True))
    assert (request.authority, request.path, request.scheme) == ("a.b", "/y?z", "https")
    assert request.header("x-forwarded-proto") == "https"


def test_only_the_listeners_own_port_is_stripped_where_it_must_match() -> None:
    manager = HttpConnectionManager(strip_matching_host_port=True)
    connection = Connection(destination_port=80)
    assert normalized(manager, HttpRequest(authority="[::1]:80"), connection).authority == "[::1]"
    assert normalized(manager, HttpRequest(authority="a:81"), connection).authority == "a:81"


def test_an_edge_proxy_does_not_believe_the_callers_scheme() -> None:
    manager = HttpConnectionManager(use_remote_address=True)
    request = normalized(manager, HttpRequest(headers=(("x-forwarded-proto", "https"),)), Connection())
    assert request.header("x-forwarded-proto") == request.scheme == "http"
