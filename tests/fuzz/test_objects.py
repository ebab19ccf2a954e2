"""Questions about Kubernetes objects are answered whatever stands in their bodies."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshscope.envoy.config_dump import Node
from meshscope.istio import authorization, names, peer_authentication
from meshscope.istio.kubernetes import Endpoint, Objects, containers, pod_ips, target_port
from meshscope.model.kubernetes import KubernetesObject, ObjectMeta, OwnerReference
from meshscope.model.names import WorkloadId

_MANY = settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

_keys = st.sampled_from(
    [
        *[
            "selector",
            "matchLabels",
            "mtls",
            "mode",
            "portLevelMtls",
            "9080",
            "rules",
            "action",
            "targetRefs",
        ],
        *["targetRef", "kind", "name", "provider", "containers", "initContainers", "ports", "containerPort"],
        *["port", "targetPort", "endpoints", "addresses", "conditions", "ready", "targetRef", "namespace"],
        *[
            "podIPs",
            "ip",
            "podIP",
            "phase",
            "type",
            "status",
            "data",
            "mesh",
            "subsets",
            "hostNetwork",
            "app",
        ],
    ]
)
_values = st.sampled_from(
    ["a", "STRICT", "Gateway", "Pod", "istio-proxy", "10.0.0.1", "Ready", "http", 9080, 0, -1]
)
_plain = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6) | _values
)
_bodies = st.recursive(
    _plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=6),
    max_leaves=12,
)
_short = st.sampled_from(["a", "b", "istio", "ns", "istio-system", "a-5f", "default", ""])
_labels = st.dictionaries(
    st.sampled_from(["app", "pod-template-hash", "istio.io/gateway-name"]), _short, max_size=3
)
_owners = st.lists(
    st.builds(OwnerReference, kind=st.sampled_from(["ReplicaSet", "Job", "Node", "Pod", ""]), name=_short),
    max_size=2,
).map(tuple)
_metas = st.builds(
    ObjectMeta,
    name=_short,
    namespace=_short,
    labels=_labels,
    annotations=_labels,
    creationTimestamp=st.sampled_from(["", "2026-11-23T12:00:00Z", "yesterday"]),
    ownerReferences=_owners,
)
_kinds = st.sampled_from(
    [
        ("v1", "Pod"),
        ("v1", "Service"),
        ("v1", "Endpoints"),
        ("v1", "ConfigMap"),
        ("v1", "Namespace"),
        ("apps/v1", "ReplicaSet"),
        ("discovery.k8s.io/v1", "EndpointSlice"),
        ("security.istio.io/v1", "PeerAuthentication"),
        ("security.istio.io/v1beta1", "AuthorizationPolicy"),
    ]
)


@st.composite
def _objects(draw: st.DrawFn) -> KubernetesObject:
    version, kind = draw(_kinds)
    body: dict[str, Any] = draw(st.dictionaries(_keys, _bodies, max_size=4))
    for part in ("spec", "status"):
        body[part] = draw(_bodies)
    return KubernetesObject(version, kind, draw(_metas), body)


@given(found=st.lists(_objects(), max_size=6))
@_MANY
def test_every_question_has_an_answer(found: list[KubernetesObject]) -> None:
    objects = Objects(found)
    assert isinstance(objects.root_namespace, str)
    assert isinstance(objects.trust_domain, str)
    assert isinstance(objects.cluster_uid, str)
    for pod in objects.pods:
        _ask_about(objects, pod)
    for service in objects.services:
        assert all(isinstance(endpoint, Endpoint) for endpoint in objects.endpoints(service, 9080))
        for pod in objects.pods_selected(service):
            assert isinstance(target_port(service, 9080, pod), int | None)
    for policy in objects.of("AuthorizationPolicy"):
        assert authorization.action(policy) in {"CUSTOM", "DENY", "ALLOW", "AUDIT"}
        authorization.allows_nothing(policy)
        authorization.matches_everything(policy)
        authorization.decides_nothing(policy)
        authorization.is_dry_run(policy)
        assert isinstance(authorization.provider(policy), str)


def _ask_about(objects: Objects, pod: KubernetesObject) -> None:
    workload = objects.workload_of(pod)
    assert isinstance(workload, WorkloadId)
    assert isinstance(objects.pods_of(workload), tuple)
    assert objects.has_proxy(pod) in {"istio", "linkerd", "both", "none"}
    assert isinstance(objects.is_ambient(pod), bool)
    assert isinstance(objects.ready(pod), bool)
    assert all(isinstance(ip, str) for ip in pod_ips(pod))
    assert all(isinstance(container, dict) for container in containers(pod))
    for ip in pod_ips(pod):
        objects.pod_by_ip(ip)
    assert isinstance(objects.services_selecting(pod), tuple)
    mode = peer_authentication.effective(objects, pod, 9080)
    assert mode.mode in {"STRICT", "PERMISSIVE", "DISABLE"}
    assert (mode.decided_by is None) == (mode.level == "default")
    assert isinstance(authorization.applying(objects, pod), tuple)


@given(
    text=st.text(alphabet=st.sampled_from("outbindr|_.~;:[]/-ns0198 svc\u0663\u200f"), max_size=60)
    | st.text(max_size=40)
)
@_MANY
def test_every_name_is_read_or_none(text: str) -> None:
    cluster = names.cluster_name(text)
    if cluster is not None:
        assert names.cluster_name(str(cluster)) == cluster
        assert names.sni_name(cluster.sni) in (cluster, None)
    for found in (names.sni_name(text), names.route_config_name(text), names.stat_prefix(text)):
        assert found is None or 0 < found.port < 65536
    for rule in (names.policy_rule(text), names.ext_authz_rule(text)):
        assert rule is None or rule.policy.group == names.SECURITY
    assert names.config_object(text) is None or text.startswith("/apis/")
    assert names.service_host(text) is None or ".svc" in text
    names.denied_by(text)
    names.pod_workload("ns", text, {"pod-template-hash": text})
    names.node_info(Node(id=text, metadata={"OWNER": text, "POD_PORTS": text, "INSTANCE_IPS": text}))
