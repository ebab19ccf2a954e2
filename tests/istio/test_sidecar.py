"""Which Sidecar is in force, and what it hides; what Istio takes a port for."""

from __future__ import annotations

import pytest

from meshscope.istio import sidecar
from meshscope.istio.kubernetes import Objects
from meshscope.istio.protocol import protocol
from meshscope.model.kubernetes import KubernetesObject, ObjectMeta

DETAILS = "details.shop.svc.cluster.local"


def made(kind: str, namespace: str, name: str, spec: dict[str, object], version: str) -> KubernetesObject:
    return KubernetesObject(version, kind, ObjectMeta(name, namespace), {"spec": spec})


def egress(namespace: str, name: str, *hosts: str, **selector: str) -> KubernetesObject:
    spec: dict[str, object] = {"egress": [{"hosts": list(hosts)}]}
    if selector:
        spec["workloadSelector"] = {"labels": selector}
    return made("Sidecar", namespace, name, spec, "networking.istio.io/v1")


SERVICE = made("Service", "shop", "details", {}, "v1")


@pytest.mark.parametrize(
    ("hosts", "seen"),
    [
        (["./*"], True),
        (["*/*"], True),
        (["shop/*"], True),
        ([f"shop/{DETAILS}"], True),
        (["*/*.svc.cluster.local"], True),
        (["~/*"], False),
        (["other/*"], False),
        (["./reviews.shop.svc.cluster.local"], False),
        ([], False),
    ],
)
def test_a_host_is_seen_where_an_egress_entry_takes_its_namespace_and_name(
    hosts: list[str], seen: bool
) -> None:
    found = egress("shop", "default", *hosts)
    assert sidecar.shows(Objects([SERVICE, found]), found, "shop", DETAILS) is seen


def test_a_dot_is_the_callers_own_namespace() -> None:
    found = egress("other", "default", "./*")
    assert not sidecar.shows(Objects([SERVICE, found]), found, "other", DETAILS)


def test_a_sidecar_without_egress_hides_nothing() -> None:
    found = made("Sidecar", "shop", "default", {"ingress": []}, "networking.istio.io/v1")
    assert sidecar.shows(Objects([SERVICE, found]), found, "shop", DETAILS)


def test_the_workloads_own_sidecar_beats_the_namespaces_and_that_the_meshs() -> None:
    own = egress("shop", "own", "./*", app="web")
    namespaces = egress("shop", "default", "./*")
    root = egress("istio-system", "default", "*/*")
    objects = Objects([root, namespaces, own])
    assert sidecar.in_force(objects, "shop", {"app": "web"}) is own
    assert sidecar.in_force(objects, "shop", {"app": "api"}) is namespaces
    assert sidecar.in_force(objects, "elsewhere", {}) is root


@pytest.mark.parametrize(
    ("port", "word"),
    [
        ({"name": "http"}, "http"),
        ({"name": "http-web"}, "http"),
        ({"name": "grpc-web-api"}, "grpc-web"),
        ({"name": "tcp-mongo"}, "tcp"),
        ({"name": "web"}, ""),
        ({}, ""),
        ({"name": "tcp", "appProtocol": "http"}, "http"),
        ({"name": "http", "appProtocol": "kubernetes.io/h2c"}, "h2c"),
        ({"name": "http", "protocol": "UDP"}, "udp"),
    ],
)
def test_the_protocol_is_appprotocols_else_the_names_prefix(port: dict[str, str], word: str) -> None:
    assert protocol(port) == word
