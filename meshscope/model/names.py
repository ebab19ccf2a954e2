"""How meshscope names Kubernetes objects, proxies and workloads."""

from __future__ import annotations

import msgspec


class ObjectRef(msgspec.Struct, frozen=True, order=True):
    """A Kubernetes object; written `KIND.GROUP/NAMESPACE/NAME` wherever a machine reads it."""

    kind: str
    name: str
    namespace: str = ""
    group: str = ""

    def __str__(self) -> str:
        kind = f"{self.kind}.{self.group}" if self.group else self.kind
        return "/".join(part for part in (kind, self.namespace, self.name) if part)


class ProxyId(msgspec.Struct, frozen=True, order=True):
    """A proxy, by the pod it runs in."""

    namespace: str
    pod: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod}"


class WorkloadId(msgspec.Struct, frozen=True, order=True):
    """A workload: what owns the pods (`Deployment`, `StatefulSet`, … or a bare `Pod`)."""

    namespace: str
    name: str
    kind: str = "Deployment"

    def __str__(self) -> str:
        return f"{self.name}.{self.namespace}" if self.namespace else self.name

    @property
    def ref(self) -> ObjectRef:
        group = {"Pod": "", "Node": "", "Job": "batch", "CronJob": "batch"}.get(self.kind, "apps")
        return ObjectRef(self.kind, self.name, self.namespace, group)


OUTSIDE = WorkloadId("", "outside", "")
"""The caller that isn't in the mesh and that nothing names."""
