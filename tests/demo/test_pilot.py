"""The stand-in for istiod makes what a real one made, as the recordings of a real Istio show it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from meshscope.demo.authority import Authorities
from meshscope.demo.bookinfo import bookinfo
from meshscope.demo.pilot import ProxyConfig, proxy_config
from meshscope.demo.pilot.registry import Registry
from meshscope.demo.spec import MeshSpec


def _config(spec: MeshSpec, workload: str) -> ProxyConfig:
    found = spec.workload(workload)
    return proxy_config(Registry(spec), Authorities(spec.started), found, found.pods[0], Path("/nowhere"))


def _with(manifests: str) -> MeshSpec:
    spec = bookinfo()
    spec.add(manifests)
    return spec


def _peer_authentication(mode: str) -> str:
    return f"""
        apiVersion: security.istio.io/v1
        kind: PeerAuthentication
        metadata: {{name: default, namespace: bookinfo}}
        spec: {{mtls: {{mode: {mode}}}}}
    """


def _chains(config: ProxyConfig) -> list[tuple[str, dict[str, Any]]]:
    chains = config.listeners["virtualInbound"]["filter_chains"]
    return [(chain["name"], chain["filter_chain_match"]) for chain in chains]


def _inspectors(config: ProxyConfig) -> dict[str, Any]:
    return {
        item["name"].rpartition(".")[2]: item.get("filter_disabled")
        for item in config.listeners["virtualInbound"]["listener_filters"]
    }


def test_strict_takes_mesh_tls_alone() -> None:
    config = _config(bookinfo(), "ratings-v1")
    assert _chains(config) == [
        ("virtualInbound-blackhole", {"destination_port": 15006}),
        (
            "virtualInbound-catchall-http",
            {
                "transport_protocol": "tls",
                "application_protocols": ["istio-http/1.0", "istio-http/1.1", "istio-h2"],
            },
        ),
        ("virtualInbound", {"transport_protocol": "tls"}),
        ("0.0.0.0_9080", {"transport_protocol": "tls", "destination_port": 9080}),
    ]
    assert _inspectors(config) == {
        "original_dst": None,
        "tls_inspector": {"destination_port_range": {"start": 15006, "end": 15007}},
    }


def test_permissive_takes_mesh_tls_and_plaintext() -> None:
    config = _config(_with(_peer_authentication("PERMISSIVE")), "ratings-v1")
    served = [match for name, match in _chains(config) if name == "0.0.0.0_9080"]
    assert [match["transport_protocol"] for match in served] == ["tls", "raw_buffer"]
    assert served[0]["application_protocols"] == [
        "istio",
        "istio-peer-exchange",
        "istio-http/1.0",
        "istio-http/1.1",
        "istio-h2",
    ]


def test_disable_takes_plaintext_and_is_told_to_clients() -> None:
    spec = _with(_peer_authentication("DISABLE"))
    config = _config(spec, "ratings-v1")
    assert all(match.get("transport_protocol") != "tls" for _, match in _chains(config))
    client = _config(spec, "client")
    assert (
        "transport_socket_matches" not in client.clusters["outbound|9080||ratings.bookinfo.svc.cluster.local"]
    )


def test_a_port_s_mode_beats_the_workload_s() -> None:
    spec = _with("""
        apiVersion: security.istio.io/v1
        kind: PeerAuthentication
        metadata: {name: ratings, namespace: bookinfo}
        spec:
          selector: {matchLabels: {app: ratings}}
          mtls: {mode: STRICT}
          portLevelMtls: {9080: {mode: DISABLE}}
    """)
    config = _config(spec, "ratings-v1")
    assert ("0.0.0.0_9080", {"transport_protocol": "raw_buffer", "destination_port": 9080}) in _chains(config)
    ranges = _inspectors(config)["tls_inspector"]["or_match"]["rules"]
    assert [item["destination_port_range"]["start"] for item in ranges] == [9080, 15006]
    client = _config(spec, "client")
    (endpoint,) = client.endpoints["outbound|9080||ratings.bookinfo.svc.cluster.local"]["endpoints"][0][
        "lb_endpoints"
    ]
    assert "envoy.transport_socket_match" not in endpoint["metadata"]["filter_metadata"]


def test_auto_mtls_offers_the_service_s_identity_endpoint_by_endpoint() -> None:
    config = _config(bookinfo(), "client")
    cluster = config.clusters["outbound|9080||ratings.bookinfo.svc.cluster.local"]
    mesh_tls, plain = cluster["transport_socket_matches"]
    assert (mesh_tls["name"], mesh_tls["match"]) == ("tlsMode-istio", {"tlsMode": "istio"})
    assert (plain["name"], plain["match"]) == ("tlsMode-disabled", {})
    context = mesh_tls["transport_socket"]["typed_config"]
    assert context["sni"] == "outbound_.9080_._.ratings.bookinfo.svc.cluster.local"
    sans = context["common_tls_context"]["combined_validation_context"]["default_validation_context"]
    assert sans == {
        "match_subject_alt_names": [{"exact": "spiffe://cluster.local/ns/bookinfo/sa/bookinfo-ratings"}]
    }


def test_a_deny_policy_becomes_the_filter_that_a_real_istio_made() -> None:
    spec = _with("""
        apiVersion: security.istio.io/v1
        kind: AuthorizationPolicy
        metadata: {name: ratings-deny, namespace: bookinfo}
        spec:
          action: DENY
          selector: {matchLabels: {app: ratings}}
          rules:
          - from: [{source: {principals: [cluster.local/ns/bookinfo/sa/bookinfo-reviews]}}]
            to: [{operation: {methods: [GET]}}]
    """)
    chains = _config(spec, "ratings-v1").listeners["virtualInbound"]["filter_chains"]
    principals = [
        {
            "and_ids": {
                "ids": [
                    {
                        "or_ids": {
                            "ids": [
                                {
                                    "authenticated": {
                                        "principal_name": {
                                            "exact": "spiffe://cluster.local/ns/bookinfo/sa/bookinfo-reviews"
                                        }
                                    }
                                }
                            ]
                        }
                    }
                ]
            }
        }
    ]
    by_method = {"or_rules": {"rules": [{"header": {"name": ":method", "string_match": {"exact": "GET"}}}]}}
    served = next(chain for chain in chains if chain["name"] == "0.0.0.0_9080")
    assert served["filters"][0]["typed_config"]["http_filters"][0] == {
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": {
                "action": "DENY",
                "policies": {
                    "ns[bookinfo]-policy[ratings-deny]-rule[0]": {
                        "permissions": [{"and_rules": {"rules": [by_method]}}],
                        "principals": principals,
                    }
                },
            },
            "shadow_rules_stat_prefix": "istio_dry_run_allow_",
        },
    }
    tcp = next(chain for chain in chains if chain["name"] == "virtualInbound")
    policies = tcp["filters"][0]["typed_config"]["rules"]["policies"]
    assert policies["ns[bookinfo]-policy[ratings-deny]-rule[0]"]["permissions"] == [
        {"and_rules": {"rules": [{"any": True}]}}
    ]


def test_an_allow_rule_with_http_conditions_falls_out_of_tcp_chains() -> None:
    spec = _with("""
        apiVersion: security.istio.io/v1
        kind: AuthorizationPolicy
        metadata: {name: mongodb, namespace: bookinfo}
        spec:
          selector: {matchLabels: {app: mongodb}}
          rules: [{to: [{operation: {methods: [GET]}}]}]
    """)
    chains = _config(spec, "mongodb-v1").listeners["virtualInbound"]["filter_chains"]
    served = next(chain for chain in chains if chain["name"] == "0.0.0.0_27017")
    assert served["filters"][0]["typed_config"]["rules"] == {"policies": {}}
    assert served["filters"][0]["typed_config"]["stat_prefix"] == "tcp."


def test_circuit_breakers_read_as_a_real_istio_writes_them() -> None:
    spec = _with("""
        apiVersion: networking.istio.io/v1
        kind: DestinationRule
        metadata: {name: details, namespace: bookinfo}
        spec:
          host: details
          trafficPolicy:
            connectionPool:
              tcp: {maxConnections: 1}
              http: {http1MaxPendingRequests: 1, maxRequestsPerConnection: 10}
            outlierDetection: {consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 30s}
    """)
    cluster = _config(spec, "client").clusters["outbound|9080||details.bookinfo.svc.cluster.local"]
    assert cluster["circuit_breakers"]["thresholds"] == [
        {
            "max_connections": 1,
            "max_pending_requests": 1,
            "max_requests": 4294967295,
            "max_retries": 4294967295,
        }
    ]
    (options,) = cluster["typed_extension_protocol_options"].values()
    assert options["common_http_protocol_options"] == {"max_requests_per_connection": 10}
    assert cluster["outlier_detection"] == {
        "interval": "1s",
        "base_ejection_time": "30s",
        "enforcing_success_rate": 0,
        "consecutive_5xx": 3,
        "enforcing_consecutive_5xx": 100,
    }


def test_a_virtual_service_names_itself_on_its_routes() -> None:
    spec = _with("""
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: reviews, namespace: bookinfo}
        spec:
          hosts: [reviews]
          http:
          - name: testers
            match: [{headers: {user: {exact: tester}}}]
            route: [{destination: {host: reviews, subset: v3}}]
          - route:
            - {destination: {host: reviews, subset: v1}, weight: 90}
            - {destination: {host: reviews, subset: v2}, weight: 10}
    """)
    hosts = _config(spec, "productpage-v1").routes["9080"]["virtual_hosts"]
    testers, rest = next(host for host in hosts if host["name"].startswith("reviews."))["routes"]
    assert testers["name"] == "testers"
    assert testers["match"] == {
        "prefix": "/",
        "headers": [{"name": "user", "string_match": {"exact": "tester"}}],
    }
    assert testers["metadata"]["filter_metadata"]["istio"]["config"] == (
        "/apis/networking.istio.io/v1/namespaces/bookinfo/virtual-service/reviews"
    )
    assert rest["route"]["weighted_clusters"]["clusters"] == [
        {"name": "outbound|9080|v1|reviews.bookinfo.svc.cluster.local", "weight": 90},
        {"name": "outbound|9080|v2|reviews.bookinfo.svc.cluster.local", "weight": 10},
    ]


def test_registry_only_blocks_what_is_not_known() -> None:
    spec = bookinfo()
    spec.mesh_config["outboundTrafficPolicy"] = {"mode": "REGISTRY_ONLY"}
    config = _config(spec, "client")
    fallback = config.routes["9080"]["virtual_hosts"][-1]
    assert fallback["name"] == "block_all"
    assert fallback["routes"][0]["direct_response"] == {"status": 502}
    default = config.listeners["0.0.0.0_9080"]["default_filter_chain"]["filters"][0]
    assert default["typed_config"]["cluster"] == "BlackHoleCluster"


def test_a_sidecar_resource_hides_hosts_from_its_namespace() -> None:
    spec = _with("""
        apiVersion: networking.istio.io/v1
        kind: Sidecar
        metadata: {name: default, namespace: bookinfo}
        spec: {egress: [{hosts: [./productpage.bookinfo.svc.cluster.local, istio-system/*]}]}
    """)
    clusters = _config(spec, "client").clusters
    assert "outbound|9080||productpage.bookinfo.svc.cluster.local" in clusters
    assert "outbound|9080||ratings.bookinfo.svc.cluster.local" not in clusters
    assert "outbound|15014||istiod.istio-system.svc.cluster.local" in clusters


@pytest.mark.parametrize(("ready", "endpoints"), [(True, 1), (False, 0)])
def test_pods_that_are_not_ready_are_no_endpoints(ready: bool, endpoints: int) -> None:
    spec = bookinfo()
    spec.workload("details-v1").pods[0].ready = ready
    assignment = _config(spec, "client").endpoints["outbound|9080||details.bookinfo.svc.cluster.local"]
    assert len(assignment["endpoints"]) == endpoints
