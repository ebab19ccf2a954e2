"""Faults of the control plane and of injection: configuration that doesn't arrive, proxies that aren't there."""

from __future__ import annotations

from meshscope.demo.faults.registry import fault
from meshscope.demo.mesh import DemoMesh
from meshscope.demo.spec import MeshSpec


def _stop_istiod(mesh: DemoMesh) -> None:
    mesh.set_control_plane(up=False)


@fault("control-plane-down", "no istiod answers the proxies any more", after_start=_stop_istiod)
def control_plane_down(spec: MeshSpec) -> None:
    for pod in spec.workload("istiod").pods:
        pod.ready = False
