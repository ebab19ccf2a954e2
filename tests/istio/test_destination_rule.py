"""Which DestinationRule is in force for a caller, and the TLS mode that it sets."""

from __future__ import annotations

from typing import Any

import pytest

from meshscope.istio.destination_rule import Caller, auto_mtls, client_tls
from meshscope.istio.kubernetes import Objects
from meshscope.model.kubernetes import KubernetesObject
from tests.istio.objects import a_pod, an

HOST = "web.ns.svc.cluster.local"


def rule(
    name: str, namespace: str = "ns", host: str = "web", tls: str = "", made: str = "2026-01-01", **spec: Any
) -> KubernetesObject:
    if tls:
        spec["trafficPolicy"] = {"tls": {"mode": tls}}
    meta = {"creationTimestamp": f"{made}T00:00:00Z"}
    spec["host"] = host
    return an("DestinationRule", name, namespace, "networking.istio.io/v1", meta=meta, spec=spec)


def mode(*rules: KubernetesObject, port: int = 80, subset: str = "", caller: str = "ns") -> tuple[str, str]:
    found = client_tls(Objects(rules), Caller(caller, {"app": "shop"}), HOST, port, subset)
    return found.mode, found.decided_by.name if found.decided_by else ""


def test_without_a_rule_auto_mtls_decides() -> None:
    assert mode() == ("AUTO", "")


def test_auto_mtls_can_be_switched_off_for_the_mesh() -> None:
    mesh = an("ConfigMap", "istio", "istio-system", data={"mesh": "enableAutoMtls: false"})
    assert mode(mesh) == ("DISABLE", "")


def test_a_rule_without_tls_leaves_it_to_auto_mtls() -> None:
    assert mode(rule("a", trafficPolicy={"loadBalancer": {"simple": "RANDOM"}})) == ("AUTO", "")


def test_a_tls_block_without_mode_disables() -> None:
    assert mode(rule("a", trafficPolicy={"tls": {"sni": "x"}})) == ("DISABLE", "a")


def test_the_callers_namespace_beats_the_services_and_that_the_root() -> None:
    root = rule("root", "istio-system", "*.local", "DISABLE")
    service = rule("service", "ns", tls="ISTIO_MUTUAL")
    caller = rule("caller", "shop", HOST, "SIMPLE")
    assert mode(root, caller="shop") == ("DISABLE", "root")
    assert mode(root, service, caller="shop") == ("ISTIO_MUTUAL", "service")
    assert mode(root, service, caller, caller="shop") == ("SIMPLE", "caller")


def test_a_rule_that_is_not_exported_counts_at_home_only() -> None:
    private = rule("private", tls="DISABLE", exportTo=["."])
    assert mode(private, caller="shop") == ("AUTO", "")
    assert mode(private) == ("DISABLE", "private")


def test_an_exact_host_beats_a_wildcard() -> None:
    assert mode(rule("wild", host="*.ns.svc.cluster.local", tls="DISABLE"), rule("exact", tls="SIMPLE")) == (
        "SIMPLE",
        "exact",
    )


def test_the_oldest_of_two_wins() -> None:
    assert mode(rule("new", tls="SIMPLE", made="2026-02-02"), rule("old", tls="DISABLE"))[1] == "old"


def test_a_ports_settings_replace_the_destinations() -> None:
    settings = [{"port": {"number": 80}, "tls": {"mode": "SIMPLE"}}, {"port": {"number": 81}}]
    policy = {"tls": {"mode": "DISABLE"}, "portLevelSettings": settings}
    assert mode(rule("a", trafficPolicy=policy), port=80) == ("SIMPLE", "a")
    assert mode(rule("a", trafficPolicy=policy), port=81) == ("AUTO", "")
    assert mode(rule("a", trafficPolicy=policy), port=82) == ("DISABLE", "a")


def test_a_subset_overrides_and_inherits() -> None:
    subsets = [{"name": "v1", "trafficPolicy": {"tls": {"mode": "DISABLE"}}}, {"name": "v2"}]
    made = rule("a", tls="ISTIO_MUTUAL", subsets=subsets)
    assert mode(made, subset="v1") == ("DISABLE", "a")
    assert mode(made, subset="v2") == ("ISTIO_MUTUAL", "a")


def test_a_rule_for_other_pods_of_the_namespace_does_not_count() -> None:
    selector = {"matchLabels": {"app": "other"}}
    assert mode(rule("a", tls="DISABLE", workloadSelector=selector)) == ("AUTO", "")


@pytest.mark.parametrize(
    ("labels", "policy", "expected"),
    [
        ({"security.istio.io/tlsMode": "istio"}, "STRICT", True),
        ({"security.istio.io/tlsMode": "istio"}, "DISABLE", False),
        ({}, "STRICT", False),
    ],
)
def test_auto_mtls_wants_a_labelled_pod_that_takes_it(
    labels: dict[str, str], policy: str, expected: bool
) -> None:
    pod = a_pod("web-1", labels=labels)
    spec = {"mtls": {"mode": policy}}
    made = an("PeerAuthentication", "default", version="security.istio.io/v1", spec=spec)
    assert auto_mtls(Objects([pod, made]), pod, 80) is expected
