"""The desired mesh as data: workloads, traffic and the Kubernetes objects a fault may change."""

from __future__ import annotations

import copy
import functools
import hashlib
import textwrap
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import yaml

Json = dict[str, Any]
ROOT_NAMESPACE = "istio-system"
CLUSTER_DOMAIN = "cluster.local"
ISTIO_VERSION = "1.32-alpha.eed52ebb"
# One /16 of loopback a mesh: .1.N is pod N's own address, .2.N the one its application hides behind.
POD_NET, APP_NET = 1, 2

BehaviourKind = Literal[
    "ok",  # answers as bookinfo does
    "refuse",  # nothing listens on the port
    "close",  # reads the request, closes without a word
    "reset",  # reads the request, sends RST
    "die-mid-body",  # half of the promised body, then closes
    "silent",  # accepts, reads, never answers
    "garbage",  # answers something that is not HTTP
    "huge-headers",  # a response header of 128 KiB
    "stall-body",  # headers at once, the body never comes
    "drop",  # the port takes no connection and refuses none: packets go nowhere
]


@dataclass
class Behaviour:
    """How an application's port answers; `share` (0-1) of the requests get it, the others are served well."""

    kind: BehaviourKind = "ok"
    status: int = 200
    delay_ms: int = 0
    share: float = 1.0


@dataclass
class Certificate:
    """What a pod's proxy is given to show and to trust; times are relative to the mesh's start."""

    issuer: str = "mesh"
    not_before: timedelta = timedelta(minutes=-2)
    not_after: timedelta = timedelta(hours=24)
    trust_domain: str = CLUSTER_DOMAIN
    service_account: str | None = None  # another identity than the pod's own
    delivered: bool = True
    roots: tuple[str, ...] = ("mesh",)
    roots_delivered: bool = True
    # How long the proxy waits for a secret: Istio's "0s" is for ever, so that one that never comes leaves
    # the proxy initializing; after any other time its listeners and clusters go on without.
    fetch_timeout: str = "0s"


@dataclass
class Authority:
    """A throwaway certificate authority; `mesh` is the one everybody has."""

    not_before: timedelta = timedelta(minutes=-5)
    not_after: timedelta = timedelta(days=3650)


@dataclass
class Port:
    """A container port; `protocol` is what the application really speaks there.

    `ratelimit` is Envoy's rate limit service (gRPC), which says of every request that it is over the limit.
    """

    number: int
    protocol: Literal["http", "tcp-echo", "tcp-server-first", "ratelimit"] = "http"
    name: str | None = None


@dataclass
class Pod:
    """One pod of a workload; its number gives its address. Overrides what the workload says where set."""

    name: str
    number: int
    ready: bool = True
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    behaviour: Behaviour | None = None
    certificate: Certificate | None = None


@dataclass
class Workload:
    """A Deployment with its pods. `calls` are the URLs (http or tcp) its application asks for every request."""

    name: str
    namespace: str
    app: str
    version: str = "v1"
    service_account: str = "default"
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    ports: list[Port] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    sidecar: bool = True
    tls_label: bool = True  # the label that makes auto-mTLS use the sidecar
    behaviour: Behaviour = field(default_factory=Behaviour)
    certificate: Certificate = field(default_factory=Certificate)
    pods: list[Pod] = field(default_factory=list)

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def template_hash(self) -> str:
        return _suffix(f"{self.key}/template", 10)

    def pod_labels(self, pod: Pod) -> dict[str, str]:
        """The labels of the pod as the injector leaves them."""
        labels = {"app": self.app, "version": self.version, **self.labels}
        if self.sidecar:
            labels["service.istio.io/canonical-name"] = self.app
            labels["service.istio.io/canonical-revision"] = self.version
            if self.tls_label:
                labels["security.istio.io/tlsMode"] = "istio"
        return {**labels, **pod.labels}

    def behaviour_of(self, pod: Pod) -> Behaviour:
        return pod.behaviour or self.behaviour

    def certificate_of(self, pod: Pod) -> Certificate:
        return pod.certificate or self.certificate

    def bypassed_ports(self, pod: Pod) -> set[int]:
        """The inbound ports that an annotation takes away from the sidecar."""
        text = {**self.annotations, **pod.annotations}.get("traffic.sidecar.istio.io/excludeInboundPorts", "")
        return {int(item) for item in text.split(",") if item.strip().isdigit()}


@dataclass
class Flow:
    """Steady traffic: `rate` requests a second from a workload's application, up to `concurrency` at once.

    `url` is http://HOST[:PORT]/PATH or tcp://HOST:PORT. `burst` > 1 sends that many at the same moment,
    `rate` bursts a second. `give_up_ms` closes the connection when no answer came by then.
    `raw` replaces the request's bytes.
    """

    name: str
    source: str  # NAMESPACE/WORKLOAD
    url: str
    rate: float = 10.0
    concurrency: int = 32
    burst: int = 1
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body_bytes: int = 0
    give_up_ms: int = 10_000
    raw: str | None = None


@dataclass
class Patch:
    """A change to what the stand-in for istiod would have sent: what an EnvoyFilter does, or a bug.

    `kind` is bootstrap, listener, cluster, route, endpoints, secret; `name` the resource's name
    ("*": each). `change` gets the resource's JSON and alters it in place; `proxies` is NAMESPACE/WORKLOAD
    ("*": every proxy).
    """

    proxies: str
    kind: Literal["bootstrap", "listener", "cluster", "route", "endpoints", "secret"]
    name: str
    change: Callable[[Json], None]


@dataclass
class MeshSpec:
    """The desired mesh. `objects` are Services and mesh configuration as a user would apply them."""

    workloads: list[Workload] = field(default_factory=list)
    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)  # name → labels
    objects: list[Json] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)
    patches: list[Patch] = field(default_factory=list)
    authorities: dict[str, Authority] = field(default_factory=lambda: {"mesh": Authority()})
    mesh_config: Json = field(default_factory=dict)  # merged over the ConfigMap istio's own
    access_log: Literal["text", "json"] = "text"
    stats: Literal["all", "default"] = "all"
    block: int = 64  # the second octet of the mesh's addresses
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    cluster_uid: str = field(default_factory=lambda: str(uuid.uuid4()))
    _next_pod: int = 1

    def add_workload(self, workload: Workload, replicas: int = 1) -> Workload:
        self.workloads.append(workload)
        for _ in range(replicas):
            self.add_pod(workload)
        return workload

    def add_pod(self, workload: Workload) -> Pod:
        """One more pod of the workload, with the next free address."""
        number = self._next_pod
        self._next_pod += 1
        name = f"{workload.name}-{workload.template_hash}-{_suffix(f'{workload.key}/{number}', 5)}"
        pod = Pod(name=name, number=number)
        workload.pods.append(pod)
        return pod

    def scale(self, workload: str, replicas: int) -> Workload:
        """The workload with that many pods: the first ones stay."""
        found = self.workload(workload)
        del found.pods[replicas:]
        while len(found.pods) < replicas:
            self.add_pod(found)
        return found

    def workload(self, name: str) -> Workload:
        """The workload NAME or NAMESPACE/NAME."""
        for workload in self.workloads:
            if name in (workload.name, workload.key):
                return workload
        raise KeyError(f"no workload {name} in the demo mesh")

    def add(self, manifests: str) -> None:
        """Apply YAML documents as `kubectl apply` would: same kind, namespace and name replaces."""
        for manifest in copy.deepcopy(_documents(manifests)):
            if manifest:
                metadata = manifest["metadata"]
                if manifest["kind"] != "Namespace":
                    metadata.setdefault("namespace", "bookinfo")
                self.remove(manifest["kind"], metadata["name"], metadata.get("namespace"))
                self.objects.append(manifest)

    def remove(self, kind: str, name: str, namespace: str | None = "bookinfo") -> None:
        """Delete the object where it exists."""
        self.objects = [item for item in self.objects if identity(item) != (kind, namespace, name)]

    def find(self, kind: str, name: str, namespace: str = "bookinfo") -> Json:
        for item in self.objects:
            if identity(item) == (kind, namespace, name):
                return item
        raise KeyError(f"no {kind} {namespace}/{name} in the demo mesh")

    def of_kind(self, kind: str) -> list[Json]:
        return [item for item in self.objects if item["kind"] == kind]

    def pods(self) -> Iterator[tuple[Workload, Pod]]:
        for workload in self.workloads:
            for pod in workload.pods:
                yield workload, pod

    def proxies(self) -> Iterator[tuple[Workload, Pod]]:
        return ((workload, pod) for workload, pod in self.pods() if workload.sidecar)

    def flow(self, name: str) -> Flow:
        for flow in self.flows:
            if flow.name == name:
                return flow
        raise KeyError(f"no flow {name} in the demo mesh")

    def patch(self, proxies: str, kind: Any, name: str, change: Callable[[Json], None]) -> None:
        self.patches.append(Patch(proxies, kind, name, change))

    def pod_ip(self, pod: Pod) -> str:
        return f"127.{self.block}.{POD_NET}.{pod.number}"

    def app_ip(self, workload: Workload, pod: Pod) -> str:
        """Where the application listens: behind the sidecar, or on the pod's own address."""
        return f"127.{self.block}.{APP_NET if workload.sidecar else POD_NET}.{pod.number}"

    def uid(self, *what: str) -> str:
        """A stable UID for an object of this cluster."""
        return str(uuid.uuid5(uuid.UUID(self.cluster_uid), "/".join(what)))


def identity(item: Json) -> tuple[str, str | None, str]:
    """Kind, namespace and name of an object."""
    metadata = item["metadata"]
    return item["kind"], metadata.get("namespace"), metadata["name"]


@functools.cache
def _documents(manifests: str) -> tuple[Json, ...]:
    return tuple(yaml.safe_load_all(textwrap.dedent(manifests)))


def _suffix(seed: str, length: int) -> str:
    """A name's tail in Kubernetes' alphabet (no vowels, no look-alikes), the same for the same seed."""
    alphabet = "bcdfghjklmnpqrstvwxz2456789"
    digest = hashlib.sha256(seed.encode()).digest()
    return "".join(alphabet[byte % len(alphabet)] for byte in digest[:length])
