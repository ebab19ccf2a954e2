"""What the istiods of a source say of the proxies, and which proxies there should be."""

from __future__ import annotations

import re
from collections.abc import Iterator

from meshscope.envoy.stats import read_exposition
from meshscope.facts.mesh import Mesh
from meshscope.istio.kubernetes import containers, finished
from meshscope.istio.proxy_status import Istiod
from meshscope.istio.syncz import read_syncz
from meshscope.model.findings import Unavailable
from meshscope.model.kubernetes import KubernetesObject

_VERSION = re.compile(r"v?[0-9]+\.[0-9]+")


def istiods(mesh: Mesh) -> tuple[list[Istiod], list[Unavailable]]:
    """Each istiod's sync status, and those that can't be had or read."""
    found: list[Istiod] = []
    problems: list[Unavailable] = []
    for pod in mesh.source.control_planes():
        raw = mesh.source.read_control_plane(pod, "syncz.json")
        if isinstance(raw, Unavailable):
            problems.append(raw)
            continue
        sync = read_syncz(raw)
        problems += (
            Unavailable(f"{problem.where} of {pod}", f"it can't be read: {problem.why}")
            for problem in sync.problems
        )
        if sync.proxies or not sync.problems:
            found.append(Istiod(pod, sync, _version(mesh, pod)))
    return found, problems


def _version(mesh: Mesh, pod: str) -> str:
    """An istiod's version by its own metrics, else by its image's tag; "" where neither says."""
    metrics = mesh.source.read_control_plane(pod, "metrics.prom")
    if not isinstance(metrics, Unavailable):
        for sample in read_exposition(metrics):
            if sample.name in ("pilot_info", "istio_build"):
                version = sample.labels.get("version") or sample.labels.get("tag", "")
                if version:
                    return version
    for found in mesh.objects.of("Pod"):
        if found.metadata.name == pod and found.metadata.labels.get("app") == "istiod":
            return next(_tags(found), "")
    return ""


def _tags(pod: KubernetesObject) -> Iterator[str]:
    """The tags of istiod's own container that are versions: a build's own name isn't one."""
    for container in containers(pod):
        tag = str(container.get("image", "")).partition("@")[0].rpartition(":")[2]
        if container.get("name") == "discovery" and _VERSION.match(tag):
            yield tag


def injected(mesh: Mesh) -> tuple[str, ...]:
    """The proxies of Istio that run, POD.NAMESPACE: by the pods' containers, else those that can be asked."""
    if mesh.has_kubernetes:
        pods = (pod for pod in mesh.objects.pods if not finished(pod) and not pod.metadata.deletionTimestamp)
        return tuple(
            f"{pod.metadata.name}.{pod.metadata.namespace}"
            for pod in pods
            if mesh.objects.has_proxy(pod) in ("istio", "both")
        )
    return tuple(f"{identity.pod}.{identity.namespace}" for identity in mesh.proxies)
