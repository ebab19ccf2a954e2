"""The mesh as one source shows it: proxies, Kubernetes objects, control planes, and who has which address."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from meshscope.facts.proxy import Proxy
from meshscope.istio.kubernetes import Objects, pod_ips, selects, strings
from meshscope.istio.syncz import ProxySync, read_syncz
from meshscope.model.findings import Unavailable, Unknown
from meshscope.model.kubernetes import KubernetesObject
from meshscope.model.names import OUTSIDE, ObjectRef, ProxyId, WorkloadId

if TYPE_CHECKING:
    from datetime import datetime

    from meshscope.sources.source import Source


class Mesh:
    """Everything a source has, read when it is asked for."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.proxies: dict[ProxyId, Proxy] = {
            identity: Proxy(identity, source) for identity in source.proxies()
        }

    @property
    def captured_at(self) -> datetime:
        """The moment at which ages and certificates are judged."""
        return self.source.capture.captured_at

    @cached_property
    def _kubernetes(self) -> tuple[Objects, tuple[Unknown, ...], bool]:
        read = self.source.kubernetes()
        if isinstance(read, Unavailable):
            return Objects(()), (read.unknown(),), False
        return Objects(read.objects), tuple(problem.unknown() for problem in read.problems), True

    @property
    def objects(self) -> Objects:
        return self._kubernetes[0]

    @property
    def has_kubernetes(self) -> bool:
        """Whether any Kubernetes object could be read: without, an absent object means nothing."""
        return self._kubernetes[2]

    @cached_property
    def cluster(self) -> str:
        """The cluster's identity: the UID of the namespace kube-system, else what the capture calls it."""
        return self.objects.cluster_uid or self.source.capture.cluster

    @property
    def unknowns(self) -> tuple[Unknown, ...]:
        """What couldn't be read of what was asked for so far."""
        found = list(self._kubernetes[1])
        for proxy in self.proxies.values():
            found.extend(proxy.unknowns.values())
            if not isinstance(config := proxy.__dict__.get("config"), Unavailable | None):
                found.extend(
                    Unknown(
                        f"{problem.where} of {proxy.id}", problem.why, "an Envoy version that meshscope knows"
                    )
                    for problem in config.problems
                )
        return tuple(found)

    @cached_property
    def _proxies_by_ip(self) -> dict[str, Proxy]:
        found: dict[str, Proxy] = {}
        for proxy in self.proxies.values():
            pod = self.pod(proxy.id)
            ips = pod_ips(pod) if pod else proxy.node.ips
            for ip in ips:
                found.setdefault(ip, proxy)
        return found

    def pod(self, identity: ProxyId) -> KubernetesObject | None:
        return self.objects.pod(identity.namespace, identity.pod)

    def pod_at(self, ip: str) -> KubernetesObject | None:
        return self.objects.pod_by_ip(ip)

    def proxy_at(self, ip: str) -> Proxy | None:
        return self._proxies_by_ip.get(ip)

    def ips(self, proxy: Proxy) -> tuple[str, ...]:
        pod = self.pod(proxy.id)
        return (pod_ips(pod) if pod else ()) or proxy.node.ips

    def workload_at(self, ip: str) -> WorkloadId:
        """The workload with this address, OUTSIDE where nothing is known to have it."""
        pod = self.pod_at(ip)
        if pod is not None:
            return self.objects.workload_of(pod)
        proxy = self.proxy_at(ip)
        return self.workload_of(proxy) if proxy else OUTSIDE

    def workload_of(self, proxy: Proxy) -> WorkloadId:
        pod = self.pod(proxy.id)
        return self.objects.workload_of(pod) if pod is not None else proxy.workload

    @cached_property
    def workloads(self) -> dict[WorkloadId, tuple[ProxyId, ...]]:
        """Workloads with the pods that belong to them, with and without proxy."""
        found: dict[WorkloadId, list[ProxyId]] = {}
        for pod in self.objects.pods:
            identity = ProxyId(pod.metadata.namespace, pod.metadata.name)
            found.setdefault(self.objects.workload_of(pod), []).append(identity)
        for proxy in self.proxies.values():
            if self.pod(proxy.id) is None:
                found.setdefault(proxy.workload, []).append(proxy.id)
        return {workload: tuple(sorted(pods)) for workload, pods in sorted(found.items())}

    def proxies_of(self, workload: WorkloadId) -> tuple[Proxy, ...]:
        pods = self.workloads.get(workload, ())
        return tuple(self.proxies[pod] for pod in pods if pod in self.proxies)

    @cached_property
    def sync(self) -> dict[str, ProxySync]:
        """What the istiods say of each proxy (`POD.NAMESPACE`), from all that answered."""
        found: dict[str, ProxySync] = {}
        for pod in self.source.control_planes():
            raw = self.source.read_control_plane(pod, "syncz.json")
            if not isinstance(raw, Unavailable):
                found.update({status.proxy: status for status in read_syncz(raw).proxies})
        return found

    @cached_property
    def domain(self) -> str:
        """The cluster's DNS domain, by the proxies' own word."""
        return next(
            (proxy.node.domain for proxy in self.proxies.values() if proxy.node.domain), "cluster.local"
        )

    def fqdn(self, service: ObjectRef) -> str:
        return f"{service.name}.{service.namespace}.svc.{self.domain}"

    def addresses(self, host: str) -> tuple[str, ...]:
        """The Service's own (virtual) addresses."""
        service = self.objects.service_of_host(host)
        if service is None:
            return ()
        listed = service.spec.get("clusterIPs") or [service.spec.get("clusterIP")]
        return tuple(str(address) for address in listed if address and address != "None")

    @cached_property
    def _hosts_by_address(self) -> dict[str, str]:
        hosts = [self.fqdn(service.ref) for service in self.objects.services]
        return {address: host for host in hosts for address in self.addresses(host)}

    def host_at(self, address: str) -> str:
        """The host of the Service with this (virtual) address, "" where none has it."""
        return self._hosts_by_address.get(address, "")

    def knows_workloads(self, namespace: str) -> bool:
        """Whether any workload of a namespace could be read: without, one that isn't there means nothing."""
        return any(
            self.objects.of(kind, namespace=namespace)
            for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")
        )

    def workloads_selected(
        self, service: KubernetesObject, subset: Mapping[str, str] | None = None
    ) -> tuple[ObjectRef, ...]:
        """The workloads whose pod template the Service's selector (and a subset's labels) take, scaled to 0 or not."""
        selector = {**strings(service.spec.get("selector")), **(subset or {})}
        found = []
        for kind in ("Deployment", "StatefulSet", "DaemonSet"):
            for workload in self.objects.of(kind, namespace=service.metadata.namespace):
                template = workload.spec.get("template") or {}
                labels = strings((template.get("metadata") or {}).get("labels"))
                if selector and selects(selector, labels):
                    found.append(workload.ref)
        return tuple(found)
