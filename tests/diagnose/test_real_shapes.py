"""Verdicts on faults in the shapes of a real istiod: one sample, Istio's default statistics, JSON logs."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from meshscope.diagnose.diagnose import diagnose
from meshscope.facts.mesh import Mesh
from meshscope.model.findings import Report
from meshscope.sources.bundle import open_bundle
from tests.diagnose.shapes import NAMESPACE, Json, Shape

CASES: dict[str, tuple[str, Callable[[], Shape]]] = {}
HEALTHY = "none"


def case(cause: str) -> Callable[[Callable[[], Shape]], Callable[[], Shape]]:
    """Registers a bundle, with the cause that must come first and stand alone (of several that can't be told apart: all)."""

    def register(build: Callable[[], Shape]) -> Callable[[], Shape]:
        CASES[build.__name__] = (cause, build)
        return build

    return register


def verdict(path: Path) -> Report:
    source = open_bundle(path)
    try:
        return diagnose(Mesh(source))
    finally:
        source.close()


def reset(text: str, **more: Any) -> Json:
    """The caller's fields of a request that ended before any response."""
    details = f"upstream_reset_before_response_started{{{text}}}"
    reason = text.partition("|")[2] or None
    return {
        "response_code": 503,
        "response_code_details": details,
        "response_flags": "URX,UF",
        "upstream_transport_failure_reason": reason,
    } | more


CLOSED = reset("connection_termination", response_flags="UC")
RESET_BY_PEER = reset(
    "remote_connection_failure|TLS_error:|33554536:system_library:OPENSSL_internal:Connection_reset_by_peer:TLS_error_end"
)
REFUSED = "delayed_connect_error:_Connection_refused"
DENIED: Json = {"response_code": 403}


def no_host(flags: str, details: str, code: int = 503, **more: Any) -> Json:
    return {
        "response_code": code,
        "response_code_details": details,
        "response_flags": flags,
        "upstream_host": None,
        "upstream_local_address": None,
        "upstream_service_time": None,
    } | more


def full(service: str, subset: str = "") -> str:
    return f"outbound|9080|{subset}|{service}.{NAMESPACE}.svc.cluster.local"


# --- nothing is wrong


@case(HEALTHY)
def quiet() -> Shape:
    shape = Shape()
    shape.quiet_traffic()
    return shape


@case(HEALTHY)
def quiet_permissive() -> Shape:
    shape = Shape()
    shape.peer_authentication("PERMISSIVE")
    shape.quiet_traffic()
    return shape


@case(HEALTHY)
def quiet_after_old_failures() -> Shape:
    shape = Shape()
    shape.call("client", "ratings", count=5, path="/ratings/0", seen=CLOSED, silent=True, ago_s=420)
    shape.call("client", "ratings", count=12, path="/ratings/0", ago_s=200)
    shape.quiet_traffic()
    return shape


@case(HEALTHY)
def an_unused_service_without_pods() -> Shape:
    shape = Shape()
    shape.quiet_traffic()
    empty(shape, "details", ["nobody"])
    shape._lines = {
        app: [line for line in lines if "details" not in str(line)] for app, lines in shape._lines.items()
    }
    deployment = shape.object("Deployment", "details-v1")
    deployment["spec"]["replicas"] = 0
    return shape


def empty(shape: Shape, service: str, clients: list[str], subset: str = "") -> None:
    """No endpoints for a service in all proxies, by EDS."""
    for app in shape.apps:
        for name in [full(service, subset)]:
            try:
                section = shape._section(app, "EndpointsConfigDump")["dynamic_endpoint_configs"]
                for entry in section:
                    if entry["endpoint_config"]["cluster_name"] == name:
                        entry["endpoint_config"].pop("endpoints", None)
                next(s for s in shape.statuses(app) if s["name"] == name).pop("host_statuses", None)
            except StopIteration:
                pass


# --- identity and TLS


@case("client-plaintext-server-strict")
def told_to_send_plaintext() -> Shape:
    shape = Shape()
    shape.quiet_traffic()
    shape.tls_mode("ratings", "DISABLE")
    shape.call("client", "ratings", path="/ratings/0", seen=CLOSED, silent=True)
    shape.refused("ratings", shape.ip("client"))
    return shape


@case("client-without-sidecar-server-strict")
def outsider() -> Shape:
    shape = Shape()
    shape.quiet_traffic()
    shape.refused("ratings", "10.88.1.10")
    return shape


@case("auto-mtls-endpoint-not-labelled")
def endpoint_without_label() -> Shape:
    shape = Shape()
    shape.quiet_traffic()
    for app in shape.apps:
        for endpoint in shape.endpoints(app, full("ratings")):
            del endpoint["metadata"]["filter_metadata"]["envoy.transport_socket_match"]
    del shape.pod("ratings")["metadata"]["labels"]["security.istio.io/tlsMode"]
    shape._lines = {}
    shape.call("client", "ratings", path="/ratings/0", seen=CLOSED, silent=True)
    shape.refused("ratings", shape.ip("client"))
    return shape


@case("client-mtls-server-disable")
def mutual_to_disable() -> Shape:
    shape = Shape()
    shape.quiet_traffic()
    shape._lines = {}
    shape.tls_mode("ratings", "ISTIO_MUTUAL")
    shape.peer_authentication("DISABLE", "ratings")
    shape.call("client", "ratings", path="/ratings/0", seen=RESET_BY_PEER, silent=True)
    shape.refused(
        "ratings", shape.ip("client"), sni="outbound_.9080_._.ratings.bookinfo.svc.cluster.local", count=24
    )
    return shape


def without_sidecar(shape: Shape, app: str, opted_out: bool = True) -> None:
    """The pod as it is without injection; its proxy isn't there."""
    pod = shape.pod(app)
    pod["spec"]["initContainers"] = []
    pod["status"]["initContainerStatuses"] = []
    labels = pod["metadata"]["labels"]
    for key in [k for k in labels if "istio" in k]:
        del labels[key]
    pod["metadata"]["annotations"] = {}
    if opted_out:
        labels["sidecar.istio.io/inject"] = "false"
        deployment = shape.object("Deployment", f"{app}-v1")
        deployment["spec"]["template"]["metadata"]["labels"]["sidecar.istio.io/inject"] = "false"
    service = app.partition("-v")[0]
    for one in shape.apps:
        if one == app:
            continue
        for endpoint in shape.endpoints(one, full(service)):
            endpoint["metadata"]["filter_metadata"].pop("envoy.transport_socket_match", None)
    ip = shape.ip(app)
    shape.without(app)
    for path, data in shape.files.items():
        if path.endswith("syncz.json"):
            shape.files[path] = [
                entry for entry in data if not entry["proxy"].startswith(pod["metadata"]["name"])
            ]
    assert ip


WRONG_VERSION = reset(
    "remote_connection_failure|TLS_error:|268435703:SSL_routines:OPENSSL_internal:WRONG_VERSION_NUMBER:TLS_error_end"
)


@case("client-mtls-server-without-sidecar")
def mutual_to_a_pod_without_sidecar() -> Shape:
    shape = Shape()
    shape.tls_mode("details", "ISTIO_MUTUAL")
    ip = shape.ip("details")
    without_sidecar(shape, "details")
    shape.call("client", "ratings", path="/ratings/0")
    shape.call(
        "client", "details", "nobody", path="/details/0", seen=WRONG_VERSION | {"upstream_host": f"{ip}:9080"}
    )
    return shape


@case("client-sends-no-certificate")
def simple_to_strict() -> Shape:
    shape = Shape()
    shape.quiet_traffic()
    shape._lines = {}
    shape.tls_mode("ratings", "SIMPLE")
    shape.call("client", "ratings", path="/ratings/0", seen=CLOSED, silent=True)
    return shape


@case("tls-without-istio-alpn")
def simple_to_permissive() -> Shape:
    shape = Shape()
    shape.peer_authentication("PERMISSIVE")
    shape.tls_mode("ratings", "SIMPLE")
    shape.call("client", "ratings", path="/ratings/0", seen=RESET_BY_PEER, silent=True)
    shape.refused("ratings", shape.ip("client"), sni=None)
    return shape


@case("san-mismatch-service-account")
def wrong_names_wanted() -> Shape:
    shape = Shape()
    shape.destination_rule(
        "ratings",
        {"tls": {"mode": "ISTIO_MUTUAL", "subjectAltNames": ["spiffe://cluster.local/ns/bookinfo/sa/other"]}},
    )
    for app in shape.apps:
        cluster = shape.cluster(app, full("ratings"))
        socket = cluster.pop("transport_socket_matches")[0]["transport_socket"]
        socket["typed_config"]["common_tls_context"]["combined_validation_context"][
            "default_validation_context"
        ] = {"match_subject_alt_names": [{"exact": "spiffe://cluster.local/ns/bookinfo/sa/other"}]}
        cluster["transport_socket"] = socket
    text = (
        "remote_connection_failure|TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:"
        "verify_cert_failed:_SAN_matcher,_certificate_SANs_are_[spiffe://cluster.local/ns/bookinfo/sa/bookinfo-ratings]:TLS_error_end"
    )
    shape.call("client", "ratings", path="/ratings/0", seen=reset(text), silent=True)
    return shape


# --- authorization


def rbac(shape: Shape, app: str, action: str, policies: Json, shadow: bool = False) -> None:
    for manager in shape.inbound_managers(app):
        rules = {"action": action, "policies": policies}
        config: Json = {"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"}
        config["shadow_rules" if shadow else "rules"] = rules
        config["shadow_rules_stat_prefix"] = (
            "istio_dry_run_allow_" if action == "ALLOW" else "istio_dry_run_deny_"
        )
        manager["http_filters"].insert(0, {"name": "envoy.filters.http.rbac", "typed_config": config})


def both(rules: list[Json], key: str) -> Json:
    inner, outer = ("or_rules", "and_rules") if key == "rules" else ("or_ids", "and_ids")
    return {outer: {key: [{inner: {key: [rule]}} for rule in rules]}}


def principal(name: str) -> Json:
    return {"authenticated": {"principal_name": {"exact": f"spiffe://cluster.local/ns/bookinfo/sa/{name}"}}}


def matched(what: str) -> Json:
    return {
        "response_code": 403,
        "response_code_details": f"rbac_access_denied_matched_policy[{what}]",
        "response_flags": "-",
        "bytes_sent": 19,
        "upstream_host": None,
        "upstream_local_address": None,
        "upstream_service_time": None,
    }


def policy(shape: Shape, name: str, spec: Json) -> None:
    shape.add("AuthorizationPolicy", name, spec, "security.istio.io")


@case("deny-policy")
def denied_path() -> Shape:
    shape = Shape()
    shape.quiet_traffic()
    operation = {"header": {"name": ":path", "string_match": {"prefix": "/admin"}}}
    rule = {"url_path": {"path": {"prefix": "/admin"}}}
    rules = {"permissions": [both([rule], "rules")], "principals": [both([{"any": True}], "ids")]}
    rbac(shape, "details", "DENY", {"ns[bookinfo]-policy[no-admin]-rule[0]": rules})
    policy(
        shape,
        "no-admin",
        {
            "action": "DENY",
            "selector": {"matchLabels": {"app": "details"}},
            "rules": [{"to": [{"operation": {"paths": ["/admin*"]}}]}],
        },
    )
    told = matched("ns[bookinfo]-policy[no-admin]-rule[0]")
    shape.call("client", "details", path="/admin/x", seen=DENIED, told=told)
    assert operation
    return shape


@case("implicit-deny-by-allow-policy")
def not_allowed() -> Shape:
    shape = Shape()
    shape.quiet_traffic()
    rules = {
        "permissions": [both([{"any": True}], "rules")],
        "principals": [both([principal("bookinfo-reviews")], "ids")],
    }
    rbac(shape, "ratings", "ALLOW", {"ns[bookinfo]-policy[only-reviews]-rule[0]": rules})
    policy(
        shape,
        "only-reviews",
        {
            "action": "ALLOW",
            "selector": {"matchLabels": {"app": "ratings"}},
            "rules": [
                {"from": [{"source": {"principals": ["cluster.local/ns/bookinfo/sa/bookinfo-reviews"]}}]}
            ],
        },
    )
    shape.call("client", "ratings", path="/ratings/0", seen=DENIED, told=matched("none"))
    return shape


@case("allow-nothing")
def allow_nothing() -> Shape:
    shape = Shape()
    shape.call("client", "productpage", path="/productpage")
    rules = {"permissions": [{"not_rule": {"any": True}}], "principals": [{"not_id": {"any": True}}]}
    rbac(shape, "ratings", "ALLOW", {"ns[bookinfo]-policy[nothing]-rule[0]": rules})
    policy(shape, "nothing", {"selector": {"matchLabels": {"app": "ratings"}}})
    shape.call("client", "ratings", path="/ratings/0", seen=DENIED, told=matched("none"))
    return shape


@case("no-peer-identity-for-principal-policy")
def identity_wanted_of_a_plaintext_caller() -> Shape:
    shape = Shape()
    shape.peer_authentication("PERMISSIVE")
    shape.tls_mode("ratings", "DISABLE")
    rules = {
        "permissions": [both([{"any": True}], "rules")],
        "principals": [both([principal("client")], "ids")],
    }
    rbac(shape, "ratings", "ALLOW", {"ns[bookinfo]-policy[only-client]-rule[0]": rules})
    policy(
        shape,
        "only-client",
        {
            "action": "ALLOW",
            "selector": {"matchLabels": {"app": "ratings"}},
            "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/bookinfo/sa/client"]}}]}],
        },
    )
    shape.call(
        "client",
        "ratings",
        path="/ratings/0",
        seen=DENIED,
        told=matched("none") | {"requested_server_name": None},
    )
    return shape


@case(HEALTHY)
def dry_run_only() -> Shape:
    shape = Shape()
    rules = {
        "permissions": [both([{"any": True}], "rules")],
        "principals": [both([principal("client")], "ids")],
    }
    rbac(shape, "ratings", "DENY", {"ns[bookinfo]-policy[perhaps]-rule[0]": rules}, shadow=True)
    policy(
        shape,
        "perhaps",
        {
            "action": "DENY",
            "selector": {"matchLabels": {"app": "ratings"}},
            "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/bookinfo/sa/client"]}}]}],
        },
    )
    shape.objects[-1]["metadata"]["annotations"] = {"istio.io/dry-run": "true"}
    shape.call("client", "ratings", path="/ratings/0")
    return shape


def jwt_filter(shape: Shape, app: str) -> None:
    config = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": {
            "origins-0": {
                "issuer": "testing@secure.istio.io",
                "local_jwks": {"inline_string": '{"keys":[]}'},
                "payload_in_metadata": "payload",
                "normalize_payload_in_metadata": {"space_delimited_claims": ["scope", "permission"]},
            }
        },
        "rules": [
            {
                "match": {"prefix": "/"},
                "requires": {
                    "requires_any": {"requirements": [{"provider_name": "origins-0"}, {"allow_missing": {}}]}
                },
            }
        ],
        "bypass_cors_preflight": True,
    }
    for manager in shape.inbound_managers(app):
        manager["http_filters"].insert(0, {"name": "envoy.filters.http.jwt_authn", "typed_config": config})
    shape.add(
        "RequestAuthentication",
        "jwt",
        {
            "selector": {"matchLabels": {"app": app}},
            "jwtRules": [{"issuer": "testing@secure.istio.io", "jwks": '{"keys":[]}'}],
        },
        "security.istio.io",
    )


@case("jwt-invalid")
def expired_token() -> Shape:
    shape = Shape()
    jwt_filter(shape, "details")
    told = matched("") | {
        "response_code": 401,
        "response_code_details": "jwt_authn_access_denied{Jwt_is_expired}",
    }
    shape.call("client", "details", path="/details/0", seen={"response_code": 401}, told=told)
    return shape


@case("jwt-missing / implicit-deny-by-allow-policy")
def token_missing() -> Shape:
    shape = Shape()
    jwt_filter(shape, "details")
    principals = both(
        [
            {
                "metadata": {
                    "filter": "envoy.filters.http.jwt_authn",
                    "path": [{"key": "payload"}, {"key": "iss"}],
                    "value": {"string_match": {"exact": "testing@secure.istio.io"}},
                }
            },
            {
                "metadata": {
                    "filter": "envoy.filters.http.jwt_authn",
                    "path": [{"key": "payload"}, {"key": "sub"}],
                    "value": {"string_match": {"exact": "testing@secure.istio.io"}},
                }
            },
        ],
        "ids",
    )
    rules = {"permissions": [both([{"any": True}], "rules")], "principals": [principals]}
    for manager in shape.inbound_managers("details"):
        manager["http_filters"].insert(
            1,
            {
                "name": "envoy.filters.http.rbac",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
                    "rules": {
                        "action": "ALLOW",
                        "policies": {"ns[bookinfo]-policy[need-jwt]-rule[0]": rules},
                    },
                },
            },
        )
    policy(
        shape,
        "need-jwt",
        {
            "action": "ALLOW",
            "selector": {"matchLabels": {"app": "details"}},
            "rules": [
                {
                    "from": [
                        {"source": {"requestPrincipals": ["testing@secure.istio.io/testing@secure.istio.io"]}}
                    ]
                }
            ],
        },
    )
    shape.call("client", "details", path="/details/0", seen=DENIED, told=matched("none"))
    return shape


# --- circuit breaking


def thresholds(shape: Shape, service: str, **limits: int) -> None:
    for app in shape.apps:
        for cluster in shape.clusters(app):
            if cluster["name"].endswith(f"|{service}.{NAMESPACE}.svc.cluster.local"):
                cluster["circuit_breakers"]["thresholds"][0].update(limits)


@case("max-pending")
def pending_overflow() -> Shape:
    shape = Shape()
    shape.destination_rule(
        "details", {"connectionPool": {"tcp": {"maxConnections": 1}, "http": {"http1MaxPendingRequests": 1}}}
    )
    thresholds(shape, "details", max_connections=1, max_pending_requests=1)
    shape.call("client", "details", path="/details/0", count=4)
    shape.call(
        "client",
        "details",
        path="/details/0",
        seen=no_host("UO", "upstream_reset_before_response_started{overflow}"),
        silent=True,
    )
    return shape


@case("max-requests")
def request_overflow() -> Shape:
    shape = Shape()
    shape.destination_rule("details", {"connectionPool": {"http": {"http2MaxRequests": 1}}})
    thresholds(shape, "details", max_requests=1)
    shape.call("client", "details", path="/details/0", count=4)
    seen = no_host("UO", "upstream_reset_before_response_started{overflow}") | {
        "upstream_host": f"{shape.ip('details')}:9080"
    }
    shape.call("client", "details", path="/details/0", seen=seen, silent=True)
    return shape


@case("all-endpoints-ejected")
def all_ejected() -> Shape:
    shape = Shape()
    shape.destination_rule(
        "ratings",
        {
            "outlierDetection": {
                "consecutive5xxErrors": 3,
                "baseEjectionTime": "60s",
                "maxEjectionPercent": 100,
            }
        },
    )
    for app in shape.apps:
        shape.cluster(app, full("ratings"))["outlier_detection"] = {
            "consecutive_5xx": 3,
            "interval": "5s",
            "base_ejection_time": "60s",
            "max_ejection_percent": 100,
            "enforcing_consecutive_5xx": 100,
        }
    for host in shape.hosts("client", full("ratings")):
        host["health_status"] = {"failed_outlier_check": True, "eds_health_status": "HEALTHY"}
        host["stats"] = [{"name": "rq_error", "value": "3"}, {"name": "rq_total", "value": "3"}]
    shape.call(
        "client",
        "ratings",
        path="/ratings/0",
        count=3,
        seen={"response_code": 500},
        told={"response_code": 500},
        ago_s=9,
    )
    shape.call("client", "ratings", path="/ratings/0", seen=no_host("UH", "no_healthy_upstream"), silent=True)
    return shape


# --- routing


@case("subset-not-defined")
def missing_subset() -> Shape:
    shape = Shape()
    shape.virtual_service(
        "ratings",
        [{"route": [{"destination": {"host": "ratings", "subset": "v9"}}]}],
        [shape.route("ratings", "v9")],
    )
    seen = no_host("NC", "cluster_not_found", upstream_cluster=None)
    shape.call("client", "ratings", path="/ratings/0", seen=seen, silent=True)
    return shape


@case("route-to-unknown-host")
def unknown_host_in_route() -> Shape:
    shape = Shape()
    # istiod: an unknown destination leads to BlackHoleCluster's sibling: no cluster of that name.
    route = shape.route("nosuch")
    shape.virtual_service("ratings", [{"route": [{"destination": {"host": "nosuch"}}]}], [route])
    shape.call(
        "client",
        "ratings",
        path="/ratings/0",
        seen=no_host("NC", "cluster_not_found", upstream_cluster=None),
        silent=True,
    )
    return shape


@case("no-matching-route")
def nothing_matches() -> Shape:
    shape = Shape()
    route = shape.route("details")
    route["match"] = {"prefix": "/only", "case_sensitive": True}
    shape.virtual_service(
        "details",
        [{"match": [{"uri": {"prefix": "/only"}}], "route": [{"destination": {"host": "details"}}]}],
        [route],
    )
    shape.call(
        "client",
        "details",
        path="/details/0",
        seen=no_host("NR", "route_not_found", 404, upstream_cluster=None, route_name=None),
        silent=True,
    )
    return shape


def registry_only(shape: Shape) -> None:
    for app in shape.apps:
        for entry in shape._section(app, "RoutesConfigDump")["dynamic_route_configs"]:
            config = entry["route_config"]
            hosts = [vh for vh in config["virtual_hosts"] if vh["name"] != "allow_any"]
            if any("*" in vh["domains"] for vh in hosts):
                continue
            hosts.append(
                {
                    "name": "block_all",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"prefix": "/"}, "direct_response": {"status": 502}, "name": "block_all"}
                    ],
                    "include_request_attempt_count": True,
                }
            )
            config["virtual_hosts"] = hosts


@case("registry-only")
def forbidden_outside() -> Shape:
    shape = Shape()
    registry_only(shape)
    seen = no_host(
        "-",
        "direct_response",
        502,
        upstream_cluster=None,
        route_name="block_all",
        authority="example.com:9080",
        downstream_local_address="93.184.216.34:9080",
    )
    shape.call("client", "details", path="/", seen=seen, silent=True)
    return shape


@case("registry-only")
def forbidden_service_that_is_not_there() -> Shape:
    """A typo in a Service's name ends alike."""
    shape = Shape()
    registry_only(shape)
    seen = no_host(
        "-", "direct_response", 502, upstream_cluster=None, route_name="block_all", authority="rating:9080"
    )
    shape.call("client", "details", path="/", seen=seen, silent=True)
    return shape


@case("sidecar-egress-hides-host")
def hidden_by_sidecar() -> Shape:
    shape = Shape()
    registry_only(shape)
    shape.add(
        "Sidecar",
        "default",
        {
            "egress": [{"hosts": ["istio-system/*", "./details.bookinfo.svc.cluster.local"]}],
            "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"},
        },
    )
    for app in shape.apps:
        routes = shape.routes(app)
        routes["virtual_hosts"] = [
            vh for vh in routes["virtual_hosts"] if vh["name"].startswith(("details", "block_all"))
        ]
        for service in ("ratings", "reviews", "productpage"):
            shape.remove_cluster(app, full(service))
    seen = no_host("-", "direct_response", 502, upstream_cluster=None, route_name="block_all")
    shape.call("client", "ratings", path="/ratings/0", seen=seen, silent=True)
    return shape


# --- endpoints


@case("no-endpoints")
def scaled_to_zero() -> Shape:
    shape = Shape()
    shape.quiet_traffic()
    shape._lines = {}
    shape.call("client", "ratings", "nobody", path="/ratings/0", seen=no_host("UH", "no_healthy_upstream"))
    empty(shape, "ratings", [])
    scale(shape, "ratings")
    return shape


def scale(shape: Shape, app: str) -> None:
    deployment = shape.object("Deployment", f"{app}-v1")
    deployment["spec"]["replicas"] = 0
    deployment["status"] = {"observedGeneration": 2}
    shape.objects.remove(shape.pod(app))
    for found in shape.objects:
        if found["kind"] == "EndpointSlice" and found["metadata"]["name"].startswith(app):
            found["endpoints"] = None
        if found["kind"] == "Endpoints" and found["metadata"]["name"] == app:
            found.pop("subsets", None)
        if found["kind"] == "ReplicaSet" and found["metadata"]["name"].startswith(app):
            found["spec"]["replicas"] = 0
    shape.without(app)


@case("service-selects-no-pods")
def wrong_selector() -> Shape:
    shape = Shape()
    shape.object("Service", "ratings")["spec"]["selector"] = {"app": "rating"}
    empty(shape, "ratings", [])
    for found in shape.objects:
        if found["kind"] == "EndpointSlice" and found["metadata"]["name"].startswith("ratings"):
            found["endpoints"] = None
        if found["kind"] == "Endpoints" and found["metadata"]["name"] == "ratings":
            found.pop("subsets", None)
    shape.call("client", "ratings", "nobody", path="/ratings/0", seen=no_host("UH", "no_healthy_upstream"))
    return shape


@case("subset-selects-no-pods")
def subset_without_pods() -> Shape:
    shape = Shape()
    shape.destination_rule("ratings", {}, [{"name": "v9", "labels": {"version": "v9"}}])
    for app in shape.apps:
        cluster = dict(shape.cluster(app, full("ratings")))
        cluster["name"] = full("ratings", "v9")
        cluster["eds_cluster_config"] = {"eds_config": {"ads": {}}, "service_name": cluster["name"]}
        cluster["metadata"] = {
            "filter_metadata": {"istio": {**cluster["metadata"]["filter_metadata"]["istio"], "subset": "v9"}}
        }
        shape.add_cluster(app, cluster)
        shape._section(app, "EndpointsConfigDump")["dynamic_endpoint_configs"].append(
            {"endpoint_config": {"cluster_name": cluster["name"], "policy": {"overprovisioning_factor": 140}}}
        )
        shape.statuses(app).append(
            {"name": cluster["name"], "added_via_api": True, "eds_service_name": cluster["name"]}
        )
    shape.virtual_service(
        "ratings",
        [{"route": [{"destination": {"host": "ratings", "subset": "v9"}}]}],
        [shape.route("ratings", "v9")],
    )
    shape.call(
        "client",
        "ratings",
        path="/ratings/0",
        silent=True,
        seen=no_host("UH", "no_healthy_upstream", upstream_cluster=full("ratings", "v9")),
    )
    return shape


@case("no-endpoints")
def never_ready() -> Shape:
    """The proxies hold unready pods as UNHEALTHY hosts."""
    shape = Shape()
    unready(shape, "ratings")
    empty(shape, "ratings", [])
    shape.call("client", "ratings", path="/ratings/0", seen=no_host("UH", "no_healthy_upstream"), silent=True)
    return shape


def unready(shape: Shape, app: str) -> None:
    pod = shape.pod(app)
    for condition in pod["status"]["conditions"]:
        if condition["type"] in ("Ready", "ContainersReady"):
            condition["status"] = "False"
    for status in pod["status"]["containerStatuses"]:
        status["ready"] = False
    for found in shape.objects:
        if found["kind"] == "EndpointSlice" and found["metadata"]["name"].startswith(app):
            for endpoint in found["endpoints"]:
                endpoint["conditions"] = {"ready": False, "serving": False, "terminating": False}
        if found["kind"] == "Endpoints" and found["metadata"]["name"] == app:
            for subset in found["subsets"]:
                subset["notReadyAddresses"] = subset.pop("addresses")


@case("app-not-listening")
def wrong_target_port() -> Shape:
    shape = Shape()
    told = reset(f"remote_connection_failure|{REFUSED}", response_flags="UF")
    shape.quiet_traffic()
    shape.call("client", "details", path="/details/0", seen={"response_code": 503}, told=told)
    return shape


@case("app-not-listening")
def service_with_a_wrong_target_port() -> Shape:
    """The Service's targetPort leads to a port that istiod makes no chain for: the sidecar passes it through."""
    shape = Shape()
    shape.object("Service", "details")["spec"]["ports"][0]["targetPort"] = 9999
    for found in shape.objects:
        if found["kind"] == "EndpointSlice" and found["metadata"]["name"].startswith("details"):
            found["ports"][0]["port"] = 9999
        if found["kind"] == "Endpoints" and found["metadata"]["name"] == "details":
            found["subsets"][0]["ports"][0]["port"] = 9999
    for app in shape.apps:
        for endpoint in shape.endpoints(app, full("details")):
            endpoint["endpoint"]["address"]["socket_address"]["port_value"] = 9999
        for host in shape.hosts(app, full("details")):
            host["address"]["socket_address"]["port_value"] = 9999
    for chain in shape.inbound_chains("details"):
        chain["filter_chain_match"]["destination_port"] = 9999
        chain["name"] = "0.0.0.0_9999"
        for filter_ in chain["filters"]:
            config = filter_["typed_config"]
            if "route_config" in config:
                config["stat_prefix"] = "inbound_0.0.0.0_9999;"
                config["route_config"]["name"] = "inbound|9999||"
                config["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["cluster"] = "inbound|9999||"
    shape.cluster("details", "inbound|9080||")["name"] = "inbound|9999||"
    ip = shape.ip("details")
    told = reset(f"remote_connection_failure|{REFUSED}", response_flags="UF") | {
        "upstream_cluster": "inbound|9999||",
        "upstream_host": f"{ip}:9999",
        "downstream_local_address": f"{ip}:9999",
    }
    shape.call(
        "client",
        "details",
        path="/details/0",
        seen={"response_code": 503, "upstream_host": f"{ip}:9999"},
        told=told,
    )
    return shape


@case("nothing-listens-at-endpoint")
def nothing_there() -> Shape:
    """A pod without sidecar whose application doesn't listen."""
    shape = Shape()
    ip = shape.ip("details")
    without_sidecar(shape, "details")
    shape.call(
        "client",
        "details",
        "nobody",
        path="/details/0",
        seen=reset(f"remote_connection_failure|{REFUSED}") | {"upstream_host": f"{ip}:9080"},
    )
    return shape


@case("app-closes-connection")
def application_closes() -> Shape:
    shape = Shape()
    shape.quiet_traffic()
    shape.call("client", "details", path="/details/0", seen={"response_code": 503}, told=CLOSED)
    return shape


@case("application-answer")
def application_says_500() -> Shape:
    shape = Shape()
    shape.quiet_traffic()
    shape.call(
        "client", "details", path="/details/0", seen={"response_code": 500}, told={"response_code": 500}
    )
    return shape


@case("application-answer")
def application_answer_up_the_chain() -> Shape:
    """ratings answers 500, reviews and productpage pass it on."""
    shape = Shape()
    five = {"response_code": 500}
    shape.call("client", "productpage", path="/productpage", seen=five, told=five)
    shape.call("productpage", "reviews", "reviews-v2", path="/reviews/0", seen=five, told=five, within=True)
    shape.call("reviews-v2", "ratings", path="/ratings/0", seen=five, told=five, within=True)
    return shape


@case("app-dies-mid-response")
def application_dies() -> Shape:
    shape = Shape()
    died = {
        "response_code": 200,
        "response_code_details": "upstream_reset_after_response_started{protocol_error}",
        "response_flags": "UPE",
    }
    shape.call("client", "details", path="/details/0", seen=died, told=died)
    return shape


# --- time, faults, limits, protocol


@case("route-timeout")
def too_slow_for_the_route() -> Shape:
    shape = Shape()
    shape.virtual_service(
        "ratings",
        [{"timeout": "0.5s", "route": [{"destination": {"host": "ratings"}}]}],
        [shape.route("ratings", timeout="0.500s")],
    )
    late = {
        "response_code": 504,
        "response_code_details": "response_timeout",
        "response_flags": "UT",
        "duration": 500,
    }
    left = {
        "response_code": 0,
        "response_code_details": "downstream_remote_disconnect",
        "response_flags": "DC",
        "duration": 499,
    }
    shape.call("client", "ratings", path="/ratings/0", seen=late, told=left)
    return shape


@case("per-try-timeout")
def too_slow_for_a_try() -> Shape:
    shape = Shape()
    route = shape.route("ratings")
    route["route"]["retry_policy"]["per_try_timeout"] = "0.200s"
    shape.virtual_service(
        "ratings",
        [
            {
                "retries": {"attempts": 2, "perTryTimeout": "0.2s"},
                "route": [{"destination": {"host": "ratings"}}],
            }
        ],
        [route],
    )
    late = {
        "response_code": 504,
        "response_code_details": "upstream_per_try_timeout",
        "response_flags": "URX,UT",
        "duration": 600,
    }
    left = {
        "response_code": 0,
        "response_code_details": "downstream_remote_disconnect",
        "response_flags": "DC",
        "duration": 199,
    }
    shape.call("client", "ratings", path="/ratings/0", seen=late, told=left)
    return shape


@case("fault-abort")
def aborted_on_purpose() -> Shape:
    shape = Shape()
    route = shape.route("ratings")
    route["typed_per_filter_config"] = {
        "envoy.filters.http.fault": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
            "abort": {"http_status": 500, "percentage": {"numerator": 1000000, "denominator": "MILLION"}},
        }
    }
    shape.virtual_service(
        "ratings",
        [
            {
                "fault": {"abort": {"httpStatus": 500, "percentage": {"value": 100}}},
                "route": [{"destination": {"host": "ratings"}}],
            }
        ],
        [route],
    )
    shape.call(
        "client",
        "ratings",
        path="/ratings/0",
        silent=True,
        seen=no_host("FI", "fault_filter_abort", 500, upstream_cluster=full("ratings")),
    )
    return shape


@case("fault-delay")
def delayed_on_purpose() -> Shape:
    shape = Shape()
    route = shape.route("ratings")
    route["typed_per_filter_config"] = {
        "envoy.filters.http.fault": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
            "delay": {"fixed_delay": "3s", "percentage": {"numerator": 1000000, "denominator": "MILLION"}},
        }
    }
    shape.virtual_service(
        "ratings",
        [
            {
                "fault": {"delay": {"fixedDelay": "3s", "percentage": {"value": 100}}},
                "route": [{"destination": {"host": "ratings"}}],
            }
        ],
        [route],
    )
    shape.call("client", "ratings", path="/ratings/0", seen={"response_flags": "DI", "duration": 3004})
    return shape


@case("caller-gave-up")
def impatient_caller() -> Shape:
    shape = Shape()
    left = {
        "response_code": 0,
        "response_code_details": "downstream_remote_disconnect",
        "response_flags": "DC",
        "duration": 1000,
    }
    shape.call("client", "ratings", path="/ratings/0", seen=left, told=left)
    return shape


@case("rate-limit-local")
def limited() -> Shape:
    shape = Shape()
    for manager in shape.inbound_managers("details"):
        manager["http_filters"].insert(
            0,
            {
                "name": "envoy.filters.http.local_ratelimit",
                "typed_config": {
                    "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
                    "type_url": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
                    "value": {
                        "stat_prefix": "http_local_rate_limiter",
                        "token_bucket": {"max_tokens": 2, "tokens_per_fill": 2, "fill_interval": "60s"},
                        "filter_enabled": {"default_value": {"numerator": 100, "denominator": "HUNDRED"}},
                        "filter_enforced": {"default_value": {"numerator": 100, "denominator": "HUNDRED"}},
                    },
                },
            },
        )
    told = matched("") | {
        "response_code": 429,
        "response_code_details": "local_rate_limited",
        "response_flags": "RL",
    }
    shape.call("client", "details", path="/details/0", count=2)
    shape.call("client", "details", path="/details/0", seen={"response_code": 429}, told=told)
    return shape


# --- control plane


@case("not-injected")
def not_injected_caller() -> Shape:
    """A pod made before its namespace was labelled calls a strict server."""
    shape = Shape()
    ip = shape.ip("client")
    without_sidecar_client(shape)
    shape.refused("ratings", ip)
    return shape


def without_sidecar_client(shape: Shape) -> None:
    pod = shape.pod("client")
    pod["spec"]["initContainers"] = []
    pod["status"]["initContainerStatuses"] = []
    labels = pod["metadata"]["labels"]
    for key in [k for k in labels if "istio" in k]:
        del labels[key]
    pod["metadata"]["annotations"] = {}
    for path, data in shape.files.items():
        if path.endswith("syncz.json"):
            shape.files[path] = [entry for entry in data if not entry["proxy"].startswith("client")]
    shape.without("client")


# --- where and how things run


def redescribe(shape: Shape, change: Callable[[str], str]) -> None:
    """Changes text everywhere: in dumps, objects and lines alike."""
    import json

    for path in list(shape.files):
        data = shape.files[path]
        text = data if isinstance(data, str) else json.dumps(data)
        changed = change(text)
        shape.files[path] = changed if isinstance(data, str) else json.loads(changed)
    shape.objects = json.loads(change(json.dumps(shape.objects)))
    shape._lines = json.loads(change(json.dumps(shape._lines)))


def ipv6(shape: Shape) -> None:
    addresses = [shape.ip(app) for app in shape.apps]

    def change(text: str) -> str:
        for ip in addresses:
            last = ip.rpartition(".")[2]
            text = re.sub(rf"(?<![\d.\[]){re.escape(ip)}:(\d+)", rf"[fd00:10::{last}]:\1", text)
            text = re.sub(rf"(?<![\d.]){re.escape(ip)}(?![\d.])", f"fd00:10::{last}", text)
        text = re.sub(r"10\.96\.(\d+)\.(\d+):(\d+)", r"[fd00:96::\1:\2]:\3", text)
        return re.sub(r"10\.96\.(\d+)\.(\d+)(?![\d.])", r"fd00:96::\1:\2", text)

    redescribe(shape, change)


@case("client-plaintext-server-strict")
def plaintext_over_ipv6() -> Shape:
    shape = told_to_send_plaintext()
    ipv6(shape)
    return shape


@case("deny-policy")
def denied_over_ipv6() -> Shape:
    shape = denied_path()
    ipv6(shape)
    return shape


@case("app-not-listening")
def not_listening_over_ipv6() -> Shape:
    shape = wrong_target_port()
    ipv6(shape)
    return shape


@case("no-endpoints")
def no_endpoints_over_ipv6() -> Shape:
    shape = scaled_to_zero()
    ipv6(shape)
    return shape


def classic(shape: Shape) -> None:
    """The proxy as an ordinary container, not as a native sidecar."""
    for pod in [found for found in shape.objects if found["kind"] == "Pod"]:
        spec = pod["spec"]
        moved = [c for c in spec.get("initContainers", []) if c["name"] == "istio-proxy"]
        for container in moved:
            container.pop("restartPolicy", None)
            spec["initContainers"].remove(container)
            spec["containers"].append(container)
        statuses = pod["status"].get("initContainerStatuses", [])
        for status in [s for s in statuses if s["name"] == "istio-proxy"]:
            statuses.remove(status)
            pod["status"]["containerStatuses"].append(status)


@case(HEALTHY)
def quiet_with_classic_sidecars() -> Shape:
    shape = quiet()
    classic(shape)
    return shape


def bystander(
    shape: Shape,
    name: str,
    namespace: str,
    *,
    labels: Json | None = None,
    containers: list[str] | None = None,
    phase: str = "Running",
    owner: str = "ReplicaSet",
    annotations: Json | None = None,
    ip: str = "10.88.1.77",
    init: list[str] | None = None,
) -> Json:
    """A pod of somebody else's."""
    kind = "Deployment" if owner == "ReplicaSet" else owner
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{name}-5f5f5f5f5f-abcde" if owner == "ReplicaSet" else f"{name}-0",
            "namespace": namespace,
            "labels": {"app": name, "pod-template-hash": "5f5f5f5f5f"} | (labels or {}),
            "annotations": annotations or {},
            "creationTimestamp": "2026-11-23T12:05:00Z",
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "controller": True,
                    "kind": owner,
                    "name": f"{name}-5f5f5f5f5f" if owner == "ReplicaSet" else name,
                    "uid": "u",
                }
            ],
        },
        "spec": {
            "containers": [{"name": c, "image": f"x/{c}:1"} for c in containers or [name]],
            "initContainers": [
                {"name": c, "image": f"x/{c}:1", "restartPolicy": "Always"} for c in init or []
            ],
            "serviceAccountName": "default",
        },
        "status": {
            "phase": phase,
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True" if phase == "Running" else "False"}],
        },
    }
    shape.objects.append(pod)
    if kind == "Deployment":
        for made, called in (("Deployment", name), ("ReplicaSet", f"{name}-5f5f5f5f5f")):
            shape.objects.append(
                {
                    "apiVersion": "apps/v1",
                    "kind": made,
                    "metadata": {"name": called, "namespace": namespace},
                    "spec": {
                        "replicas": 1,
                        "selector": {"matchLabels": {"app": name}},
                        "template": {"metadata": {"labels": {"app": name} | (labels or {})}},
                    },
                }
            )
            if made == "ReplicaSet":
                shape.objects[-1]["metadata"]["ownerReferences"] = [
                    {
                        "apiVersion": "apps/v1",
                        "controller": True,
                        "kind": "Deployment",
                        "name": name,
                        "uid": "d",
                    }
                ]
    return pod


def namespace(shape: Shape, name: str, **labels: str) -> None:
    labels_ = {key.replace("__", "/").replace("_", "-"): value for key, value in labels.items()}
    shape.objects.append(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name} | labels_},
        }
    )


@case(HEALTHY)
def quiet_among_strangers() -> Shape:
    """Pods of the system, of Linkerd, of ambient mode and of jobs that have ended."""
    shape = quiet()
    bystander(shape, "coredns", "kube-system", ip="10.88.1.80")
    namespace(shape, "emojivoto")
    bystander(
        shape,
        "web",
        "emojivoto",
        init=["linkerd-init", "linkerd-proxy"],
        annotations={"linkerd.io/inject": "enabled", "linkerd.io/proxy-version": "edge-26.8.1"},
        ip="10.88.1.81",
        labels={"linkerd.io/control-plane-ns": "linkerd"},
    )
    bystander(shape, "mail", "emojivoto", containers=["mail", "linkerd-proxy"], ip="10.88.1.82")
    namespace(shape, "ambient", istio_io__dataplane_mode="ambient")
    shape.objects[-1]["metadata"]["labels"]["istio.io/dataplane-mode"] = "ambient"
    bystander(
        shape, "app", "ambient", annotations={"ambient.istio.io/redirection": "enabled"}, ip="10.88.1.83"
    )
    bystander(shape, "migrate", NAMESPACE, phase="Succeeded", owner="Job", ip="10.88.1.84")
    bystander(
        shape,
        "ztunnel",
        "istio-system",
        containers=["istio-proxy"],
        labels={"sidecar.istio.io/inject": "false"},
        owner="DaemonSet",
        ip="10.88.1.85",
    )
    bystander(
        shape,
        "istio-cni-node",
        "istio-system",
        containers=["install-cni"],
        owner="DaemonSet",
        ip="10.88.1.86",
    )
    bystander(shape, "hostly", NAMESPACE, ip="10.88.0.1", owner="DaemonSet")["spec"]["hostNetwork"] = True
    return shape


@case(HEALTHY)
def quiet_in_a_mesh_of_revisions() -> Shape:
    shape = quiet()
    labels = shape.object("Namespace", NAMESPACE, "")["metadata"]["labels"]
    del labels["istio-injection"]
    labels["istio.io/rev"] = "canary"
    for pod in [
        found
        for found in shape.objects
        if found["kind"] == "Pod" and found["metadata"]["namespace"] == NAMESPACE
    ]:
        pod["metadata"]["labels"]["istio.io/rev"] = "canary"
    return shape


@case("not-injected")
def not_injected_of_a_revision() -> Shape:
    shape = quiet()
    namespace(shape, "shop")
    shape.objects[-1]["metadata"]["labels"]["istio.io/rev"] = "canary"
    bystander(shape, "cart", "shop", ip="10.88.1.90")
    return shape


@case(HEALTHY)
def old_failures_of_an_injected_pod_that_is_starting() -> Shape:
    shape = quiet()
    pod = bystander(shape, "slow", NAMESPACE, init=["istio-init", "istio-proxy"], phase="Pending")
    pod["status"]["containerStatuses"] = [
        {"name": "slow", "ready": False, "state": {"waiting": {"reason": "PodInitializing"}}}
    ]
    return shape


@case(HEALTHY)
def envoys_own_chatter() -> Shape:
    """What pilot-agent and Envoy say at every start and every half hour."""
    shape = quiet()
    stream = "envoy config external/envoy/source/extensions/config_subscription/grpc/grpc_stream.h:152\t"
    start, later = "2026-11-23T12:26:20.100000Z", "2026-11-23T12:26:59.000000Z"
    refused = 'closed: 14, connection error: desc = "transport: Error while dialing"'
    for app in ("client", "ratings"):
        shape._lines[app] = [
            f"{start}\tinfo\tProxy role\tips=[10.88.1.9] type=sidecar id=x.bookinfo",
            f"{start}\twarning\t{stream}StreamAggregatedResources gRPC config stream to xds-grpc {refused}\tthread=21",
            f"{start}\tinfo\txdsproxy\tconnected to upstream XDS server: istiod.istio-system.svc:15012",
            f"{start}\twarn\tca\tca request failed, starting attempt 1 in 91.589072ms",
            f"{start}\twarning\tenvoy main external/envoy/source/server/server.cc:910\tUsage of the deprecated runtime key",
            f"{start}\tinfo\tReadiness succeeded in 1.2s",
            f"{later}\tinfo\txdsproxy\tconnected to delta upstream XDS server: istiod.istio-system.svc:15012\tid=3",
            f"{later}\twarning\t{stream}DeltaAggregatedResources gRPC config stream to xds-grpc closed: 0, \tthread=21",
            *shape._lines[app],
        ]
    return shape


@case(HEALTHY)
def clients_errors() -> Shape:
    """404s of the application are answers; so is a health check that it refuses."""
    shape = quiet()
    shape.call("client", "details", path="/nosuch", seen={"response_code": 404}, told={"response_code": 404})
    shape.call("client", "details", path="/login", seen={"response_code": 401}, told={"response_code": 401})
    return shape


# --- more of each kind


@case("connect-timeout")
def packets_go_nowhere() -> Shape:
    shape = quiet()
    shape._lines = {}
    shape.call(
        "client", "ratings", path="/ratings/0", seen=reset("connection_timeout", duration=10002), silent=True
    )
    return shape


@case("connect-timeout")
def outside_goes_nowhere() -> Shape:
    shape = quiet()
    seen = reset(
        "connection_timeout",
        response_flags="UF",
        upstream_cluster="PassthroughCluster",
        upstream_host="203.0.113.9:80",
        downstream_local_address="203.0.113.9:80",
        authority="203.0.113.9",
        duration=10001,
        route_name="allow_any",
    )
    shape.call("client", "details", "nobody", path="/x", seen=seen)
    return shape


@case("nothing-listens-at-endpoint")
def outside_refuses() -> Shape:
    shape = quiet()
    seen = reset(
        f"remote_connection_failure|{REFUSED}",
        response_flags="UF",
        upstream_cluster="PassthroughCluster",
        upstream_host="203.0.113.9:80",
        downstream_local_address="203.0.113.9:80",
        authority="203.0.113.9",
        route_name="allow_any",
    )
    shape.call("client", "details", "nobody", path="/x", seen=seen)
    return shape


@case("endpoints-draining")
def all_drain() -> Shape:
    shape = quiet()
    shape._lines = {}
    for endpoint in shape.endpoints("client", full("ratings")):
        endpoint["health_status"] = "DRAINING"
    for host in shape.hosts("client", full("ratings")):
        host["health_status"] = {"eds_health_status": "DRAINING"}
    shape.call("client", "ratings", path="/ratings/0", seen=no_host("UH", "no_healthy_upstream"), silent=True)
    return shape


@case("endpoints-unhealthy")
def unready_and_still_held() -> Shape:
    """With its persistent sessions istiod sends pods that aren't ready as UNHEALTHY."""
    shape = Shape()
    unready(shape, "ratings")
    for endpoint in shape.endpoints("client", full("ratings")):
        endpoint["health_status"] = "UNHEALTHY"
    for host in shape.hosts("client", full("ratings")):
        host["health_status"] = {"eds_health_status": "UNHEALTHY"}
    shape.call("client", "ratings", path="/ratings/0", seen=no_host("UH", "no_healthy_upstream"), silent=True)
    return shape


@case("http2-to-http1-app")
def grpc_in_name_only() -> Shape:
    shape = quiet()
    shape.object("Service", "details")["spec"]["ports"][0]["name"] = "grpc"
    next(
        o
        for o in shape.objects
        if o["kind"] == "EndpointSlice" and o["metadata"]["name"].startswith("details")
    )["ports"][0]["name"] = "grpc"
    options = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    shape.cluster("details", "inbound|9080||")["typed_extension_protocol_options"] = options
    for app in shape.apps:
        shape.cluster(app, full("details"))["typed_extension_protocol_options"] = options
    told = {
        "response_code": 502,
        "response_code_details": "upstream_reset_before_response_started{protocol_error}",
        "response_flags": "UPE",
    }
    shape.call("client", "details", path="/details/0", seen={"response_code": 502}, told=told)
    return shape


@case("app-not-http / response-headers-too-big")
def garbage() -> Shape:
    shape = quiet()
    told = {
        "response_code": 502,
        "response_code_details": "upstream_reset_before_response_started{protocol_error}",
        "response_flags": "UPE",
    }
    shape.call("client", "details", path="/details/0", seen={"response_code": 502}, told=told)
    return shape


@case("caller-not-http")
def garbage_sent() -> Shape:
    shape = quiet()
    seen = no_host(
        "DPE",
        "http1.codec_error",
        400,
        upstream_cluster=None,
        route_name=None,
        method=None,
        path=None,
        protocol="HTTP/1.1",
        authority=None,
    )
    shape.call("client", "details", path="/details/0", seen=seen, silent=True)
    return shape


@case("request-headers-too-big")
def big_headers() -> Shape:
    shape = quiet()
    seen = no_host(
        "DPE",
        "http1.headers_too_large",
        431,
        upstream_cluster=None,
        route_name=None,
        method="GET",
        path=None,
        authority=None,
    )
    shape.call("client", "details", path="/details/0", seen=seen, silent=True)
    return shape


@case("max-retries")
def retries_overflow() -> Shape:
    shape = quiet()
    shape.destination_rule("details", {"connectionPool": {"http": {"maxRetries": 1}}})
    thresholds(shape, "details", max_retries=1)
    shape.call(
        "client",
        "details",
        path="/details/0",
        seen={"response_code": 503, "response_flags": "UO"},
        told={"response_code": 503},
    )
    return shape


@case("retries-exhausted")
def retries_spent() -> Shape:
    shape = Shape()
    route = shape.route("details")
    route["route"]["retry_policy"] = {"retry_on": "5xx", "num_retries": 2}
    shape.virtual_service(
        "details",
        [{"retries": {"attempts": 2, "retryOn": "5xx"}, "route": [{"destination": {"host": "details"}}]}],
        [route],
    )
    shape.call(
        "client",
        "details",
        path="/details/0",
        seen={"response_code": 503, "response_flags": "URX"},
        told={"response_code": 503},
    )
    shape.call(
        "client",
        "details",
        path="/details/0",
        within=True,
        seen={"response_code": 200},
        told={"response_code": 503},
    )
    shape._lines["client"] = shape._lines["client"][:8]
    return shape


@case("no-vhost")
def unknown_name() -> Shape:
    """The outbound policy allows anything, and the name leads to a Service's address by an alias that no virtual host has."""
    shape = quiet()
    for app in shape.apps:
        for entry in shape._section(app, "RoutesConfigDump")["dynamic_route_configs"]:
            config = entry["route_config"]
            config["virtual_hosts"] = [vh for vh in config["virtual_hosts"] if "*" not in vh["domains"]]
    seen = no_host(
        "NR", "route_not_found", 404, upstream_cluster=None, route_name=None, authority="books.example.com"
    )
    shape.call("client", "details", path="/", seen=seen, silent=True)
    return shape


@case("ext-authz-denied")
def authorizer_says_no() -> Shape:
    shape = quiet()
    ext_authz(shape, "details")
    told = matched("") | {"response_code_details": "ext_authz_denied", "response_flags": "UAEX"}
    shape.call("client", "details", path="/details/0", seen=DENIED, told=told)
    return shape


@case("ext-authz-unreachable")
def authorizer_is_gone() -> Shape:
    shape = quiet()
    ext_authz(shape, "details")
    told = matched("") | {"response_code_details": "ext_authz_error", "response_flags": "UAEX"}
    shape.call("client", "details", path="/details/0", seen=DENIED, told=told)
    return shape


def ext_authz(shape: Shape, app: str) -> None:
    rules = {"permissions": [both([{"any": True}], "rules")], "principals": [both([{"any": True}], "ids")]}
    for manager in shape.inbound_managers(app):
        manager["http_filters"].insert(
            0,
            {
                "name": "envoy.filters.http.rbac",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
                    "shadow_rules": {
                        "action": "DENY",
                        "policies": {"istio-ext-authz-ns[bookinfo]-policy[ask]-rule[0]": rules},
                    },
                    "shadow_rules_stat_prefix": "istio_ext_authz_",
                },
            },
        )
        manager["http_filters"].insert(
            1,
            {
                "name": "envoy.filters.http.ext_authz",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
                    "grpc_service": {
                        "envoy_grpc": {
                            "cluster_name": "outbound|9000||ext-authz.foo.svc.cluster.local",
                            "authority": "x",
                        },
                        "timeout": "600s",
                    },
                    "filter_enabled_metadata": {
                        "filter": "envoy.filters.http.rbac",
                        "path": [{"key": "istio_ext_authz_shadow_effective_policy_id"}],
                        "value": {"string_match": {"prefix": "istio-ext-authz"}},
                    },
                    "transport_api_version": "V3",
                },
            },
        )
    cluster = dict(shape.cluster(app, full("ratings")))
    name = "outbound|9000||ext-authz.foo.svc.cluster.local"
    cluster |= {"name": name, "eds_cluster_config": {"eds_config": {"ads": {}}, "service_name": name}}
    shape.add_cluster(app, cluster)
    shape._section(app, "EndpointsConfigDump")["dynamic_endpoint_configs"].append(
        {
            "endpoint_config": {
                "cluster_name": name,
                "endpoints": [
                    {
                        "locality": {},
                        "lb_endpoints": [
                            {
                                "endpoint": {
                                    "address": {
                                        "socket_address": {"address": "10.88.1.99", "port_value": 9000}
                                    }
                                },
                                "health_status": "HEALTHY",
                                "load_balancing_weight": 1,
                            }
                        ],
                    }
                ],
            }
        }
    )
    policy(
        shape,
        "ask",
        {
            "action": "CUSTOM",
            "provider": {"name": "authz"},
            "selector": {"matchLabels": {"app": app}},
            "rules": [{}],
        },
    )


@case("deny-policy")
def denied_for_all_by_the_root_namespace() -> Shape:
    shape = quiet()
    shape._lines = {}
    rules = {
        "permissions": [both([{"any": True}], "rules")],
        "principals": [both([principal("client")], "ids")],
    }
    for app in shape.apps:
        rbac(shape, app, "DENY", {"ns[istio-system]-policy[no-client]-rule[0]": rules})
    shape.add(
        "AuthorizationPolicy",
        "no-client",
        {
            "action": "DENY",
            "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/bookinfo/sa/client"]}}]}],
        },
        "security.istio.io",
        "istio-system",
    )
    for service in ("ratings", "details"):
        shape.call(
            "client",
            service,
            path="/x",
            seen=DENIED,
            told=matched("ns[istio-system]-policy[no-client]-rule[0]"),
        )
    return shape


@case("control-plane-down")
def no_istiod() -> Shape:
    shape = quiet()
    deployment = shape.object("Deployment", "istiod", "istio-system")
    deployment["spec"]["replicas"] = 0
    deployment["status"] = {"observedGeneration": 3}
    shape.objects = [
        o for o in shape.objects if not (o["kind"] == "Pod" and o["metadata"]["name"].startswith("istiod"))
    ]
    for found in shape.objects:
        if found["metadata"].get("namespace") == "istio-system" and found["kind"] == "EndpointSlice":
            found["endpoints"] = None
        if found["metadata"].get("namespace") == "istio-system" and found["kind"] == "Endpoints":
            found.pop("subsets", None)
    shape.files = {path: data for path, data in shape.files.items() if not path.startswith("istiod/")}
    for path, data in shape.files.items():
        if path.endswith("metrics.prom"):
            shape.files[path] = re.sub(
                r"(envoy_cluster_upstream_rq_active\{cluster_name=\"xds-grpc;?\"\}) 1", r"\1 0", data
            )
    return shape


@case("control-plane-down")
def no_istiod_by_kubernetes_alone() -> Shape:
    shape = no_istiod()
    shape.files = {path: data for path, data in shape.files.items() if not path.endswith("metrics.prom")}
    return shape


def sync(shape: Shape, app: str) -> Json:
    path = next(path for path in shape.files if path.endswith("syncz.json"))
    found: Json = next(entry for entry in shape.files[path] if entry["proxy"].startswith(shape.apps[app]))
    return found


@case("proxy-config-stale")
def not_acknowledged() -> Shape:
    shape = quiet()
    entry = sync(shape, "client")
    entry["cluster_sent"] = "2026-11-23T12:20:00Z/99new"
    resource = entry["resources"]["type.googleapis.com/envoy.config.cluster.v3.Cluster"]
    resource["sent"] = "2026-11-23T12:20:00Z/99new"
    resource["sentTime"] = "2026-11-23T12:20:00Z"
    return shape


@case("listener-rejected")
def listener_refused() -> Shape:
    shape = quiet()
    entry = sync(shape, "client")
    resource = entry["resources"]["type.googleapis.com/envoy.config.listener.v3.Listener"]
    resource["lastError"] = "Error adding/updating listener(s) virtualInbound: bad filter config"
    resource["sent"] = "2026-11-23T12:20:00Z/99new"
    entry["listener_sent"] = "2026-11-23T12:20:00Z/99new"
    shape._section("client", "ListenersConfigDump")["dynamic_listeners"].append(
        {
            "error_state": {
                "failed_configuration": {
                    "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
                    "name": "virtualInbound",
                },
                "last_update_attempt": "2026-11-23T12:20:01Z",
                "details": "bad filter config",
            }
        }
    )
    return shape


@case("inbound-port-skipped")
def past_the_sidecar() -> Shape:
    shape = quiet()
    shape._lines = {}
    shape.tls_mode("details", "ISTIO_MUTUAL")
    annotations = shape.pod("details")["metadata"].setdefault("annotations", {})
    annotations["traffic.sidecar.istio.io/excludeInboundPorts"] = "9080"
    shape.call("client", "details", path="/details/0", seen=WRONG_VERSION, silent=True)
    return shape


@case("proxy-endpoints-stale")
def endpoints_of_yesterday() -> Shape:
    shape = quiet()
    shape._lines = {}
    for endpoint in shape.endpoints("client", full("ratings")):
        endpoint["endpoint"]["address"]["socket_address"]["address"] = "10.88.1.200"
    for host in shape.hosts("client", full("ratings")):
        host["address"]["socket_address"]["address"] = "10.88.1.200"
    seen = reset("connection_timeout", duration=10000, upstream_host="10.88.1.200:9080")
    shape.call("client", "ratings", path="/ratings/0", seen=seen, silent=True)
    return shape


@case("server-cert-untrusted-by-client")
def another_ca() -> Shape:
    """The server's chain comes from a CA that the caller doesn't know."""
    shape = quiet()
    shape._lines = {}
    stranger(shape, "ratings")
    text = (
        "remote_connection_failure|TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify_cert_failed:"
        "_X509_verify_cert:_certificate_verification_error_at_depth_0:_unable_to_get_local_issuer_certificate:TLS_error_end"
    )
    shape.call("client", "ratings", path="/ratings/0", seen=reset(text), silent=True)
    return shape


def stranger(shape: Shape, app: str) -> None:
    """The application's proxy has the chain of another mesh (its own roots stay)."""
    other = Shape("healthy-fullstats")
    theirs = next(s for s in other.secrets(app) if s["name"] == "default")
    ours = next(s for s in shape.secrets(app) if s["name"] == "default")
    ours["secret"] = theirs["secret"]


@case("client-cert-untrusted-by-server")
def caller_of_another_ca() -> Shape:
    shape = quiet()
    shape._lines = {}
    stranger(shape, "client")
    shape.call("client", "ratings", path="/ratings/0", seen=CLOSED, silent=True)
    return shape


@case("client-secret-not-delivered")
def caller_without_secret() -> Shape:
    shape = quiet()
    shape._lines = {}
    section = shape._section("client", "SecretsConfigDump")
    section["dynamic_warming_secrets"] = [
        {"name": "default", "version_info": "uninitialized", "secret": {"name": "default"}}
    ]
    section["dynamic_active_secrets"] = [
        s for s in section["dynamic_active_secrets"] if s["name"] != "default"
    ]
    shape.call(
        "client",
        "ratings",
        path="/ratings/0",
        seen=reset("remote_connection_failure|TLS_error:_Secret_is_not_supplied_by_SDS"),
        silent=True,
    )
    return shape


# --- ports, gateways, namespaces


def listen_at(shape: Shape, app: str, port: int, hosts: list[Json]) -> None:
    """An outbound listener of HTTP at another port, with its route table."""
    import json

    text = json.dumps(shape.listener(app, "0.0.0.0_9080")).replace("0.0.0.0_9080", f"0.0.0.0_{port}")
    text = text.replace('"route_config_name": "9080"', f'"route_config_name": "{port}"')
    listener = json.loads(text.replace('"port_value": 9080', f'"port_value": {port}'))
    made = {"name": f"0.0.0.0_{port}", "active_state": {"listener": listener}}
    shape._section(app, "ListenersConfigDump")["dynamic_listeners"].append(made)
    table = {"route_config": {**shape.routes(app), "name": str(port), "virtual_hosts": hosts}}
    shape._section(app, "RoutesConfigDump")["dynamic_route_configs"].append(table)


def at_port(shape: Shape, service: str, port: int, target: int | str = 9080) -> None:
    """The Service's port differs from the pods'."""
    for app in shape.apps:
        routes = shape.routes(app)
        host = shape.virtual_host(app, service)
        routes["virtual_hosts"].remove(host)
        listen_at(shape, app, port, [host])
    name = f"{service}.{NAMESPACE}.svc.cluster.local"

    def change(text: str) -> str:
        return (
            text.replace(f"outbound|9080||{name}", f"outbound|{port}||{name}")
            .replace(f"outbound_.9080_._.{name}", f"outbound_.{port}_._.{name}")
            .replace(f"{name}:9080", f"{name}:{port}")
            .replace(f"{service}:9080", f"{service}:{port}")
            .replace(f"{shape.service_ip(service)}:9080", f"{shape.service_ip(service)}:{port}")
        )

    redescribe(shape, change)
    entry = shape.object("Service", service)["spec"]["ports"][0]
    entry["port"], entry["targetPort"] = port, target
    if isinstance(target, str):
        for pod in shape.objects:
            if pod["kind"] == "Pod" and pod["metadata"].get("labels", {}).get("app") == service:
                pod["spec"]["containers"][0]["ports"] = [
                    {"containerPort": 9080, "name": target, "protocol": "TCP"}
                ]


@case(HEALTHY)
def quiet_at_port_80() -> Shape:
    shape = quiet()
    at_port(shape, "details", 80)
    return shape


@case(HEALTHY)
def quiet_at_a_named_port() -> Shape:
    shape = quiet()
    at_port(shape, "details", 80, "web")
    return shape


@case("deny-policy")
def denied_at_port_80() -> Shape:
    shape = denied_path()
    at_port(shape, "details", 80)
    return shape


@case("app-not-listening")
def not_listening_at_a_named_port() -> Shape:
    shape = wrong_target_port()
    at_port(shape, "details", 80, "web")
    return shape


@case("no-endpoints")
def no_endpoints_at_port_80() -> Shape:
    shape = scaled_to_zero()
    at_port(shape, "ratings", 80)
    return shape


@case("client-plaintext-server-strict")
def plaintext_at_port_80() -> Shape:
    shape = told_to_send_plaintext()
    at_port(shape, "ratings", 80)
    return shape


@case("max-pending")
def pending_at_port_80() -> Shape:
    shape = pending_overflow()
    at_port(shape, "details", 80)
    return shape


def gateway(shape: Shape, routes: list[Json] | None) -> None:
    """An ingress gateway in istio-system; `routes` None: it has a server and no VirtualService."""
    import copy
    import json

    source = shape._proxy("client")
    pod = "istio-ingressgateway-6b8d5c7d9f-gw123"
    prefix = f"proxies/istio-system/{pod}"
    text = json.dumps(shape.files[f"{source}/config_dump.json"])
    text = text.replace(
        f"sidecar~{shape.ip('client')}~{shape.apps['client']}.bookinfo~bookinfo",
        f"router~10.88.1.60~{pod}.istio-system~istio-system",
    )
    text = text.replace("/ns/bookinfo/sa/client", "/ns/istio-system/sa/istio-ingressgateway")
    dump = json.loads(text)
    sections = {section["@type"].rsplit(".", 1)[1]: section for section in dump["configs"]}
    node = sections["BootstrapConfigDump"]["bootstrap"]["node"]
    meta = node["metadata"]
    meta |= {
        "NAME": pod,
        "NAMESPACE": "istio-system",
        "WORKLOAD_NAME": "istio-ingressgateway",
        "INSTANCE_IPS": "10.88.1.60",
        "SERVICE_ACCOUNT": "istio-ingressgateway",
        "LABELS": {"app": "istio-ingressgateway", "istio": "ingressgateway"},
        "OWNER": "kubernetes://apis/apps/v1/namespaces/istio-system/deployments/istio-ingressgateway",
    }
    manager = copy.deepcopy(shape.listener("client", "0.0.0.0_9080")["filter_chains"][0]["filters"][0])
    manager["typed_config"]["stat_prefix"] = "outbound_0.0.0.0_8080;"
    manager["typed_config"]["rds"]["route_config_name"] = "http.8080"
    manager["typed_config"]["use_remote_address"] = True
    sections["ListenersConfigDump"]["dynamic_listeners"] = [
        {
            "name": "0.0.0.0_8080",
            "active_state": {
                "listener": {
                    "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
                    "name": "0.0.0.0_8080",
                    "traffic_direction": "OUTBOUND",
                    "address": {"socket_address": {"address": "0.0.0.0", "port_value": 8080}},
                    "filter_chains": [{"filters": [manager]}],
                }
            },
        }
    ]
    if routes is None:
        hosts = [{"name": "blackhole:80", "domains": ["*"]}]
    else:
        hosts = [
            {
                "name": "bookinfo.example.com:80",
                "domains": ["bookinfo.example.com"],
                "routes": routes,
                "include_request_attempt_count": True,
            }
        ]
        for route in routes:
            route["metadata"] = {
                "filter_metadata": {
                    "istio": {
                        "config": "/apis/networking.istio.io/v1/namespaces/bookinfo/virtual-service/bookinfo"
                    }
                }
            }
    sections["RoutesConfigDump"]["dynamic_route_configs"] = [
        {
            "route_config": {
                "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
                "name": "http.8080",
                "virtual_hosts": hosts,
                "validate_clusters": False,
                "ignore_port_in_host_matching": True,
            }
        }
    ]
    shape.files[f"{prefix}/config_dump.json"] = dump
    for name in ("clusters.json", "certs.json", "metrics.prom"):
        shape.files[f"{prefix}/{name}"] = copy.deepcopy(shape.files[f"{source}/{name}"])
    made = bystander(
        shape,
        "istio-ingressgateway",
        "istio-system",
        containers=["istio-proxy"],
        ip="10.88.1.60",
        labels={
            "istio": "ingressgateway",
            "sidecar.istio.io/inject": "false",
            "service.istio.io/canonical-name": "istio-ingressgateway",
        },
    )
    made["metadata"]["name"] = pod
    shape.objects.append(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "istio-ingressgateway", "namespace": "istio-system"},
            "spec": {
                "type": "LoadBalancer",
                "clusterIP": "10.96.5.5",
                "selector": {"istio": "ingressgateway"},
                "ports": [
                    {"name": "http2", "port": 80, "targetPort": 8080},
                    {"name": "status-port", "port": 15021, "targetPort": 15021},
                ],
            },
        }
    )
    shape.add(
        "Gateway",
        "bookinfo",
        {
            "selector": {"istio": "ingressgateway"},
            "servers": [
                {
                    "port": {"number": 80, "name": "http", "protocol": "HTTP"},
                    "hosts": ["bookinfo.example.com"],
                }
            ],
        },
    )
    if routes is not None:
        shape.add(
            "VirtualService",
            "bookinfo",
            {
                "hosts": ["bookinfo.example.com"],
                "gateways": ["bookinfo"],
                "http": [{"route": [{"destination": {"host": "productpage"}}]}],
            },
        )
    path = next(path for path in shape.files if path.endswith("syncz.json"))
    entry = copy.deepcopy(sync(shape, "details")) | {"proxy": f"{pod}.istio-system", "proxy_type": "router"}
    shape.files[path].append(entry)


def through_gateway(
    shape: Shape,
    service: str,
    server: str = "",
    count: int = 8,
    seen: Json | None = None,
    told: Json | None = None,
    silent: bool = False,
) -> None:
    """Requests from outside through the gateway."""
    before = len(shape._lines.get("client", []))
    shape.call(
        "client",
        service,
        server,
        path="/productpage",
        count=count,
        seen={
            "authority": "bookinfo.example.com",
            "downstream_local_address": "10.88.1.60:8080",
            "downstream_remote_address": "192.0.2.7:4711",
            "route_name": None,
            **(seen or {}),
        },
        told={"authority": "bookinfo.example.com", **(told or {})},
        silent=silent,
    )
    lines = shape._lines["client"][before:]
    del shape._lines["client"][before:]
    ip = shape.ip("client")
    import json

    texts = [json.dumps(line).replace(f"{ip}:", "10.88.1.60:") for line in lines]
    path = "proxies/istio-system/istio-ingressgateway-6b8d5c7d9f-gw123/proxy.log"
    shape.files[path] = shape.files.get(path, "") + "\n".join(texts) + "\n"
    for app, entries in shape._lines.items():
        if app.startswith(service):
            shape._lines[app] = [
                json.loads(json.dumps(e).replace(f'"{ip}:', '"10.88.1.60:'))
                if "bookinfo.example.com" in str(e)
                else e
                for e in entries
            ]


@case(HEALTHY)
def quiet_through_a_gateway() -> Shape:
    shape = quiet()
    gateway(shape, [shape.route("productpage")])
    through_gateway(shape, "productpage")
    return shape


@case("no-matching-route")
def gateway_without_a_matching_route() -> Shape:
    shape = quiet()
    route = shape.route("productpage")
    route["match"] = {"path": "/login"}
    gateway(shape, [route])
    through_gateway(
        shape, "productpage", silent=True, seen=no_host("NR", "route_not_found", 404, upstream_cluster=None)
    )
    return shape


@case("no-vhost")
def gateway_without_the_host() -> Shape:
    shape = quiet()
    gateway(shape, [shape.route("productpage")])
    through_gateway(
        shape,
        "productpage",
        silent=True,
        seen=no_host("NR", "route_not_found", 404, upstream_cluster=None, authority="shop.example.com"),
    )
    return shape


@case("no-vhost")
def gateway_without_any_virtual_service() -> Shape:
    """istiod writes a virtual host `blackhole` without routes."""
    shape = quiet()
    gateway(shape, None)
    through_gateway(
        shape, "productpage", silent=True, seen=no_host("NR", "route_not_found", 404, upstream_cluster=None)
    )
    return shape


@case("subset-not-defined")
def gateway_to_a_missing_subset() -> Shape:
    shape = quiet()
    gateway(shape, [shape.route("productpage", "v7")])
    through_gateway(
        shape, "productpage", silent=True, seen=no_host("NC", "cluster_not_found", 503, upstream_cluster=None)
    )
    return shape


@case("client-plaintext-server-strict")
def gateway_sends_plaintext() -> Shape:
    shape = quiet()
    shape.tls_mode("productpage", "DISABLE")
    gateway(shape, [shape.route("productpage")])
    shape._lines = {}
    through_gateway(shape, "productpage", silent=True, seen=CLOSED)
    shape.refused("productpage", "10.88.1.60")
    return shape


@case("deny-policy")
def gateway_denied_by_the_server() -> Shape:
    shape = Shape()
    gateway(shape, [shape.route("productpage")])
    rules = {
        "permissions": [both([{"any": True}], "rules")],
        "principals": [
            both(
                [
                    {
                        "authenticated": {
                            "principal_name": {
                                "exact": "spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway"
                            }
                        }
                    }
                ],
                "ids",
            )
        ],
    }
    rbac(shape, "productpage", "DENY", {"ns[bookinfo]-policy[no-ingress]-rule[0]": rules})
    policy(
        shape,
        "no-ingress",
        {
            "action": "DENY",
            "selector": {"matchLabels": {"app": "productpage"}},
            "rules": [
                {
                    "from": [
                        {"source": {"principals": ["cluster.local/ns/istio-system/sa/istio-ingressgateway"]}}
                    ]
                }
            ],
        },
    )
    through_gateway(
        shape, "productpage", seen=DENIED, told=matched("ns[bookinfo]-policy[no-ingress]-rule[0]")
    )
    return shape


@case("no-endpoints")
def gateway_without_endpoints() -> Shape:
    shape = Shape()
    empty(shape, "productpage", [])
    scale(shape, "productpage")
    gateway(shape, [shape.route("productpage")])
    through_gateway(shape, "productpage", "nobody", silent=True, seen=no_host("UH", "no_healthy_upstream"))
    return shape


@case("proxy-endpoints-stale")
def old_port_that_no_longer_listens() -> Shape:
    """The Service's targetPort and the application moved; the proxies never heard of it."""
    shape = Shape()
    shape.object("Service", "details")["spec"]["ports"][0]["targetPort"] = 9081
    for found in shape.objects:
        if found["kind"] == "EndpointSlice" and found["metadata"]["name"].startswith("details"):
            found["ports"][0]["port"] = 9081
        if found["kind"] == "Endpoints" and found["metadata"]["name"] == "details":
            found["subsets"][0]["ports"][0]["port"] = 9081
    told = reset(f"remote_connection_failure|{REFUSED}", response_flags="UF")
    shape.call("client", "details", path="/details/0", seen={"response_code": 503}, told=told)
    return shape


@case("registry-only")
def forbidden_tcp() -> Shape:
    """TLS to the outside in a mesh of REGISTRY_ONLY ends in the BlackHoleCluster."""
    shape = quiet()
    for app in shape.apps:
        for chain in shape.listener(app, "virtualOutbound")["filter_chains"]:
            for found in chain["filters"]:
                found["typed_config"]["cluster"] = found["typed_config"]["stat_prefix"] = "BlackHoleCluster"
    seen = no_host(
        "UH",
        "-",
        0,
        upstream_cluster="BlackHoleCluster",
        method=None,
        path=None,
        protocol=None,
        authority=None,
        request_id=None,
        response_code_details=None,
        downstream_local_address="93.184.216.34:443",
        requested_server_name="example.com",
        bytes_sent=0,
        route_name=None,
    )
    shape.call("client", "details", path="/", seen=seen, silent=True)
    return shape


@case("one-endpoint-ejected")
def one_of_three_ejected() -> Shape:
    shape = Shape()
    shape.destination_rule(
        "reviews",
        {
            "outlierDetection": {
                "consecutive5xxErrors": 2,
                "baseEjectionTime": "60s",
                "maxEjectionPercent": 50,
            }
        },
    )
    for app in shape.apps:
        shape.cluster(app, full("reviews"))["outlier_detection"] = {
            "consecutive_5xx": 2,
            "interval": "5s",
            "base_ejection_time": "60s",
            "max_ejection_percent": 50,
            "enforcing_consecutive_5xx": 100,
        }
    bad = shape.ip("reviews-v3")
    for host in shape.hosts("productpage", full("reviews")):
        if host["address"]["socket_address"]["address"] == bad:
            host["health_status"] = {"failed_outlier_check": True, "eds_health_status": "HEALTHY"}
    shape.call(
        "productpage",
        "reviews",
        "reviews-v3",
        path="/reviews/0",
        count=3,
        seen={"response_code": 500},
        told={"response_code": 500},
        ago_s=9,
    )
    shape.call("productpage", "reviews", "reviews-v1", path="/reviews/0", count=8, ago_s=8)
    return shape


@case(HEALTHY)
def quiet_with_a_headless_service() -> Shape:
    shape = quiet()
    for name in ("ratings",):
        shape.object("Service", name)["spec"]["clusterIP"] = "None"
        shape.object("Service", name)["spec"]["clusterIPs"] = ["None"]
    for app in shape.apps:
        cluster = shape.cluster(app, full("ratings"))
        for key in ("eds_cluster_config", "transport_socket_matches"):
            cluster.pop(key, None)
        cluster |= {"type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"}
        section = shape._section(app, "EndpointsConfigDump")
        section["dynamic_endpoint_configs"] = [
            e
            for e in section["dynamic_endpoint_configs"]
            if e["endpoint_config"]["cluster_name"] != full("ratings")
        ]
    shape.peer_authentication("PERMISSIVE")
    for lines in shape._lines.values():
        for line in lines:
            if isinstance(line, dict) and line["downstream_local_address"] == "None:9080":
                line["downstream_local_address"] = f"{shape.ip('ratings')}:9080"
    return shape


@case("client-without-sidecar-server-strict")
def outsider_calls_the_gateway_and_a_strict_server() -> Shape:
    shape = quiet()
    gateway(shape, [shape.route("productpage")])
    through_gateway(shape, "productpage")
    shape.refused("details", "10.88.1.10")
    return shape


@case("max-pending")
def overflow_behind_a_page_that_fails() -> Shape:
    """The page answers 500 because its own call overflowed."""
    shape = Shape()
    shape.destination_rule(
        "details", {"connectionPool": {"tcp": {"maxConnections": 1}, "http": {"http1MaxPendingRequests": 1}}}
    )
    thresholds(shape, "details", max_connections=1, max_pending_requests=1)
    shape.call(
        "client", "productpage", path="/productpage", seen={"response_code": 500}, told={"response_code": 500}
    )
    shape.call(
        "productpage",
        "details",
        path="/details/0",
        within=True,
        silent=True,
        seen=no_host("UO", "upstream_reset_before_response_started{overflow}"),
    )
    return shape


@case("route-timeout")
def timeout_behind_a_page_that_fails() -> Shape:
    shape = too_slow_for_the_route()
    shape._lines = {}
    late = {
        "response_code": 504,
        "response_code_details": "response_timeout",
        "response_flags": "UT",
        "duration": 500,
    }
    left = {
        "response_code": 0,
        "response_code_details": "downstream_remote_disconnect",
        "response_flags": "DC",
        "duration": 499,
    }
    shape.call(
        "productpage",
        "reviews",
        "reviews-v2",
        path="/reviews/0",
        seen={"response_code": 503},
        told={"response_code": 503},
    )
    shape.call("reviews-v2", "ratings", path="/ratings/0", seen=late, told=left, within=True)
    return shape


@case("deny-policy")
def policy_denies_and_old_timeouts_in_the_log() -> Shape:
    shape = denied_path()
    late = {
        "response_code": 504,
        "response_code_details": "response_timeout",
        "response_flags": "UT",
        "duration": 500,
    }
    shape.call("client", "ratings", path="/ratings/0", count=3, seen=late, silent=True, ago_s=3000)
    return shape


@case("client-mtls-server-disable")
def disable_at_the_port_only() -> Shape:
    """portLevelMtls DISABLE, and a DestinationRule ISTIO_MUTUAL for the whole host."""
    shape = quiet()
    shape._lines = {}
    shape.tls_mode("details", "ISTIO_MUTUAL")
    shape.add(
        "PeerAuthentication",
        "details",
        {
            "selector": {"matchLabels": {"app": "details"}},
            "mtls": {"mode": "STRICT"},
            "portLevelMtls": {"9080": {"mode": "DISABLE"}},
        },
        "security.istio.io",
    )
    shape._inbound("details", "DISABLE")
    sni = "outbound_.9080_._.details.bookinfo.svc.cluster.local"
    shape.call("client", "details", path="/details/0", seen=RESET_BY_PEER, silent=True)
    shape.refused("details", shape.ip("client"), sni=sni, count=24)
    return shape


@case("sni-matches-no-filter-chain")
def wrong_server_name() -> Shape:
    """The chains of a port take certain server names only (an EnvoyFilter), and the DestinationRule sets another."""
    shape = quiet()
    shape._lines = {}
    shape.tls_mode("details", "ISTIO_MUTUAL", sni="other.example.com")
    for chain in shape.inbound_chains("details"):
        chain["filter_chain_match"]["server_names"] = ["outbound_.9080_._.details.bookinfo.svc.cluster.local"]
    shape.listener("details", "virtualInbound")["filter_chains"][:] = [
        c
        for c in shape.listener("details", "virtualInbound")["filter_chains"]
        if c["filter_chain_match"].get("destination_port")
    ]
    shape.call("client", "details", path="/details/0", seen=RESET_BY_PEER, silent=True)
    shape.refused("details", shape.ip("client"), sni="other.example.com", count=24)
    return shape


@case("panic-mode")
def panic() -> Shape:
    shape = Shape()
    shape.destination_rule(
        "ratings",
        {"outlierDetection": {"consecutive5xxErrors": 2, "maxEjectionPercent": 100, "minHealthPercent": 50}},
    )
    for app in shape.apps:
        cluster = shape.cluster(app, full("ratings"))
        cluster["outlier_detection"] = {
            "consecutive_5xx": 2,
            "interval": "5s",
            "max_ejection_percent": 100,
            "enforcing_consecutive_5xx": 100,
        }
        cluster["common_lb_config"] = {"healthy_panic_threshold": {"value": 50}}
    for host in shape.hosts("client", full("ratings")):
        host["health_status"] = {"failed_outlier_check": True, "eds_health_status": "HEALTHY"}
    shape.call(
        "client", "ratings", path="/ratings/0", seen={"response_code": 500}, told={"response_code": 500}
    )
    return shape


@case("stream-idle-timeout")
def idle_stream() -> Shape:
    shape = quiet()
    seen = {
        "response_code": 504,
        "response_code_details": "stream_idle_timeout",
        "response_flags": "SI",
        "duration": 3000,
    }
    shape.routes("client")["virtual_hosts"][0]["routes"][0]["route"]["idle_timeout"] = "3s"
    left = {
        "response_code": 0,
        "response_code_details": "downstream_remote_disconnect",
        "response_flags": "DC",
        "duration": 2999,
    }
    shape.call("client", "details", path="/details/0", seen=seen, told=left)
    return shape


@case("client-without-sidecar-server-strict")
def a_stranger_without_kubernetes_pod() -> Shape:
    """A node or something outside the cluster connects in plaintext."""
    shape = quiet()
    shape.refused("details", "192.168.7.7")
    return shape


@case("proxy-endpoints-stale")
def old_port_that_still_answers() -> Shape:
    """The Service's targetPort changed, the proxies go on with the old one, and nothing fails yet."""
    shape = old_port_that_no_longer_listens()
    shape._lines = {}
    shape.call("client", "details", path="/details/0")
    return shape


@case("app-not-listening")
def new_port_where_nobody_listens() -> Shape:
    """The caller heard of the changed targetPort, the server's sidecar passes the unknown port through."""
    shape = old_port_that_no_longer_listens()
    shape._lines = {}
    for endpoint in shape.endpoints("client", full("details")):
        endpoint["endpoint"]["address"]["socket_address"]["port_value"] = 9081
    for host in shape.hosts("client", full("details")):
        host["address"]["socket_address"]["port_value"] = 9081
    ip = shape.ip("details")
    told = reset(f"remote_connection_failure|{REFUSED}", response_flags="UF") | {
        "upstream_cluster": "InboundPassthroughCluster",
        "upstream_host": f"{ip}:9081",
        "downstream_local_address": f"{ip}:9081",
    }
    shape.call(
        "client",
        "details",
        path="/details/0",
        seen={"response_code": 503, "upstream_host": f"{ip}:9081"},
        told=told,
    )
    return shape


@case(HEALTHY)
def pods_replaced_between_two_reads() -> Shape:
    """A rollout during the capture: the proxies still hold the pod that Kubernetes has replaced."""
    shape = quiet()
    for found in shape.objects:
        if found["kind"] == "EndpointSlice" and found["metadata"]["name"].startswith("details"):
            found["endpoints"][0]["addresses"] = ["10.88.1.123"]
        if found["kind"] == "Endpoints" and found["metadata"]["name"] == "details":
            found["subsets"][0]["addresses"][0]["ip"] = "10.88.1.123"
    return shape


def second_service(shape: Shape, service: str, name: str) -> None:
    """Another Service on the same pods, first by name."""
    import copy

    copied = copy.deepcopy(shape.object("Service", service))
    copied["metadata"]["name"] = name
    copied["spec"]["clusterIP"] = "10.96.77.77"
    shape.objects.insert(0, copied)
    for found in [
        o for o in shape.objects if o["kind"] == "EndpointSlice" and o["metadata"]["name"].startswith(service)
    ]:
        slice_ = copy.deepcopy(found)
        slice_["metadata"]["name"] = f"{name}-zzzzz"
        slice_["metadata"]["labels"]["kubernetes.io/service-name"] = name
        slice_["metadata"]["ownerReferences"] = []
        shape.objects.insert(0, slice_)
    for app in shape.apps:
        for cluster in shape.clusters(app):
            if cluster["name"] == "inbound|9080||" and app.startswith(service):
                cluster["metadata"]["filter_metadata"]["istio"]["services"].insert(
                    0, {"name": name, "namespace": NAMESPACE, "host": f"{name}.{NAMESPACE}.svc.cluster.local"}
                )


@case("client-plaintext-server-strict")
def plaintext_to_a_pod_of_two_services() -> Shape:
    shape = told_to_send_plaintext()
    second_service(shape, "ratings", "all-ratings")
    return shape


@case("deny-policy")
def denied_at_a_pod_of_two_services() -> Shape:
    shape = denied_path()
    second_service(shape, "details", "all-details")
    return shape


@case("auto-mtls-endpoint-not-labelled")
def no_label_at_a_pod_of_two_services() -> Shape:
    shape = endpoint_without_label()
    second_service(shape, "ratings", "all-ratings")
    return shape


@case("application-answer")
def plaintext_answers_at_a_pod_of_two_services() -> Shape:
    shape = Shape()
    shape.peer_authentication("PERMISSIVE")
    shape.tls_mode("details", "DISABLE")
    five = {"response_code": 500}
    shape.call("client", "details", path="/details/0", seen=five, told=five | {"requested_server_name": None})
    second_service(shape, "details", "all-details")
    return shape


@case("registry-only")
def forbidden_https_by_name() -> Shape:
    """istiod's listener 0.0.0.0_443 for TLS by name, and the rest goes to the BlackHoleCluster."""
    shape = forbidden_tcp()
    for line in shape._lines["client"]:
        if isinstance(line, dict) and line["upstream_cluster"] == "BlackHoleCluster":
            line["response_flags"] = "UH"
            line["response_code_details"] = None
            line["connection_termination_details"] = None
    return shape


@case("sidecar-egress-hides-host")
def hidden_and_passed_through() -> Shape:
    """ALLOW_ANY with a Sidecar: the call passes through in plaintext, and the strict server refuses it."""
    shape = Shape()
    shape.add(
        "Sidecar",
        "default",
        {"egress": [{"hosts": ["istio-system/*", "./details.bookinfo.svc.cluster.local"]}]},
    )
    for app in shape.apps:
        routes = shape.routes(app)
        routes["virtual_hosts"] = [
            vh for vh in routes["virtual_hosts"] if vh["name"].startswith(("details", "allow_any"))
        ]
        if not any("*" in vh["domains"] for vh in routes["virtual_hosts"]):
            routes["virtual_hosts"].append(
                {
                    "name": "allow_any",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "name": "allow_any",
                            "route": {"cluster": "PassthroughCluster", "timeout": "0s"},
                        }
                    ],
                    "include_request_attempt_count": True,
                }
            )
        for service in ("ratings", "reviews", "productpage"):
            shape.remove_cluster(app, full(service))
    seen = CLOSED | {
        "upstream_cluster": "PassthroughCluster",
        "route_name": "allow_any",
        "upstream_host": f"{shape.service_ip('ratings')}:9080",
    }
    shape.call("client", "ratings", path="/ratings/0", seen=seen, silent=True)
    shape.refused("ratings", shape.ip("client"))
    return shape


@case("implicit-deny-by-allow-policy")
def wrong_method_for_the_allow_policy() -> Shape:
    shape = quiet()
    get = {"header": {"name": ":method", "string_match": {"exact": "GET"}}}
    rules = {"permissions": [both([get], "rules")], "principals": [both([principal("client")], "ids")]}
    rbac(shape, "details", "ALLOW", {"ns[bookinfo]-policy[readers]-rule[0]": rules})
    policy(
        shape,
        "readers",
        {
            "action": "ALLOW",
            "selector": {"matchLabels": {"app": "details"}},
            "rules": [
                {
                    "from": [{"source": {"principals": ["cluster.local/ns/bookinfo/sa/client"]}}],
                    "to": [{"operation": {"methods": ["GET"]}}],
                }
            ],
        },
    )
    shape.call(
        "client",
        "details",
        path="/details/0",
        seen=DENIED | {"method": "POST"},
        told=matched("none") | {"method": "POST"},
    )
    return shape


@case("implicit-deny-by-allow-policy")
def allowed_for_another_namespace() -> Shape:
    """`source.namespaces`: istiod writes a filter-state or principal regex of the namespace."""
    shape = quiet()
    ns = {"authenticated": {"principal_name": {"safe_regex": {"regex": ".*/ns/shop/.*"}}}}
    rules = {"permissions": [both([{"any": True}], "rules")], "principals": [both([ns], "ids")]}
    rbac(shape, "details", "ALLOW", {"ns[bookinfo]-policy[shop-only]-rule[0]": rules})
    policy(
        shape,
        "shop-only",
        {
            "action": "ALLOW",
            "selector": {"matchLabels": {"app": "details"}},
            "rules": [{"from": [{"source": {"namespaces": ["shop"]}}]}],
        },
    )
    shape.call("client", "details", path="/details/0", seen=DENIED, told=matched("none"))
    return shape


@case("no-peer-identity-for-principal-policy")
def legacy_caller_without_identity() -> Shape:
    """A pod without sidecar calls a permissive server whose policy wants a principal."""
    shape = quiet()
    shape.peer_authentication("PERMISSIVE")
    rules = {
        "permissions": [both([{"any": True}], "rules")],
        "principals": [both([principal("client")], "ids")],
    }
    rbac(shape, "details", "ALLOW", {"ns[bookinfo]-policy[only-client]-rule[0]": rules})
    policy(
        shape,
        "only-client",
        {
            "action": "ALLOW",
            "selector": {"matchLabels": {"app": "details"}},
            "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/bookinfo/sa/client"]}}]}],
        },
    )
    shape._lines = {}
    shape.call("client", "details", path="/details/0")
    before = len(shape._lines["client"])
    shape.call(
        "client",
        "details",
        path="/details/0",
        told=matched("none")
        | {"requested_server_name": None, "downstream_remote_address": "10.88.1.10:51234"},
    )
    del shape._lines["client"][before:]
    return shape


@case("deny-policy")
def negative_namespace_denies_a_plaintext_caller() -> Shape:
    """DENY with notNamespaces always matches a caller without identity."""
    shape = quiet()
    shape.peer_authentication("PERMISSIVE")
    ns = {
        "not_id": {
            "or_ids": {
                "ids": [{"authenticated": {"principal_name": {"safe_regex": {"regex": ".*/ns/bookinfo/.*"}}}}]
            }
        }
    }
    rules = {"permissions": [both([{"any": True}], "rules")], "principals": [{"and_ids": {"ids": [ns]}}]}
    rbac(shape, "details", "DENY", {"ns[bookinfo]-policy[only-bookinfo]-rule[0]": rules})
    policy(
        shape,
        "only-bookinfo",
        {
            "action": "DENY",
            "selector": {"matchLabels": {"app": "details"}},
            "rules": [{"from": [{"source": {"notNamespaces": ["bookinfo"]}}]}],
        },
    )
    shape._lines = {}
    shape.call("client", "details", path="/details/0")
    before = len(shape._lines["client"])
    told = matched("ns[bookinfo]-policy[only-bookinfo]-rule[0]") | {
        "requested_server_name": None,
        "downstream_remote_address": "10.88.1.10:51234",
    }
    shape.call("client", "details", path="/details/0", told=told)
    del shape._lines["client"][before:]
    return shape


@case("client-without-sidecar-server-strict")
def legacy_client_in_a_namespace_without_injection() -> Shape:
    shape = quiet()
    shape.refused("productpage", "10.88.1.10")
    return shape


@case("not-injected")
def opted_in_by_pod_label_but_not_injected() -> Shape:
    shape = quiet()
    namespace(shape, "shop")
    bystander(shape, "cart", "shop", ip="10.88.1.90", labels={"sidecar.istio.io/inject": "true"})
    return shape


@case("not-injected")
def host_network_pod_among_them_is_not_meant() -> Shape:
    """Two pods: one on the host's network, which istiod never injects, one made before the label."""
    shape = quiet()
    bystander(shape, "agent", NAMESPACE, ip="10.88.0.1", owner="DaemonSet")["spec"]["hostNetwork"] = True
    bystander(shape, "cart", NAMESPACE, ip="10.88.1.90")
    return shape


@case("client-mtls-server-without-sidecar")
def one_version_opted_out_of_the_mesh() -> Shape:
    """DestinationRule ISTIO_MUTUAL, and one of three reviews has no sidecar."""
    shape = Shape()
    shape.tls_mode("reviews", "ISTIO_MUTUAL")
    ip = shape.ip("reviews-v3")
    pod = shape.pod("reviews-v3")
    pod["spec"]["initContainers"] = []
    for key in [k for k in pod["metadata"]["labels"] if "istio" in k]:
        del pod["metadata"]["labels"][key]
    pod["metadata"]["labels"]["sidecar.istio.io/inject"] = "false"
    pod["metadata"]["annotations"] = {}
    for app in shape.apps:
        for endpoint in shape.endpoints(app, full("reviews")):
            if endpoint["endpoint"]["address"]["socket_address"]["address"] == ip:
                endpoint["metadata"]["filter_metadata"].pop("envoy.transport_socket_match", None)
    shape.without("reviews-v3")
    for path, data in shape.files.items():
        if path.endswith("syncz.json"):
            shape.files[path] = [entry for entry in data if not entry["proxy"].startswith("reviews-v3")]
    shape.call("productpage", "reviews", "reviews-v1", path="/reviews/0", count=5)
    shape.call(
        "productpage",
        "reviews",
        "nobody",
        path="/reviews/0",
        count=4,
        seen=WRONG_VERSION | {"upstream_host": f"{ip}:9080"},
    )
    return shape


@case("client-plaintext-server-strict")
def plaintext_by_a_rule_of_the_root_namespace() -> Shape:
    """`*.local` DISABLE in istio-system, and STRICT in the namespace."""
    shape = told_to_send_plaintext()
    shape.objects = [o for o in shape.objects if o["kind"] != "DestinationRule"]
    shape.add(
        "DestinationRule",
        "no-mtls",
        {"host": "*.local", "trafficPolicy": {"tls": {"mode": "DISABLE"}}},
        namespace="istio-system",
    )
    for app in shape.apps:
        meta = shape.cluster(app, full("ratings"))["metadata"]["filter_metadata"]["istio"]
        meta["config"] = "/apis/networking.istio.io/v1/namespaces/istio-system/destination-rule/no-mtls"
    return shape


@case("app-closes-connection")
def application_resets_under_load() -> Shape:
    shape = quiet()
    told = {
        "response_code": 503,
        "response_code_details": "upstream_reset_before_response_started{connection_termination}",
        "response_flags": "UC",
        "bytes_sent": 95,
    }
    for _ in range(3):
        shape.call(
            "client",
            "details",
            path="/details/0",
            count=1,
            seen={"response_code": 503, "bytes_sent": 95},
            told=told,
        )
        shape.call("client", "details", path="/details/0", count=1)
    return shape


@case("rate-limit-global")
def global_limit() -> Shape:
    shape = quiet()
    for manager in shape.inbound_managers("details"):
        manager["http_filters"].insert(
            0,
            {
                "name": "envoy.filters.http.ratelimit",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
                    "domain": "ratelimit",
                    "failure_mode_deny": True,
                    "rate_limit_service": {
                        "grpc_service": {
                            "envoy_grpc": {
                                "cluster_name": "outbound|9080||ratings.bookinfo.svc.cluster.local"
                            }
                        },
                        "transport_api_version": "V3",
                    },
                },
            },
        )
    told = matched("") | {
        "response_code": 429,
        "response_code_details": "request_rate_limited",
        "response_flags": "RL",
        "bytes_sent": 0,
    }
    shape.call(
        "client", "details", path="/details/0", seen={"response_code": 429, "bytes_sent": 0}, told=told
    )
    return shape


@case("rate-limit-local")
def limited_by_an_inbound_route() -> Shape:
    """The bucket stands in the route's own configuration, as Istio's task has it."""
    shape = limited()
    shape.add(
        "EnvoyFilter",
        "filter-local-ratelimit-svc",
        {
            "workloadSelector": {"labels": {"app": "details"}},
            "configPatches": [
                {
                    "applyTo": "HTTP_FILTER",
                    "match": {"context": "SIDECAR_INBOUND"},
                    "patch": {
                        "operation": "INSERT_BEFORE",
                        "value": {
                            "name": "envoy.filters.http.local_ratelimit",
                            "typed_config": {
                                "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
                                "type_url": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
                                "value": {
                                    "stat_prefix": "http_local_rate_limiter",
                                    "token_bucket": {
                                        "max_tokens": 2,
                                        "tokens_per_fill": 2,
                                        "fill_interval": "60s",
                                    },
                                },
                            },
                        },
                    },
                }
            ],
        },
    )
    return shape


@case("max-connections-tcp")
def tcp_connections_overflow() -> Shape:
    shape = quiet()
    shape.destination_rule("details", {"connectionPool": {"tcp": {"maxConnections": 1}}})
    thresholds(shape, "details", max_connections=1)
    seen = no_host(
        "UO",
        "-",
        0,
        method=None,
        path=None,
        protocol=None,
        authority=None,
        request_id=None,
        response_code_details=None,
        bytes_sent=0,
        route_name=None,
    )
    shape.call("client", "details", path="/", seen=seen, silent=True)
    return shape


@case("application-answer / one-endpoint-ejected")
def ejection_goes_on() -> Shape:
    """One of three is out; another one now fails as well, not often enough."""
    shape = one_of_three_ejected()
    shape.call(
        "productpage",
        "reviews",
        "reviews-v1",
        path="/reviews/0",
        count=1,
        seen={"response_code": 500},
        told={"response_code": 500},
        ago_s=7,
    )
    return shape


@case("fault-abort")
def abort_for_some_by_header() -> Shape:
    shape = aborted_on_purpose()
    for app in shape.apps:
        routes = shape.virtual_host(app, "ratings")["routes"]
        routes[0]["match"] = {
            "prefix": "/",
            "headers": [{"name": "end-user", "string_match": {"exact": "jason"}}],
        }
        routes.append(shape.route("ratings"))
    shape.call("client", "ratings", path="/ratings/0", count=4)
    return shape


@case("route-timeout")
def timeout_in_a_classic_text_log() -> Shape:
    shape = too_slow_for_the_route()
    for lines in shape._lines.values():
        for line in lines:
            if isinstance(line, dict) and line["response_flags"] == "UT":
                line["response_code_details"] = "response_timeout"
                line["upstream_host"] = None
    return shape


@case("caller-gave-up")
def outer_caller_left_and_all_within_with_it() -> Shape:
    shape = Shape()
    left = {
        "response_code": 0,
        "response_code_details": "downstream_remote_disconnect",
        "response_flags": "DC",
        "duration": 1000,
    }
    shape.call("client", "productpage", path="/productpage", seen=left, told=left)
    shape.call("productpage", "reviews", "reviews-v2", path="/reviews/0", seen=left, told=left, within=True)
    shape.call("reviews-v2", "ratings", path="/ratings/0", seen=left, told=left, within=True)
    return shape


@case(HEALTHY)
def debug_containers_and_jobs_without_proxies() -> Shape:
    """A finished Job without sidecar, a debug pod that opts out, a namespace being deleted."""
    shape = quiet()
    bystander(shape, "backup", NAMESPACE, phase="Failed", owner="Job", ip="10.88.1.91")
    bystander(shape, "debug", NAMESPACE, labels={"sidecar.istio.io/inject": "false"}, ip="10.88.1.92")
    gone = bystander(shape, "leaving", NAMESPACE, ip="10.88.1.93")
    gone["metadata"]["deletionTimestamp"] = "2026-11-23T12:27:00Z"
    return shape


# --- certificates of our own making


def certified(
    shape: Shape, *, expired: str = "", old_roots: tuple[str, ...] = (), domain: dict[str, str] | None = None
) -> None:
    """All proxies get certificates of a new CA; one is expired, some trust another root only, some have another domain."""
    key, root = _authority("cluster.local", shape.captured_at)
    _, other = _authority("another", shape.captured_at)
    for app in shape.apps:
        account = shape.pod(app)["spec"]["serviceAccountName"]
        trust = (domain or {}).get(app, "cluster.local")
        end = timedelta(minutes=-20) if app == expired else timedelta(hours=20)
        leaf = _leaf(key, root, f"spiffe://{trust}/ns/{NAMESPACE}/sa/{account}", shape.captured_at, end)
        for secret in shape.secrets(app):
            if secret["name"] == "default":
                chain = secret["secret"]["tls_certificate"]["certificate_chain"]
                chain["inline_bytes"] = base64.b64encode(leaf + _pem(root)).decode()
            if secret["name"] == "ROOTCA":
                trusted = other if app in old_roots else root
                secret["secret"]["validation_context"]["trusted_ca"]["inline_bytes"] = base64.b64encode(
                    _pem(trusted)
                ).decode()


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _authority(name: str, at: datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)])
    builder = _builder(subject, subject, key.public_key(), at, timedelta(days=300))
    return key, builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True).sign(
        key, hashes.SHA256()
    )


def _leaf(
    key: ec.EllipticCurvePrivateKey, root: x509.Certificate, uri: str, at: datetime, end: timedelta
) -> bytes:
    own = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(x509.Name([]), root.subject, own.public_key(), at, end)
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    return _pem(builder.add_extension(names, True).sign(key, hashes.SHA256()))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, at: datetime, end: timedelta
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(at - timedelta(days=2)).not_valid_after(at + end)


def verify_failed(text: str) -> Json:
    return reset(
        "remote_connection_failure|TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:"
        f"verify_cert_failed:_{text}:TLS_error_end"
    )


@case(HEALTHY)
def quiet_with_another_ca() -> Shape:
    shape = quiet()
    certified(shape)
    return shape


@case("client-cert-expired")
def expired_caller() -> Shape:
    shape = Shape()
    certified(shape, expired="client")
    shape.call("client", "ratings", path="/ratings/0", seen=CLOSED, silent=True)
    shape.call("reviews-v2", "ratings", path="/ratings/0", count=4)
    return shape


@case("server-cert-expired")
def expired_server() -> Shape:
    shape = Shape()
    certified(shape, expired="ratings")
    seen = verify_failed(
        "X509_verify_cert:_certificate_verification_error_at_depth_0:_certificate_has_expired"
    )
    for client in ("client", "reviews-v2", "reviews-v3"):
        shape.call(client, "ratings", path="/ratings/0", seen=seen, silent=True)
    return shape


@case("server-root-bundle-outdated")
def rotated_root_that_one_proxy_lacks() -> Shape:
    """ratings' proxy trusts the old root only; its own certificate is of the new one."""
    shape = Shape()
    certified(shape, old_roots=("ratings",))
    shape.call("client", "ratings", path="/ratings/0", seen=CLOSED, silent=True)
    return shape


@case("san-mismatch-trust-domain")
def server_of_another_trust_domain() -> Shape:
    shape = Shape()
    certified(shape, domain={"ratings": "old.example"})
    seen = verify_failed(
        "SAN_matcher,_certificate_SANs_are_[spiffe://old.example/ns/bookinfo/sa/bookinfo-ratings]"
    )
    shape.call("client", "ratings", path="/ratings/0", seen=seen, silent=True)
    return shape


@case("cluster-rejected")
def cluster_refused() -> Shape:
    shape = quiet()
    entry = sync(shape, "client")
    resource = entry["resources"]["type.googleapis.com/envoy.config.cluster.v3.Cluster"]
    resource["lastError"] = (
        "Error adding/updating cluster(s) outbound|9080||details.bookinfo.svc.cluster.local: bad field"
    )
    resource["sent"] = entry["cluster_sent"] = "2026-11-23T12:20:00Z/99new"
    said = "delta config for type.googleapis.com/envoy.config.cluster.v3.Cluster rejected: Error adding/updating cluster(s)"
    shape.envoy(
        "client", f"warning\tenvoy config delta_subscription_state.cc:288\t{said} bad field\tthread=21"
    )
    return shape


def tcp_lines(shape: Shape, seen: Json | None = None, told: Json | None = None, silent: bool = False) -> None:
    tcp = {
        "method": None,
        "path": None,
        "protocol": None,
        "authority": None,
        "request_id": None,
        "response_code": 0,
        "response_code_details": None,
        "route_name": None,
        "bytes_received": 120,
        "bytes_sent": 300,
    }
    shape.call("client", "details", path="/", seen=tcp | (seen or {}), told=tcp | (told or {}), silent=silent)


def as_tcp(shape: Shape, service: str, app: str, name: str = "tcp") -> None:
    """The Service's port is plain TCP to the mesh: a listener at its address, TCP chains at the server."""
    import copy

    shape.object("Service", service)["spec"]["ports"][0]["name"] = name
    for found in shape.objects:
        if found["kind"] == "EndpointSlice" and found["metadata"]["name"].startswith(service):
            found["ports"][0]["name"] = name
    proxy: Json = {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": full(service),
            "cluster": full(service),
        },
    }
    for one in shape.apps:
        listener = copy.deepcopy(shape.listener(one, "0.0.0.0_9080"))
        address = shape.service_ip(service)
        listener |= {
            "name": f"{address}_9080",
            "address": {"socket_address": {"address": address, "port_value": 9080}},
            "filter_chains": [{"filters": [proxy]}],
        }
        listener.pop("default_filter_chain", None)
        shape._section(one, "ListenersConfigDump")["dynamic_listeners"].append(
            {"name": listener["name"], "active_state": {"listener": listener}}
        )
        routes = shape.routes(one)
        routes["virtual_hosts"] = [
            vh for vh in routes["virtual_hosts"] if not vh["name"].startswith(f"{service}.")
        ]
    inbound = copy.deepcopy(proxy)
    inbound["typed_config"] |= {"stat_prefix": "inbound|9080||", "cluster": "inbound|9080||"}
    for chain in shape.inbound_chains(app):
        chain["filters"] = [inbound]


@case(HEALTHY)
def quiet_tcp() -> Shape:
    shape = quiet()
    shape._lines = {}
    as_tcp(shape, "details", "details")
    tcp_lines(shape)
    return shape


@case("deny-policy")
def denied_tcp() -> Shape:
    shape = Shape()
    as_tcp(shape, "details", "details")
    rules = {
        "permissions": [both([{"destination_port": 9080}], "rules")],
        "principals": [both([principal("client")], "ids")],
    }
    for chain in shape.inbound_chains("details"):
        chain["filters"].insert(
            0,
            {
                "name": "envoy.filters.network.rbac",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC",
                    "rules": {
                        "action": "DENY",
                        "policies": {"ns[bookinfo]-policy[no-client]-rule[0]": rules},
                    },
                    "stat_prefix": "tcp.",
                },
            },
        )
    policy(
        shape,
        "no-client",
        {
            "action": "DENY",
            "selector": {"matchLabels": {"app": "details"}},
            "rules": [
                {
                    "from": [{"source": {"principals": ["cluster.local/ns/bookinfo/sa/client"]}}],
                    "to": [{"operation": {"ports": ["9080"]}}],
                }
            ],
        },
    )
    tcp_lines(
        shape,
        seen={"bytes_sent": 0},
        told={
            "bytes_sent": 0,
            "connection_termination_details": "rbac_access_denied_matched_policy[ns[bookinfo]-policy[no-client]-rule[0]]",
            "upstream_host": None,
            "upstream_cluster": "inbound|9080||",
        },
    )
    return shape


@case("http-policy-on-tcp-port")
def routes_that_a_tcp_port_ignores() -> Shape:
    shape = Shape()
    as_tcp(shape, "details", "details")
    shape.add(
        "VirtualService",
        "details",
        {
            "hosts": ["details"],
            "http": [
                {
                    "fault": {"abort": {"httpStatus": 500, "percentage": {"value": 100}}},
                    "route": [{"destination": {"host": "details"}}],
                }
            ],
        },
    )
    tcp_lines(shape)
    return shape


@case("nothing-listens-at-endpoint")
def service_entry_to_a_closed_port() -> Shape:
    """A ServiceEntry's host resolved by DNS; the port there is closed."""
    shape = quiet()
    name = "outbound|8080||api.example.com"
    shape.add(
        "ServiceEntry",
        "api",
        {
            "hosts": ["api.example.com"],
            "ports": [{"number": 8080, "name": "http", "protocol": "HTTP"}],
            "resolution": "DNS",
            "location": "MESH_EXTERNAL",
        },
    )
    address = {"socket_address": {"address": "203.0.113.9", "port_value": 8080}}
    shape.add_cluster(
        "client",
        {
            "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            "name": name,
            "type": "STRICT_DNS",
            "connect_timeout": "10s",
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [
                    {
                        "locality": {},
                        "lb_endpoints": [
                            {
                                "endpoint": {
                                    "address": {
                                        "socket_address": {"address": "api.example.com", "port_value": 8080}
                                    }
                                },
                                "load_balancing_weight": 1,
                            }
                        ],
                    }
                ],
            },
            "metadata": {
                "filter_metadata": {
                    "istio": {
                        "services": [
                            {"host": "api.example.com", "name": "api.example.com", "namespace": "bookinfo"}
                        ]
                    }
                }
            },
        },
    )
    shape.statuses("client").append(
        {
            "name": name,
            "added_via_api": True,
            "host_statuses": [
                {"address": address, "health_status": {"eds_health_status": "HEALTHY"}, "weight": 1}
            ],
        }
    )
    route = shape.route("details")
    route["route"]["cluster"] = name
    listen_at(
        shape,
        "client",
        8080,
        [{"name": "api.example.com:8080", "domains": ["api.example.com"], "routes": [route]}],
    )
    seen = reset(f"remote_connection_failure|{REFUSED}") | {
        "upstream_cluster": name,
        "upstream_host": "203.0.113.9:8080",
        "authority": "api.example.com:8080",
        "downstream_local_address": "203.0.113.9:8080",
    }
    shape.call("client", "details", "nobody", path="/v1", seen=seen)
    return shape


@case("dns-failure")
def service_entry_that_does_not_resolve() -> Shape:
    shape = service_entry_to_a_closed_port()
    shape._lines["client"] = [line for line in shape._lines["client"] if "api.example.com" not in str(line)]
    shape.statuses("client")[-1].pop("host_statuses")
    seen = no_host(
        "UH",
        "no_healthy_upstream",
        upstream_cluster="outbound|8080||api.example.com",
        authority="api.example.com:8080",
        downstream_local_address="240.240.0.1:8080",
    )
    shape.call("client", "details", "nobody", path="/v1", seen=seen)
    return shape


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_cause_is_named_first_and_alone(name: str, tmp_path: Path) -> None:
    cause, build = CASES[name]
    report = verdict(build().write(tmp_path / "bundle"))
    serious = [finding.cause for finding in report.findings if finding.severity != "info"]
    assert serious == ([] if cause == HEALTHY else cause.split(" / "))
    assert not [unknown for unknown in report.unknown if unknown.what.startswith("rule ")]


AS_TEXT = (
    "quiet",
    "told_to_send_plaintext",
    "mutual_to_disable",
    "denied_path",
    "pending_overflow",
    "missing_subset",
    "wrong_target_port",
    "nothing_there",
    "too_slow_for_a_try",
    "denied_tcp",
)


@pytest.mark.parametrize("name", AS_TEXT)
def test_a_text_log_in_older_words_says_the_same(name: str, tmp_path: Path) -> None:
    cause, build = CASES[name]
    shape = build()
    shape.log_as_text()
    report = verdict(shape.write(tmp_path / "bundle"))
    serious = [finding.cause for finding in report.findings if finding.severity != "info"]
    assert serious == ([] if cause == HEALTHY else [cause])
