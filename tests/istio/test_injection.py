"""Who gets a sidecar, and which ports bypass it."""

from __future__ import annotations

import pytest

from meshscope.istio.injection import injection, skipped_by
from meshscope.istio.kubernetes import Objects
from tests.istio.objects import a_pod, an

EXCLUDE = "traffic.sidecar.istio.io/excludeInboundPorts"
INCLUDE = "traffic.sidecar.istio.io/includeInboundPorts"


@pytest.mark.parametrize(
    ("namespace", "pod", "verdict"),
    [
        ({"istio-injection": "enabled"}, {}, "wanted"),
        ({"istio.io/rev": "canary"}, {}, "wanted"),
        ({"istio-injection": "disabled", "istio.io/rev": "canary"}, {}, "not wanted"),
        ({"istio-injection": "enabled"}, {"sidecar.istio.io/inject": "false"}, "opted out"),
        ({}, {"sidecar.istio.io/inject": "true"}, "wanted"),
        ({}, {"istio.io/rev": "canary"}, "wanted"),
        ({}, {"sidecar.istio.io/inject": "false"}, "not wanted"),
        ({}, {}, "not wanted"),
    ],
)
def test_the_webhook_reads_labels_of_namespace_and_pod(
    namespace: dict[str, str], pod: dict[str, str], verdict: str
) -> None:
    made = a_pod("web-1", labels=pod)
    objects = Objects([an("Namespace", "ns", "", meta={"labels": namespace}), made])
    assert injection(objects, made).verdict == verdict


def test_pods_in_the_hosts_network_are_left_alone() -> None:
    made = a_pod("web-1", spec={"hostNetwork": True})
    objects = Objects([an("Namespace", "ns", "", meta={"labels": {"istio-injection": "enabled"}}), made])
    assert injection(objects, made).verdict == "not wanted"


@pytest.mark.parametrize(
    ("annotations", "skipped"),
    [
        ({}, False),
        ({EXCLUDE: "15090, 9080"}, True),
        ({EXCLUDE: "90"}, False),
        ({INCLUDE: "*"}, False),
        ({INCLUDE: "80,9080"}, False),
        ({INCLUDE: "80"}, True),
        ({INCLUDE: ""}, True),
    ],
)
def test_annotations_take_a_port_away_from_the_sidecar(annotations: dict[str, str], skipped: bool) -> None:
    assert bool(skipped_by(annotations, 9080)) is skipped
