"""Describes for the applications' process what to host, whom to reach how, and which traffic to send."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from meshscope.demo.pilot.registry import Registry
from meshscope.demo.spec import CLUSTER_DOMAIN, Json, MeshSpec, Pod, Workload


def workplace(spec: MeshSpec, generation: int, directory: Path, *, xds_up: bool, traffic: bool) -> Json:
    """{"generation", "names", "endpoints", "ports", "xds", "flows"}: `stage` reads it."""
    registry = Registry(spec)
    return {
        "generation": generation,
        "names": {namespace: _names(registry, namespace) for namespace in spec.namespaces},
        "endpoints": _endpoints(registry),
        "ports": [port for workload, pod in spec.pods() for port in _ports(spec, workload, pod)],
        "xds": {"socket": str(directory / "XDS"), "up": xds_up},
        "flows": [
            {**asdict(flow), "via": _via(spec, spec.workload(flow.source))}
            for flow in spec.flows
            if traffic and spec.workload(flow.source).pods
        ],
    }


def _names(registry: Registry, namespace: str) -> dict[str, str]:
    """What DNS says inside a namespace."""
    found: dict[str, str] = {}
    for service in registry.services:
        names = [service.host]
        if not service.external:
            names += [f"{service.name}.{service.namespace}", f"{service.name}.{service.namespace}.svc"]
            if service.namespace == namespace:
                names.append(service.name)
        if service.address not in ("None", "0.0.0.0"):
            found.update(dict.fromkeys(names, service.address))
    return found


def _endpoints(registry: Registry) -> dict[str, list[str]]:
    """What kube-proxy does for callers without a sidecar: service address to ready pods."""
    return {
        f"{service.address}:{port.number}": [
            f"{endpoint.address}:{endpoint.port}"
            for endpoint in registry.endpoints(service, port)
            if endpoint.ready
        ]
        for service in registry.services
        if service.host.endswith(CLUSTER_DOMAIN)
        for port in service.ports
    }


def _ports(spec: MeshSpec, workload: Workload, pod: Pod) -> list[Json]:
    bypassed = workload.bypassed_ports(pod)
    behaviour = asdict(workload.behaviour_of(pod))
    return [
        {
            "address": spec.pod_ip(pod) if port.number in bypassed else spec.app_ip(workload, pod),
            "port": port.number,
            "protocol": port.protocol,
            "service": workload.app,
            "version": workload.version,
            "pod": pod.name,
            "calls": workload.calls,
            "behaviour": behaviour,
            "via": _via(spec, workload, pod),
        }
        for port in workload.ports
    ]


def _via(spec: MeshSpec, workload: Workload, pod: Pod | None = None) -> Json:
    pod = pod or workload.pods[0]
    return {"namespace": workload.namespace, "address": spec.pod_ip(pod), "sidecar": workload.sidecar}
