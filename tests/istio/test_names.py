"""Istio's names inside Envoy are taken apart and lead to the objects behind them."""

from __future__ import annotations

import pytest

from meshscope.envoy.config_dump import ConfigDump, Node
from meshscope.istio.names import (
    ClusterName,
    RouteName,
    ServiceHost,
    StatPrefix,
    cluster_name,
    config_object,
    denied_by,
    ext_authz_rule,
    inbound_stat_prefix,
    metadata_object,
    node_info,
    pod_workload,
    policy_rule,
    route_config_name,
    service_host,
    sni_name,
    stat_prefix,
)
from meshscope.model.names import ObjectRef, ProxyId, WorkloadId
from tests.recordings import RecordedProxy, proxies

REVIEWS = "reviews.ns.svc.cluster.local"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (f"outbound|9080||{REVIEWS}", ClusterName("outbound", 9080, "", REVIEWS)),
        (f"outbound|9080|v1|{REVIEWS}", ClusterName("outbound", 9080, "v1", REVIEWS)),
        (f"outbound|9080|v1|{REVIEWS};", ClusterName("outbound", 9080, "v1", REVIEWS)),
        ("inbound|9080||", ClusterName("inbound", 9080)),
        (
            "inbound-vip|80|http|a.ns.svc.cluster.local",
            ClusterName("inbound-vip", 80, "http", "a.ns.svc.cluster.local"),
        ),
        ("PassthroughCluster", None),
        ("xds-grpc", None),
        ("outbound|x||a", None),
        ("outbound|99999||a", None),
        ("outbound|\u0663||a", None),
        ("", None),
    ],
)
def test_cluster_names(text: str, name: ClusterName | None) -> None:
    assert cluster_name(text) == name
    if name is not None:
        assert str(name) == text.rstrip(";")


def test_a_server_name_is_the_cluster_in_dns_letters() -> None:
    name = ClusterName("outbound", 9080, "v1", REVIEWS)
    assert name.sni == f"outbound_.9080_.v1_.{REVIEWS}"
    assert sni_name(name.sni) == name
    assert sni_name(f"outbound_.9080_._.{REVIEWS}") == ClusterName("outbound", 9080, "", REVIEWS)
    assert sni_name("reviews.example.com") is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("9080", RouteName("outbound", 9080)),
        (f"{REVIEWS}:9080", RouteName("outbound", 9080, REVIEWS)),
        ("inbound|9080||", RouteName("inbound", 9080)),
        ("http.8080", RouteName("gateway", 8080)),
        ("https.443.https.my-gateway.istio-system", RouteName("gateway", 443)),
        ("InboundPassthroughCluster", None),
        (":9080", None),
        ("", None),
    ],
)
def test_route_configuration_names(text: str, name: RouteName | None) -> None:
    assert route_config_name(text) == name


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("outbound_0.0.0.0_9080;", StatPrefix("outbound", "0.0.0.0", 9080)),
        ("inbound_0.0.0.0_9080", StatPrefix("inbound", "0.0.0.0", 9080)),
        ("inbound_[::]_9080;", StatPrefix("inbound", "[::]", 9080)),
        ("InboundPassthroughCluster;", None),
        ("agent", None),
    ],
)
def test_stat_prefixes(text: str, prefix: StatPrefix | None) -> None:
    assert stat_prefix(text) == prefix


def test_an_inbound_ports_stat_prefix() -> None:
    assert stat_prefix(inbound_stat_prefix(9080)) == StatPrefix("inbound", "0.0.0.0", 9080)


def test_policies_are_named_in_details_and_rules() -> None:
    details = "rbac_access_denied_matched_policy[ns[bookinfo]-policy[ratings-deny]-rule[2]]"
    assert denied_by(details) == "ns[bookinfo]-policy[ratings-deny]-rule[2]"
    found = policy_rule(details)
    assert found is not None
    assert found.policy == ObjectRef("AuthorizationPolicy", "ratings-deny", "bookinfo", "security.istio.io")
    assert (found.rule, found.policy_id) == (2, "ns[bookinfo]-policy[ratings-deny]-rule[2]")
    assert str(found.policy) == "AuthorizationPolicy.security.istio.io/bookinfo/ratings-deny"


def test_no_policy_matched_is_a_denial_by_none() -> None:
    assert denied_by("rbac_access_denied_matched_policy[none]") == "none"
    assert policy_rule("rbac_access_denied_matched_policy[none]") is None
    assert denied_by("via_upstream") is None


def test_an_external_authorizers_policy() -> None:
    found = ext_authz_rule("istio-ext-authz-ns[a]-policy[b]-rule[0]")
    assert found is not None
    assert found.policy.name == "b"
    assert ext_authz_rule("ns[a]-policy[b]-rule[0]") is None


@pytest.mark.parametrize(
    ("path", "written"),
    [
        (
            "/apis/networking.istio.io/v1/namespaces/bookinfo/virtual-service/reviews",
            "VirtualService.networking.istio.io/bookinfo/reviews",
        ),
        (
            "/apis/networking.istio.io/v1alpha3/namespaces/bookinfo/destination-rule/reviews",
            "DestinationRule.networking.istio.io/bookinfo/reviews",
        ),
        (
            "/apis/gateway.networking.k8s.io/v1/namespaces/a/http-route/b",
            "HTTPRoute.gateway.networking.k8s.io/a/b",
        ),
    ],
)
def test_metadata_leads_to_the_object(path: str, written: str) -> None:
    assert str(config_object(path)) == written
    assert str(metadata_object({"config": path})) == written


@pytest.mark.parametrize("istio", [{}, {"config": 3}, {"config": ""}, {"config": "/apis/x/y"}])
def test_metadata_without_an_object(istio: dict[str, object]) -> None:
    assert metadata_object(istio) is None


@pytest.mark.parametrize(
    ("host", "found"),
    [
        (REVIEWS, ServiceHost("reviews", "ns")),
        ("reviews.ns.svc", ServiceHost("reviews", "ns")),
        ("reviews.ns.svc.corp.example", ServiceHost("reviews", "ns")),
        ("reviews.ns", None),
        ("example.com", None),
        ("", None),
    ],
)
def test_service_hosts(host: str, found: ServiceHost | None) -> None:
    assert service_host(host) == found


@pytest.mark.parametrize("recorded", proxies(), ids=str)
def test_recorded_nodes_say_who_they_are(recorded: RecordedProxy) -> None:
    found = node_info(ConfigDump(recorded.read("config_dump.json")).bootstrap.node)
    assert found is not None
    assert found.proxy == ProxyId(recorded.namespace, recorded.pod)
    assert (found.kind, found.is_gateway) == ("sidecar", False)
    assert found.workload == WorkloadId("bookinfo", recorded.pod.rsplit("-", 2)[0])
    assert (found.trust_domain, found.domain, found.interception_mode) == (
        "cluster.local",
        "cluster.local",
        "REDIRECT",
    )
    assert found.istio_version.startswith("1.32")
    assert found.ips
    assert found.service_account


def test_a_node_with_nothing_but_its_id() -> None:
    found = node_info(Node(id="router~10.0.0.1~gw-7d4f-abc.istio-ingress~istio-ingress.svc.corp.example"))
    assert found is not None
    assert found.is_gateway
    assert found.proxy == ProxyId("istio-ingress", "gw-7d4f-abc")
    assert found.workload == WorkloadId("istio-ingress", "gw-7d4f-abc", "Pod")
    assert (found.ips, found.domain) == (("10.0.0.1",), "corp.example")


def test_metadata_of_the_wrong_shape_is_as_good_as_none() -> None:
    meta = {"LABELS": [], "NAME": 3, "OWNER": {}, "POD_PORTS": "[", "ANNOTATIONS": {"a": 1}}
    found = node_info(Node(id="sidecar~10.0.0.1~a.b~b.svc.cluster.local", metadata=meta))
    assert found is not None
    assert (found.pod, found.labels, found.annotations, found.container_ports) == ("a", {}, {}, ())


@pytest.mark.parametrize("node_id", ["", "envoy", "a~b", "a~b~c~d~e"])
def test_a_node_of_another_mesh_is_none_of_istios(node_id: str) -> None:
    assert node_info(Node(id=node_id)) is None


def test_a_pods_name_tells_its_deployment_by_the_template_hash() -> None:
    labels = {"pod-template-hash": "6974b79895"}
    assert pod_workload("ns", "reviews-v2-6974b79895-v9rnr", labels) == WorkloadId("ns", "reviews-v2")
    assert pod_workload("ns", "reviews-v2-0", {}) == WorkloadId("ns", "reviews-v2-0", "Pod")
