"""FROM and TO in kubectl's notation, and what they name in a mesh."""

from __future__ import annotations

import msgspec

from meshscope.facts.mesh import Mesh
from meshscope.facts.proxy import Proxy
from meshscope.model.names import OUTSIDE, ObjectRef, WorkloadId

KINDS = {
    "deploy": "Deployment",
    "deployment": "Deployment",
    "deployments": "Deployment",
    "sts": "StatefulSet",
    "statefulset": "StatefulSet",
    "ds": "DaemonSet",
    "daemonset": "DaemonSet",
    "job": "Job",
    "cronjob": "CronJob",
    "po": "Pod",
    "pod": "Pod",
    "pods": "Pod",
    "svc": "Service",
    "service": "Service",
    "services": "Service",
}


class Selector(msgspec.Struct, frozen=True):
    """`[KIND/]NAME[.NAMESPACE]`; empty kind or namespace: any."""

    name: str
    kind: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        kind = f"{self.kind}/" if self.kind else ""
        return f"{kind}{self.name}" + (f".{self.namespace}" if self.namespace else "")


class Selected(msgspec.Struct, frozen=True):
    """What a selector names: one workload (with its proxies) or a Service's host."""

    workload: WorkloadId | None = None
    service: ObjectRef | None = None
    proxies: tuple[Proxy, ...] = ()

    def callers(self, mesh: Mesh) -> dict[WorkloadId, tuple[Proxy, ...]]:
        """The workloads meant as callers, each with its proxies: a Service stands for all those behind it."""
        if self.workload is not None:
            return {self.workload: self.proxies}
        found: dict[WorkloadId, tuple[Proxy, ...]] = {}
        for proxy in self.proxies:
            workload = mesh.workload_of(proxy)
            found[workload] = (*found.get(workload, ()), proxy)
        return found


class SelectionError(ValueError):
    """The selector doesn't name exactly one thing; the message says what there is."""

    def __init__(self, message: str, candidates: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.candidates = candidates


class Ambiguous(SelectionError):
    """More than one thing has that name."""


class NotFound(SelectionError):
    """Nothing has that name."""


class BadSelector(SelectionError):
    """The text is no selector at all."""


def parse_selector(text: str, namespace: str = "") -> Selector:
    """Raises BadSelector for an unknown kind or an empty name. `namespace` applies where the text names none."""
    kind_text, slash, rest = text.rpartition("/")
    if slash and kind_text.lower() not in KINDS:
        raise BadSelector(
            f"unknown kind {kind_text!r}: use one of {', '.join(sorted(set(KINDS)))}", tuple(sorted(KINDS))
        )
    name, _, given = rest.partition(".")
    given = given.partition(".svc")[0]
    if not name:
        raise BadSelector(f"{text!r} names nothing: write [KIND/]NAME[.NAMESPACE]")
    return Selector(name, KINDS[kind_text.lower()] if slash else "", given or namespace)


def select(mesh: Mesh, selector: Selector) -> Selected:
    """What the selector names. Raises Ambiguous or NotFound with the candidates' full names.

    A workload's or pod's own name wins over a Service's; a Service that exactly one workload shares the name with
    is that workload for a caller and the Service for a destination, so the answer holds both.
    """
    if selector.name == OUTSIDE.name and not selector.kind and not selector.namespace:
        return Selected(OUTSIDE)
    workloads = _workloads(mesh, selector)
    services = _services(mesh, selector)
    if len(workloads) > 1 or len(services) > 1:
        names = tuple(str(w.ref) for w in workloads) + tuple(str(s) for s in services)
        raise Ambiguous(f"{selector} is ambiguous: {', '.join(names)}", names)
    if not workloads and not services:
        names = tuple(str(workload) for workload in mesh.workloads)
        raise NotFound(f"nothing is called {selector}", names)
    service = services[0] if services else None
    if workloads:
        return Selected(workloads[0], service, _proxies(mesh, selector, workloads[0]))
    return Selected(None, service, tuple(_behind(mesh, service)))


def proxies_named(mesh: Mesh, selector: Selector) -> tuple[Proxy, ...]:
    """The proxies that the selector means; a pod's own name is understood without any Kubernetes object.

    Raises Ambiguous or NotFound as `select` does; () where what it names has no proxy that can be asked.
    """
    pods = [
        proxy
        for identity, proxy in mesh.proxies.items()
        if identity.pod == selector.name and selector.namespace in ("", identity.namespace)
    ]
    if selector.kind in ("", "Pod") and len(pods) == 1:
        return tuple(pods)
    return select(mesh, selector).proxies


def _proxies(mesh: Mesh, selector: Selector, workload: WorkloadId) -> tuple[Proxy, ...]:
    of_workload = mesh.proxies_of(workload)
    by_pod = tuple(proxy for proxy in of_workload if proxy.id.pod == selector.name)
    return by_pod or of_workload


def _workloads(mesh: Mesh, selector: Selector) -> list[WorkloadId]:
    found = []
    for workload, pods in mesh.workloads.items():
        if selector.namespace and workload.namespace != selector.namespace:
            continue
        named = selector.name == workload.name and selector.kind in {"", workload.kind}
        pod = selector.kind in {"", "Pod"} and any(pod.pod == selector.name for pod in pods)
        if named or pod:
            found.append(workload)
    return found


def _services(mesh: Mesh, selector: Selector) -> list[ObjectRef]:
    if selector.kind not in {"", "Service"}:
        return []
    return [
        service.ref
        for service in mesh.objects.services
        if service.metadata.name == selector.name
        and (not selector.namespace or service.metadata.namespace == selector.namespace)
    ]


def _behind(mesh: Mesh, service: ObjectRef | None) -> list[Proxy]:
    found = mesh.objects.get("Service", service.namespace, service.name) if service is not None else None
    if found is None:
        return []
    pods = {(pod.metadata.namespace, pod.metadata.name) for pod in mesh.objects.pods_selected(found)}
    return [proxy for proxy in mesh.proxies.values() if (proxy.id.namespace, proxy.id.pod) in pods]
