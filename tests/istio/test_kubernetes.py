"""What a cluster's objects say of pods, services and the mesh."""

from __future__ import annotations

from typing import Any

import pytest

from meshscope.istio.kubernetes import Endpoint, Objects, target_port
from meshscope.model.kubernetes import KubernetesObject
from meshscope.model.names import WorkloadId
from tests.istio.objects import a_pod, an, owned_by, recorded
from tests.recordings import names


@pytest.mark.parametrize("recording", names())
def test_a_recorded_cluster(recording: str) -> None:
    objects = recorded(recording)
    assert objects.cluster_uid == "0707452d-6a85-475a-a298-33af425a63d0"
    assert (objects.root_namespace, objects.trust_domain) == ("istio-system", "cluster.local")
    assert objects.mesh_config()["accessLogFile"] == "/dev/stdout"
    reviews = objects.service_of_host("reviews.bookinfo.svc.cluster.local")
    assert reviews is not None
    pods = objects.pods_selected(reviews)
    assert {objects.workload_of(pod) for pod in pods} == {
        WorkloadId("bookinfo", f"reviews-v{version}") for version in (1, 2, 3)
    }
    assert all(objects.has_proxy(pod) == "istio" and objects.ready(pod) for pod in pods)
    endpoints = objects.endpoints(reviews, 9080)
    assert {endpoint.pod for endpoint in endpoints} == {("bookinfo", pod.metadata.name) for pod in pods}
    for endpoint in endpoints:
        pod = objects.pod_by_ip(endpoint.address)
        assert pod in pods
        assert pod is not None
        assert objects.services_selecting(pod) == (reviews,)
        assert target_port(reviews, 9080, pod) == endpoint.port
    (legacy,) = objects.of("Pod", namespace="legacy")
    assert objects.has_proxy(legacy) == "none"


@pytest.mark.parametrize(
    ("pod", "others", "workload"),
    [
        (
            a_pod("web-5f-x", meta=owned_by("ReplicaSet", "web-5f")),
            [an("ReplicaSet", "web-5f", version="apps/v1", meta=owned_by("Deployment", "web"))],
            WorkloadId("ns", "web"),
        ),
        (
            a_pod("web-5f-x", labels={"pod-template-hash": "5f"}, meta=owned_by("ReplicaSet", "web-5f")),
            [],
            WorkloadId("ns", "web"),
        ),
        (
            a_pod("web-5f-x", meta=owned_by("ReplicaSet", "web-5f")),
            [an("ReplicaSet", "web-5f", version="apps/v1")],
            WorkloadId("ns", "web-5f", "ReplicaSet"),
        ),
        (
            a_pod("web-5f-x", meta=owned_by("ReplicaSet", "web-5f")),
            [an("ReplicaSet", "web-5f", version="apps/v1", meta=owned_by("Rollout", "web"))],
            WorkloadId("ns", "web", "Rollout"),
        ),
        (a_pod("db-0", meta=owned_by("StatefulSet", "db")), [], WorkloadId("ns", "db", "StatefulSet")),
        (
            a_pod("job-1-x", meta=owned_by("Job", "job-1")),
            [an("Job", "job-1", version="batch/v1", meta=owned_by("CronJob", "job"))],
            WorkloadId("ns", "job", "CronJob"),
        ),
        (a_pod("static", meta=owned_by("Node", "lab")), [], WorkloadId("ns", "static", "Pod")),
        (a_pod("bare"), [], WorkloadId("ns", "bare", "Pod")),
        (a_pod("web-5f-x", labels={"pod-template-hash": "5f"}), [], WorkloadId("ns", "web")),
    ],
)
def test_a_pods_workload(pod: KubernetesObject, others: list[KubernetesObject], workload: WorkloadId) -> None:
    objects = Objects([pod, *others])
    assert objects.workload_of(pod) == workload
    assert objects.pods_of(workload) == (pod,)


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ({"containers": [{"name": "app"}, {"name": "istio-proxy"}]}, "istio"),
        ({"containers": [{"name": "app"}], "initContainers": [{"name": "istio-proxy"}]}, "istio"),
        ({"containers": [{"name": "app"}], "initContainers": [{"name": "linkerd-proxy"}]}, "linkerd"),
        ({"containers": [{"name": "linkerd-proxy"}, {"name": "istio-proxy"}]}, "both"),
        ({"containers": [{"name": "app"}], "initContainers": [{"name": "istio-init"}]}, "none"),
        ({"containers": "oops", "initContainers": [3]}, "none"),
        ({}, "none"),
    ],
)
def test_whose_proxy_a_pod_has(spec: dict[str, Any], kind: str) -> None:
    pod = a_pod("a", spec=spec)
    assert Objects([pod]).has_proxy(pod) == kind


def test_ambient_pods_are_recognized() -> None:
    label = {"istio.io/dataplane-mode": "ambient"}
    namespace = an("Namespace", "ns", "", meta={"labels": label})
    taken = a_pod("a", meta={"annotations": {"ambient.istio.io/redirection": "enabled"}})
    labelled, plain = a_pod("b", labels=label), a_pod("c")
    out = a_pod("d", labels={"istio.io/dataplane-mode": "none"})
    sidecar = a_pod("e", labels=label, spec={"containers": [{"name": "istio-proxy"}]})
    alone = Objects([taken, labelled, plain])
    assert [alone.is_ambient(pod) for pod in (taken, labelled, plain)] == [True, True, False]
    within = Objects([namespace, plain, out, sidecar])
    assert [within.is_ambient(pod) for pod in (plain, out, sidecar)] == [True, False, False]


def test_addresses_lead_to_running_pods_only() -> None:
    status = {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}
    done = a_pod("done", status={**status, "phase": "Succeeded"})
    going = a_pod("going", status=status, meta={"deletionTimestamp": "2026-11-23T12:00:00Z"})
    running = a_pod("running", status={**status, "phase": "Running"})
    host = a_pod("host", spec={"hostNetwork": True}, status={"podIP": "192.168.0.1"})
    objects = Objects([done, going, running, host])
    assert objects.pod_by_ip("10.0.0.1") == objects.pod_by_ip("fd00::1") == running
    assert objects.pod_by_ip("192.168.0.1") is None


@pytest.mark.parametrize(
    ("status", "meta", "ready"),
    [
        ({"conditions": [{"type": "Ready", "status": "True"}]}, {}, True),
        ({"conditions": [{"type": "Ready", "status": "False"}]}, {}, False),
        (
            {"conditions": [{"type": "Ready", "status": "True"}]},
            {"deletionTimestamp": "2026-11-23T12:00:00Z"},
            False,
        ),
        ({"conditions": None}, {}, False),
        ({}, {}, False),
    ],
)
def test_readiness(status: dict[str, Any], meta: dict[str, Any], ready: bool) -> None:
    pod = a_pod("a", status=status, meta=meta)
    assert Objects([pod]).ready(pod) is ready


SERVICE = an(
    "Service",
    "web",
    spec={
        "selector": {"app": "web"},
        "ports": [
            {"name": "http", "port": 80, "targetPort": "http"},
            {"name": "raw", "port": 90, "targetPort": 9090},
        ],
    },
)


def test_slices_tell_endpoints_of_a_port() -> None:
    found = an(
        "EndpointSlice",
        "web-x",
        version="discovery.k8s.io/v1beta1",
        meta={"labels": {"kubernetes.io/service-name": "web"}},
        ports=[{"name": "http", "port": 8080}, {"name": "raw", "port": 9090}],
        endpoints=[
            {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "a", "namespace": "ns"}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": False, "serving": True, "terminating": True}},
            {"addresses": "oops"},
        ],
    )
    objects = Objects([SERVICE, found])
    assert objects.endpoints(SERVICE, 80) == (
        Endpoint("10.0.0.1", 8080, ready=True, pod=("ns", "a")),
        Endpoint("10.0.0.2", 8080, ready=False, serving=True, terminating=True),
    )
    assert {endpoint.port for endpoint in objects.endpoints(SERVICE, 90)} == {9090}
    assert objects.endpoints(SERVICE, 81) == ()
    assert objects.has_endpoints_of(SERVICE)
    assert not Objects([SERVICE]).has_endpoints_of(SERVICE)


def test_endpoints_objects_serve_where_there_are_no_slices() -> None:
    subset = {
        "addresses": [{"ip": "10.0.0.1"}],
        "notReadyAddresses": [{"ip": "10.0.0.2"}],
        "ports": [{"name": "http", "port": 8080}],
    }
    objects = Objects([SERVICE, an("Endpoints", "web", subsets=[subset])])
    assert [(e.address, e.ready) for e in objects.endpoints(SERVICE, 80)] == [
        ("10.0.0.1", True),
        ("10.0.0.2", False),
    ]


def test_target_ports_by_number_name_or_none() -> None:
    pod = a_pod("a", spec={"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]})
    assert (target_port(SERVICE, 80, pod), target_port(SERVICE, 90, pod)) == (8080, 9090)
    assert target_port(SERVICE, 80, a_pod("b")) is None
    assert target_port(SERVICE, 1, pod) is None


def test_selectors_select_in_their_namespace_and_never_without_labels() -> None:
    here, there = a_pod("a", labels={"app": "web", "x": "y"}), a_pod("b", "other", labels={"app": "web"})
    done = a_pod("c", labels={"app": "web"}, status={"phase": "Failed"})
    objects = Objects([here, there, done, SERVICE])
    assert objects.pods_selected(SERVICE) == (here,)
    assert objects.pods_selected(an("Service", "all", spec={})) == ()


@pytest.mark.parametrize("host", ["web.ns.svc.cluster.local", "web.ns.svc.corp", "web.ns", "web"])
def test_services_are_found_as_dns_finds_them(host: str) -> None:
    assert Objects([SERVICE]).service_of_host(host, "ns") == SERVICE


@pytest.mark.parametrize("host", ["web.other.svc.cluster.local", "example.com", ""])
def test_other_hosts_are_no_services(host: str) -> None:
    assert Objects([SERVICE]).service_of_host(host, "ns") is None


def test_kinds_of_one_name_in_two_groups_are_two() -> None:
    istio = an("AuthorizationPolicy", "a", version="security.istio.io/v1")
    older = an("AuthorizationPolicy", "a", version="security.istio.io/v1beta1")
    linkerd = an("AuthorizationPolicy", "a", version="policy.linkerd.io/v1alpha1")
    objects = Objects([istio, older, linkerd])
    assert objects.of("AuthorizationPolicy", "security.istio.io") == (istio,)
    assert objects.of("AuthorizationPolicy") == (istio, linkerd)
    assert objects.get("AuthorizationPolicy", "ns", "a", "policy.linkerd.io") == linkerd


def test_mesh_configuration_of_each_revision() -> None:
    main = an("ConfigMap", "istio", "mesh", data={"mesh": "rootNamespace: policies\ntrustDomain: corp\n"})
    canary = an("ConfigMap", "istio-canary", "mesh", data={"mesh": "trustDomain: new\n"})
    noise = an("ConfigMap", "istio-ca-root-cert", "ns", data={"root-cert.pem": "x"})
    objects = Objects([noise, main, canary])
    assert (objects.root_namespace, objects.trust_domain) == ("policies", "corp")
    assert objects.mesh_config("canary") == {"trustDomain": "new"}
    assert objects.mesh_config("gone") == {}
    assert objects.has_mesh_config


@pytest.mark.parametrize(
    "text", ["", "[]", "a: [", "a: 2026-99-99", "!!python/object:os.system {}", "[" * 1_000_000]
)
def test_unreadable_mesh_configuration_is_none(text: str) -> None:
    objects = Objects([an("ConfigMap", "istio", "istio-system", data={"mesh": text})])
    assert objects.mesh_config() == {}
    assert (objects.root_namespace, objects.trust_domain) == ("istio-system", "cluster.local")
