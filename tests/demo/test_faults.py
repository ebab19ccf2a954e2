"""The faults as data: named for causes, each alters the mesh, and they combine."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from meshscope.demo import UnknownFaultError, catalogue, demo_mesh
from meshscope.demo.authority import Authorities
from meshscope.demo.bookinfo import bookinfo
from meshscope.demo.faults import find
from meshscope.demo.kubernetes import kubernetes_objects
from meshscope.demo.pilot import proxy_config
from meshscope.demo.pilot.registry import Registry
from meshscope.demo.spec import MeshSpec

AVAILABLE = [entry.name for entry in catalogue() if entry.available]


def _everything(spec: MeshSpec) -> str:
    """All that a mesh consists of, without what differs from one mesh to the next."""
    spec.cluster_uid = "00000000-0000-4000-8000-000000000000"
    registry, authorities = Registry(spec), Authorities(spec.started)
    parts: list[object] = [
        kubernetes_objects(spec),
        [repr(flow) for flow in spec.flows],
        repr(spec.workloads),
    ]
    parts.append(repr(spec.authorities))
    for workload, pod in spec.proxies():
        config = proxy_config(registry, authorities, workload, pod, Path("/nowhere"))
        parts.append([config.bootstrap, config.listeners, config.clusters, config.routes, config.endpoints])
    return json.dumps(parts, default=str)


@pytest.mark.parametrize("name", AVAILABLE)
def test_a_fault_changes_the_mesh(name: str) -> None:
    fault = find(name)
    spec, changed = bookinfo(), bookinfo()
    changed.started = spec.started
    fault.change(changed)
    assert fault.after_start or _everything(changed) != _everything(spec)


def test_any_two_faults_combine() -> None:
    for one, other in itertools.combinations(AVAILABLE, 2):
        spec = bookinfo()
        find(one).change(spec)
        find(other).change(spec)
        assert spec.workloads


def test_every_entry_has_a_title_and_what_cannot_be_made_a_reason() -> None:
    for entry in catalogue():
        assert entry.title
        assert entry.section
        assert entry.available or entry.reason


def test_a_fault_that_is_not_there_is_named() -> None:
    with pytest.raises(UnknownFaultError, match="no fault no-such-thing"):
        find("no-such-thing")


@pytest.mark.slow
def test_two_faults_show_in_one_mesh() -> None:
    with demo_mesh(["deny-policy", "max-pending"]) as mesh:
        mesh.wait(1)
        assert "policy[ratings-deny]" in mesh.proxy("ratings-v1").log.read_text()
        assert " UO upstream_reset_before_response_started{overflow}" in mesh.proxy("client").log.read_text()
