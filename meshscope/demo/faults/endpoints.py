"""Faults of endpoints and upstreams: nobody there, or somebody who does not answer."""

from __future__ import annotations

from meshscope.demo.faults.registry import fault
from meshscope.demo.spec import Behaviour, MeshSpec


@fault("no-endpoints", "the only pod of details is not ready: its application does not listen")
def no_endpoints(spec: MeshSpec) -> None:
    workload = spec.workload("details-v1")
    workload.behaviour = Behaviour("refuse")
    for pod in workload.pods:
        pod.ready = False
