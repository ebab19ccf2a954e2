"""The effective PeerAuthentication, and which AuthorizationPolicies are in force for a pod."""

from __future__ import annotations

from typing import Any

import pytest

from meshscope.istio.authorization import (
    action,
    allows_nothing,
    applying,
    decides_nothing,
    is_dry_run,
    matches_everything,
    provider,
)
from meshscope.istio.kubernetes import Objects
from meshscope.istio.peer_authentication import EffectiveMtls, effective
from meshscope.model.kubernetes import KubernetesObject
from tests.istio.objects import a_pod, an, recorded

POD = a_pod("web-1", labels={"app": "web"})


def peer(
    name: str, namespace: str, mode: str = "", made: str = "2026-01-01T00:00:00Z", **spec: Any
) -> KubernetesObject:
    if mode:
        spec["mtls"] = {"mode": mode}
    meta = {"creationTimestamp": made}
    return an("PeerAuthentication", name, namespace, "security.istio.io/v1", meta=meta, spec=spec)


def mtls(*policies: KubernetesObject, port: int = 9080, pod: KubernetesObject = POD) -> tuple[str, str, str]:
    found = effective(Objects([pod, *policies]), pod, port)
    return found.mode, found.level, str(found.decided_by or "")


WEB: dict[str, Any] = {"selector": {"matchLabels": {"app": "web"}}}
MESH = peer("default", "istio-system", "STRICT")
SELF = "PeerAuthentication.security.istio.io"


def test_nothing_says_permissive() -> None:
    assert effective(Objects([POD]), POD, 80) == EffectiveMtls("PERMISSIVE", None, "default")


def test_nearer_levels_win() -> None:
    namespace = peer("default", "ns", "PERMISSIVE")
    workload = peer("web", "ns", "DISABLE", **WEB)
    ports = peer("web", "ns", "DISABLE", **WEB, portLevelMtls={"9080": {"mode": "STRICT"}})
    assert mtls(MESH) == ("STRICT", "mesh", f"{SELF}/istio-system/default")
    assert mtls(MESH, namespace) == ("PERMISSIVE", "namespace", f"{SELF}/ns/default")
    assert mtls(MESH, namespace, workload) == ("DISABLE", "workload", f"{SELF}/ns/web")
    assert mtls(MESH, namespace, ports) == ("STRICT", "port", f"{SELF}/ns/web")
    assert mtls(MESH, namespace, ports, port=9090) == ("DISABLE", "workload", f"{SELF}/ns/web")


@pytest.mark.parametrize("unset", ["UNSET", "", "SOMETHING_NEW"])
def test_unset_inherits(unset: str) -> None:
    namespace = peer("default", "ns", unset)
    workload = peer("web", "ns", unset, **WEB, portLevelMtls={"9080": {"mode": unset}})
    assert mtls(MESH, namespace, workload)[:2] == ("STRICT", "mesh")


def test_ports_are_numbers_in_yaml_and_text_in_json() -> None:
    for key in (9080, "9080"):
        assert mtls(peer("web", "ns", **WEB, portLevelMtls={key: {"mode": "STRICT"}}))[:2] == (
            "STRICT",
            "port",
        )


def test_ports_count_in_workload_policies_only() -> None:
    ports = {"9080": {"mode": "STRICT"}}
    assert mtls(peer("default", "ns", portLevelMtls=ports))[0] == "PERMISSIVE"
    assert mtls(peer("default", "istio-system", portLevelMtls=ports))[0] == "PERMISSIVE"


def test_the_oldest_of_a_level_wins_even_where_it_is_unset() -> None:
    old, new = peer("z", "ns", "DISABLE", "2025-01-01T00:00:00Z"), peer("a", "ns", "STRICT")
    assert mtls(new, old)[0] == mtls(old, new)[0] == "DISABLE"
    assert mtls(peer("z", "ns", "UNSET", "2025-01-01T00:00:00Z"), new, MESH)[:2] == ("STRICT", "mesh")


def test_ties_go_by_name() -> None:
    first, second = peer("a", "ns", "STRICT"), peer("b", "ns", "DISABLE")
    assert mtls(second, first)[0] == mtls(first, second)[0] == "STRICT"


def test_a_selector_must_match_and_counts_in_its_own_namespace() -> None:
    assert mtls(peer("x", "ns", "STRICT", selector={"matchLabels": {"app": "other"}}))[0] == "PERMISSIVE"
    assert mtls(peer("x", "elsewhere", "STRICT", **WEB))[0] == "PERMISSIVE"
    assert mtls(peer("x", "istio-system", "STRICT", **WEB))[0] == "PERMISSIVE"
    assert mtls(peer("x", "ns", "STRICT", selector={}))[1] == "namespace"


def test_pods_of_the_root_namespace_are_under_the_mesh_policy() -> None:
    pod = a_pod("gw", "istio-system", labels={"app": "web"})
    assert mtls(MESH, pod=pod)[:2] == ("STRICT", "mesh")


def test_the_root_namespace_is_the_mesh_configurations() -> None:
    config = an("ConfigMap", "istio", "istio-system", data={"mesh": "rootNamespace: policies"})
    found = effective(Objects([POD, config, peer("default", "policies", "STRICT")]), POD, 80)
    assert (found.mode, found.level) == ("STRICT", "mesh")


@pytest.mark.parametrize("spec", [{"mtls": "STRICT"}, {"mtls": []}, {"selector": 3}, {"portLevelMtls": [1]}])
def test_a_malformed_policy_decides_nothing(spec: dict[str, Any]) -> None:
    assert mtls(peer("default", "ns", **spec))[0] == "PERMISSIVE"


def policy(name: str, namespace: str = "ns", made: str = "", **spec: Any) -> KubernetesObject:
    meta = {"creationTimestamp": made, "annotations": spec.pop("annotations", {})}
    return an("AuthorizationPolicy", name, namespace, "security.istio.io/v1", meta=meta, spec=spec)


def selected(*policies: KubernetesObject, pod: KubernetesObject = POD) -> list[str]:
    return [found.metadata.name for found in applying(Objects([pod, *policies]), pod)]


def test_policies_select_by_namespace_and_labels() -> None:
    names = selected(
        policy("own"),
        policy("root", "istio-system"),
        policy("root-selecting", "istio-system", **WEB),
        policy("elsewhere", "other"),
        policy("labelled", **WEB),
        policy("others", selector={"matchLabels": {"app": "other"}}),
    )
    assert names == ["labelled", "own", "root", "root-selecting"]


def test_policies_come_in_the_order_in_which_they_decide() -> None:
    names = selected(
        policy("audit", action="AUDIT"),
        policy("allow-new", made="2026-01-02T00:00:00Z"),
        policy("allow-old", made="2026-01-01T00:00:00Z"),
        policy("deny", action="DENY"),
        policy("custom", action="CUSTOM"),
    )
    assert names == ["custom", "deny", "allow-old", "allow-new", "audit"]


def test_target_refs_are_for_gateways() -> None:
    ref = {"kind": "Gateway", "group": "gateway.networking.k8s.io", "name": "gw"}
    gateway = a_pod("gw-1", labels={"gateway.networking.k8s.io/gateway-name": "gw"})
    for spec in ({"targetRefs": [ref]}, {"targetRef": ref}):
        assert selected(policy("a", **spec)) == []
        assert selected(policy("a", **spec), pod=gateway) == ["a"]
        assert selected(policy("a", "istio-system", **spec), pod=gateway) == []


def test_linkerds_policies_are_not_istios() -> None:
    other = an("AuthorizationPolicy", "a", version="policy.linkerd.io/v1alpha1", spec={})
    assert selected(other) == []


@pytest.mark.parametrize(
    ("spec", "kind", "nothing", "everything", "idle"),
    [
        ({}, "ALLOW", True, False, False),
        ({"rules": []}, "ALLOW", True, False, False),
        ({"rules": [{}]}, "ALLOW", False, True, False),
        ({"rules": [{"from": []}]}, "ALLOW", False, True, False),
        ({"rules": [{"to": [{"operation": {"paths": ["/a"]}}]}]}, "ALLOW", False, False, False),
        ({"action": "DENY"}, "DENY", False, False, True),
        ({"action": "DENY", "rules": [{}]}, "DENY", False, True, False),
        ({"action": "NEW", "rules": [{}]}, "ALLOW", False, True, False),
        ({"action": ["DENY"], "rules": "x"}, "ALLOW", False, False, False),
    ],
)
def test_what_a_policy_can_decide(
    spec: dict[str, Any], kind: str, nothing: bool, everything: bool, idle: bool
) -> None:
    found = policy("a", **spec)
    assert action(found) == kind
    assert (allows_nothing(found), matches_everything(found), decides_nothing(found)) == (
        nothing,
        everything,
        idle,
    )


def test_dry_run_and_provider() -> None:
    assert is_dry_run(policy("a", annotations={"istio.io/dry-run": "true"}))
    assert not is_dry_run(policy("a", annotations={"istio.io/dry-run": "yes"}))
    assert provider(policy("a", action="CUSTOM", provider={"name": "opa"})) == "opa"
    assert provider(policy("a", provider="opa")) == ""


def test_the_recorded_denial_is_in_force_where_it_denied() -> None:
    objects = recorded("authz-deny")
    under = {
        pod.metadata.name.rsplit("-", 2)[0]: applying(objects, pod)
        for pod in objects.of("Pod", "", "bookinfo")
    }
    assert [found.metadata.name for found in under.pop("ratings-v1")] == ["ratings-deny"]
    assert not any(under.values())
