"""Answers questions about a cluster's objects: a pod's owner, what a service selects, the mesh's settings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Literal

import yaml
from msgspec import Struct

from meshscope.istio.names import pod_workload, service_host
from meshscope.model.kubernetes import KubernetesObject, ObjectMeta
from meshscope.model.names import WorkloadId

ProxyKind = Literal["istio", "linkerd", "both", "none"]

DEFAULT_ROOT_NAMESPACE = "istio-system"
DEFAULT_TRUST_DOMAIN = "cluster.local"


class Endpoint(Struct, frozen=True):
    """An address behind a service, as Kubernetes knows it; `pod` is (namespace, name) where it is one."""

    address: str
    port: int
    ready: bool
    serving: bool = True
    terminating: bool = False
    pod: tuple[str, str] | None = None


class Objects:
    """An index over a cluster's objects. Objects of the same kind and name in several versions are one."""

    def __init__(self, objects: Iterable[KubernetesObject]) -> None:
        self._by_kind: dict[str, list[KubernetesObject]] = defaultdict(list)
        self._by_namespace: dict[tuple[str, str], list[KubernetesObject]] = defaultdict(list)
        self._by_name: dict[tuple[str, str, str], list[KubernetesObject]] = defaultdict(list)
        for found in objects:
            key = (found.kind, found.metadata.namespace, found.metadata.name)
            if any(other.group == found.group for other in self._by_name[key]):
                continue
            self._by_kind[found.kind].append(found)
            self._by_namespace[found.kind, found.metadata.namespace].append(found)
            self._by_name[key].append(found)

    def __len__(self) -> int:
        return sum(len(found) for found in self._by_kind.values())

    def __iter__(self) -> Iterator[KubernetesObject]:
        for found in self._by_kind.values():
            yield from found

    def of(
        self, kind: str, group: str | None = None, namespace: str | None = None
    ) -> tuple[KubernetesObject, ...]:
        """All objects of a kind, whatever their version; of any group and namespace where none is given."""
        if namespace is not None:
            return _of_group(self._by_namespace.get((kind, namespace), ()), group)
        return _of_group(self._by_kind.get(kind, ()), group)

    def get(self, kind: str, namespace: str, name: str, group: str | None = None) -> KubernetesObject | None:
        """One object; `namespace` is "" for the cluster's own."""
        for found in self._by_name.get((kind, namespace, name), ()):
            if group is None or found.group == group:
                return found
        return None

    # --- pods and workloads ------------------------------------------------------------------------------

    @cached_property
    def pods(self) -> tuple[KubernetesObject, ...]:
        return self.of("Pod", "")

    @cached_property
    def services(self) -> tuple[KubernetesObject, ...]:
        return self.of("Service", "")

    def pod(self, namespace: str, name: str) -> KubernetesObject | None:
        return self.get("Pod", namespace, name, "")

    def pod_by_ip(self, ip: str) -> KubernetesObject | None:
        """The pod that holds an address now; None for a host's own address, which several pods share."""
        return self._pods_by_ip.get(ip)

    @cached_property
    def _pods_by_ip(self) -> dict[str, KubernetesObject]:
        found: dict[str, KubernetesObject] = {}
        for pod in self.pods:
            if finished(pod) or pod.spec.get("hostNetwork") is True:
                continue
            for ip in pod_ips(pod):
                if ip not in found or found[ip].metadata.deletionTimestamp:
                    found[ip] = pod
        return found

    def workload_of(self, pod: KubernetesObject) -> WorkloadId:
        """What owns a pod, over its ReplicaSet or Job; the pod itself where nothing does."""
        meta = pod.metadata
        owner = _owner(meta)
        if owner is None:
            return pod_workload(meta.namespace, meta.name, meta.labels)
        kind, name = owner
        if kind == "Node":
            return WorkloadId(meta.namespace, meta.name, "Pod")
        between = self.get(kind, meta.namespace, name)
        above = _owner(between.metadata) if between else None
        if above is not None:
            return WorkloadId(meta.namespace, above[1], above[0])
        if kind == "ReplicaSet" and between is None:
            return WorkloadId(meta.namespace, _without_hash(name, meta.labels))
        return WorkloadId(meta.namespace, name, kind)

    def pods_of(self, workload: WorkloadId) -> tuple[KubernetesObject, ...]:
        """The pods that a workload owns, finished ones left out."""
        return tuple(
            pod
            for pod in self.of("Pod", "", workload.namespace)
            if not finished(pod) and self.workload_of(pod) == workload
        )

    def has_proxy(self, pod: KubernetesObject) -> ProxyKind:
        """Whose sidecar (or gateway proxy) runs in a pod, native sidecars (in initContainers) included."""
        names = {str(container.get("name")) for container in containers(pod)}
        istio, linkerd = "istio-proxy" in names, "linkerd-proxy" in names
        if istio and linkerd:
            return "both"
        return "istio" if istio else "linkerd" if linkerd else "none"

    def is_ambient(self, pod: KubernetesObject) -> bool:
        """Whether ambient mode carries a pod's traffic: ztunnel took it over, or labels ask for that."""
        if pod.metadata.annotations.get("ambient.istio.io/redirection") == "enabled":
            return True
        if self.has_proxy(pod) != "none":
            return False
        label = "istio.io/dataplane-mode"
        namespace = self.namespace(pod.metadata.namespace)
        inherited = namespace.metadata.labels.get(label) if namespace else None
        return pod.metadata.labels.get(label, inherited) == "ambient"

    def ready(self, pod: KubernetesObject) -> bool:
        """Whether a pod's condition Ready holds and it isn't on its way out."""
        if pod.metadata.deletionTimestamp:
            return False
        conditions = dicts(pod.status.get("conditions"))
        return any(found.get("type") == "Ready" and found.get("status") == "True" for found in conditions)

    # --- services ---------------------------------------------------------------------------------------

    def service(self, namespace: str, name: str) -> KubernetesObject | None:
        return self.get("Service", namespace, name, "")

    def service_of_host(self, host: str, namespace: str = "") -> KubernetesObject | None:
        """The service behind a host name; short names are looked up from `namespace` as DNS would."""
        found = service_host(host)
        if found is not None:
            return self.service(found.namespace, found.service)
        name, _, rest = host.partition(".")
        if not rest:
            return self.service(namespace, name) if namespace else None
        return self.service(rest, name)

    def pods_selected(self, service: KubernetesObject) -> tuple[KubernetesObject, ...]:
        """The pods that a service's selector matches, finished ones left out; none without a selector."""
        selector = strings(service.spec.get("selector"))
        if not selector:
            return ()
        return tuple(
            pod
            for pod in self.of("Pod", "", service.metadata.namespace)
            if not finished(pod) and selects(selector, pod.metadata.labels)
        )

    def services_selecting(self, pod: KubernetesObject) -> tuple[KubernetesObject, ...]:
        """The services whose selector matches a pod."""
        return tuple(
            service
            for service in self.of("Service", "", pod.metadata.namespace)
            if (selector := strings(service.spec.get("selector"))) and selects(selector, pod.metadata.labels)
        )

    def endpoints(self, service: KubernetesObject, port: int) -> tuple[Endpoint, ...]:
        """The addresses behind a service's port, from its EndpointSlices, else its Endpoints object."""
        named = service_port(service, port)
        if named is None:
            return ()
        name = str(named.get("name") or "")
        meta = service.metadata
        slices = [
            found
            for found in self.of("EndpointSlice", None, meta.namespace)
            if found.metadata.labels.get("kubernetes.io/service-name") == meta.name
        ]
        if slices:
            return tuple(endpoint for found in slices for endpoint in _from_slice(found, name))
        old = self.get("Endpoints", meta.namespace, meta.name, "")
        return tuple(_from_endpoints(old, name)) if old else ()

    def has_endpoints_of(self, service: KubernetesObject) -> bool:
        """Whether any object lists this service's endpoints (without one, an empty list means nothing)."""
        meta = service.metadata
        return self.get("Endpoints", meta.namespace, meta.name, "") is not None or any(
            found.metadata.labels.get("kubernetes.io/service-name") == meta.name
            for found in self.of("EndpointSlice", None, meta.namespace)
        )

    # --- the cluster and the mesh ------------------------------------------------------------------------

    def namespace(self, name: str) -> KubernetesObject | None:
        return self.get("Namespace", "", name, "")

    @property
    def cluster_uid(self) -> str:
        """The UID of namespace kube-system, which names the cluster for everybody; "" where unknown."""
        system = self.namespace("kube-system")
        return system.metadata.uid if system else ""

    @cached_property
    def root_namespace(self) -> str:
        """Where mesh-wide policies live."""
        named = self.mesh_config().get("rootNamespace")
        return named if isinstance(named, str) and named else self._control_plane_namespace

    @cached_property
    def trust_domain(self) -> str:
        named = self.mesh_config().get("trustDomain")
        return named if isinstance(named, str) and named else DEFAULT_TRUST_DOMAIN

    def mesh_config(self, revision: str = "") -> dict[str, Any]:
        """MeshConfig of a revision as written (defaults absent); {} where it isn't there or can't be read."""
        if revision in ("", "default"):
            found = self._mesh_configs.get("istio")
            return found if found is not None else next(iter(self._mesh_configs.values()), {})
        return self._mesh_configs.get(f"istio-{revision}", {})

    @property
    def has_mesh_config(self) -> bool:
        return bool(self._mesh_configs)

    @cached_property
    def _mesh_configs(self) -> dict[str, dict[str, Any]]:
        """Every ConfigMap `istio[-REVISION]` with a key `mesh`, by name."""
        found: dict[str, dict[str, Any]] = {}
        for config_map in self.of("ConfigMap", "", self._control_plane_namespace):
            name = config_map.metadata.name
            text = _mapped(config_map.body.get("data")).get("mesh")
            if (name == "istio" or name.startswith("istio-")) and isinstance(text, str):
                found[name] = _yaml_mapping(text)
        return found

    @cached_property
    def _control_plane_namespace(self) -> str:
        """Where istiod's ConfigMap is: istio-system, else the first namespace that has one."""
        if self.get("ConfigMap", DEFAULT_ROOT_NAMESPACE, "istio", "") is None:
            for config_map in self.of("ConfigMap", ""):
                name = config_map.metadata.name
                if (name == "istio" or name.startswith("istio-")) and "mesh" in _mapped(
                    config_map.body.get("data")
                ):
                    return config_map.metadata.namespace
        return DEFAULT_ROOT_NAMESPACE


def _of_group(found: Iterable[KubernetesObject], group: str | None) -> tuple[KubernetesObject, ...]:
    return tuple(each for each in found if group is None or each.group == group)


# --- parts of objects ---------------------------------------------------------------------------------------


def dicts(value: Any) -> tuple[dict[str, Any], ...]:
    """The objects in a list; what isn't one (a hand-written manifest's mistake) is left out."""
    return tuple(found for found in value if isinstance(found, dict)) if isinstance(value, list) else ()


def strings(value: Any) -> dict[str, str]:
    """A map of text to text, such as a selector."""
    if not isinstance(value, dict):
        return {}
    return {str(key): str(found) for key, found in value.items() if isinstance(found, str | int | float)}


def _mapped(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def match_labels(spec: Mapping[str, Any]) -> dict[str, str]:
    """`selector.matchLabels` of an Istio policy; empty selects every workload."""
    return strings(_mapped(spec.get("selector")).get("matchLabels"))


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether every label of the selector is there; an empty selector selects all."""
    return all(labels.get(key) == value for key, value in selector.items())


def containers(pod: KubernetesObject) -> tuple[dict[str, Any], ...]:
    """A pod's containers, init containers (native sidecars live there) included."""
    return (*dicts(pod.spec.get("initContainers")), *dicts(pod.spec.get("containers")))


def finished(pod: KubernetesObject) -> bool:
    return pod.status.get("phase") in ("Succeeded", "Failed")


def pod_ips(pod: KubernetesObject) -> tuple[str, ...]:
    several = [str(found.get("ip")) for found in dicts(pod.status.get("podIPs")) if found.get("ip")]
    first = pod.status.get("podIP")
    return tuple(dict.fromkeys([*([first] if isinstance(first, str) and first else []), *several]))


def service_port(service: KubernetesObject, port: int) -> dict[str, Any] | None:
    """The entry of a service's `ports` with this number."""
    return next((found for found in dicts(service.spec.get("ports")) if found.get("port") == port), None)


def target_port(service: KubernetesObject, port: int, pod: KubernetesObject) -> int | None:
    """The container port that a service's port leads to on a pod; None where its name isn't there."""
    found = service_port(service, port)
    if found is None:
        return None
    target = found.get("targetPort", port)
    if isinstance(target, int):
        return target or port
    if isinstance(target, str) and target.isascii() and target.isdigit() and len(target) < 6:
        return int(target)
    for container in containers(pod):
        for declared in dicts(container.get("ports")):
            number = declared.get("containerPort")
            if declared.get("name") == target and isinstance(number, int):
                return number
    return None


def _owner(meta: ObjectMeta) -> tuple[str, str] | None:
    """Kind and name of what controls an object, else of its first owner."""
    controllers = [owner for owner in meta.ownerReferences if owner.controller]
    for owner in (*controllers, *meta.ownerReferences):
        return owner.kind, owner.name
    return None


def _without_hash(replica_set: str, labels: Mapping[str, str]) -> str:
    """A Deployment's name from its ReplicaSet's, which ends in the pod template's hash."""
    template = labels.get("pod-template-hash", "")
    if template and replica_set.endswith(f"-{template}"):
        return replica_set.removesuffix(f"-{template}")
    name, dash, _ = replica_set.rpartition("-")
    return name if dash and name else replica_set


def _from_slice(found: KubernetesObject, port_name: str) -> Iterator[Endpoint]:
    port = _port_named(found.body.get("ports"), port_name)
    if port is None:
        return
    for endpoint in dicts(found.body.get("endpoints")):
        conditions = _mapped(endpoint.get("conditions"))
        # An absent condition means ready (discovery.k8s.io/v1, EndpointConditions).
        ready = conditions.get("ready") is not False
        serving = conditions.get("serving")
        addresses = endpoint.get("addresses")
        for address in addresses if isinstance(addresses, list) else ():
            yield Endpoint(
                address=str(address),
                port=port,
                ready=ready,
                serving=serving if isinstance(serving, bool) else ready,
                terminating=conditions.get("terminating") is True,
                pod=_pod_of(endpoint),
            )


def _from_endpoints(found: KubernetesObject, port_name: str) -> Iterator[Endpoint]:
    for subset in dicts(found.body.get("subsets")):
        port = _port_named(subset.get("ports"), port_name)
        if port is None:
            continue
        for key, ready in (("addresses", True), ("notReadyAddresses", False)):
            for address in dicts(subset.get(key)):
                yield Endpoint(str(address.get("ip") or ""), port, ready, serving=ready, pod=_pod_of(address))


def _port_named(ports: Any, name: str) -> int | None:
    for found in dicts(ports):
        number = found.get("port")
        if str(found.get("name") or "") == name and isinstance(number, int):
            return number
    return None


def _pod_of(endpoint: Mapping[str, Any]) -> tuple[str, str] | None:
    target = _mapped(endpoint.get("targetRef"))
    if target.get("kind") != "Pod":
        return None
    return str(target.get("namespace") or ""), str(target.get("name") or "")


def _yaml_mapping(text: str) -> dict[str, Any]:
    # Not the C loader: it overflows the stack on deep nesting. MeshConfig is small.
    try:
        return _mapped(yaml.safe_load(text))
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError):
        return {}
