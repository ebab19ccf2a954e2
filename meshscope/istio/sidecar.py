"""Decides which Sidecar resource is in force for a workload, and which hosts it shows to its proxy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from meshscope.istio.kubernetes import Objects, dicts, selects, strings
from meshscope.istio.names import NETWORKING, service_host
from meshscope.model.kubernetes import KubernetesObject


def in_force(objects: Objects, namespace: str, labels: Mapping[str, str]) -> KubernetesObject | None:
    """The Sidecar whose selector takes the workload, else its namespace's, else the root namespace's."""
    own = objects.of("Sidecar", NETWORKING, namespace)
    selecting = [found for found in own if (wanted := _selector(found)) and selects(wanted, labels)]
    for_namespace = [found for found in own if not _selector(found)]
    root = objects.root_namespace
    for_mesh = [found for found in objects.of("Sidecar", NETWORKING, root) if not _selector(found)]
    for candidates in (selecting, for_namespace, for_mesh):
        if candidates:
            return min(candidates, key=lambda found: (found.metadata.creationTimestamp, found.metadata.name))
    return None


def shows(objects: Objects, sidecar: KubernetesObject, namespace: str, host: str) -> bool:
    """Whether a Sidecar lets the proxies of a namespace hear of a host; one without `egress` hides nothing."""
    if not isinstance(sidecar.spec.get("egress"), list):
        return True
    owners = set(registered_in(objects, host))
    for entry in dicts(sidecar.spec.get("egress")):
        hosts = entry.get("hosts")
        for text in hosts if isinstance(hosts, list) else ():
            space, _, pattern = str(text).partition("/")
            wanted = namespace if space == "." else space
            if (wanted == "*" or wanted in owners) and host_matches(pattern, host):
                return True
    return False


def registered_in(objects: Objects, host: str) -> Iterator[str]:
    """The namespaces in which the mesh's registry has a host: its Service's, and those of ServiceEntries."""
    name = service_host(host)
    if name is not None and objects.service(name.namespace, name.service) is not None:
        yield name.namespace
    for entry in objects.of("ServiceEntry", NETWORKING):
        hosts = entry.spec.get("hosts")
        if any(host_matches(str(one), host) for one in (hosts if isinstance(hosts, list) else ())):
            yield entry.metadata.namespace


def host_matches(pattern: str, host: str) -> bool:
    """Whether a host pattern of Istio's (`*`, `*.example.com`, an exact name) takes a host."""
    return host.endswith(pattern[1:]) if pattern.startswith("*") else pattern == host


def _selector(sidecar: KubernetesObject) -> dict[str, str]:
    selector = sidecar.spec.get("workloadSelector")
    return strings(selector.get("labels")) if isinstance(selector, dict) else {}
