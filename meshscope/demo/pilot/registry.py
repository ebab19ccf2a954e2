"""What the stand-in for istiod sees: services with their endpoints, and who may see which."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from meshscope.demo.spec import CLUSTER_DOMAIN, ROOT_NAMESPACE, Json, MeshSpec, Pod, Workload, identity


@dataclass(frozen=True)
class ServicePort:
    number: int
    name: str
    protocol: str  # http, http2, tcp, auto
    target: int | str


@dataclass(frozen=True)
class Endpoint:
    address: str
    port: int
    labels: dict[str, str]
    workload: Workload | None = None
    pod: Pod | None = None
    ready: bool = True


@dataclass(frozen=True)
class Service:
    """A Kubernetes Service or one host of a ServiceEntry."""

    host: str
    name: str
    namespace: str
    address: str
    ports: tuple[ServicePort, ...]
    selector: dict[str, str] = field(default_factory=dict)
    external: bool = False
    resolution: str = "EDS"  # EDS, STRICT_DNS, ORIGINAL_DST
    given: tuple[str, ...] = ()  # a ServiceEntry's own endpoint addresses

    @property
    def names(self) -> list[str]:
        """The domains by which a client names the service, fully qualified first."""
        return [self.host] if self.external else [self.host, f"{self.host}."]


class Registry:
    """An index over one state of the mesh; make a new one after a change."""

    def __init__(self, spec: MeshSpec) -> None:
        self.spec = spec

    @cached_property
    def services(self) -> list[Service]:
        found = [self._service(item) for item in self.spec.of_kind("Service")]
        for entry in self.spec.of_kind("ServiceEntry"):
            found += _service_entry(entry)
        return sorted(found, key=lambda service: service.host)

    def by_host(self, host: str) -> Service | None:
        return next((service for service in self.services if service.host == host), None)

    def resolve(self, name: str, namespace: str) -> str:
        """A host as written in a mesh object of a namespace: short names belong to that namespace."""
        return name if "." in name else f"{name}.{namespace}.svc.{CLUSTER_DOMAIN}"

    def selected(self, service: Service) -> list[tuple[Workload, Pod]]:
        """The pods that a service's selector takes, ready or not."""
        if not service.selector:
            return []
        return [
            (workload, pod)
            for workload, pod in self.spec.pods()
            if workload.namespace == service.namespace
            and service.selector.items() <= workload.pod_labels(pod).items()
        ]

    def endpoints(self, service: Service, port: ServicePort) -> list[Endpoint]:
        """Every endpoint of a service's port, those of unready pods too."""
        if service.given:
            return [Endpoint(address, _number(port.target), {}) for address in service.given]
        return [
            Endpoint(
                self.spec.pod_ip(pod),
                target_port(workload, port),
                workload.pod_labels(pod),
                workload,
                pod,
                pod.ready,
            )
            for workload, pod in self.selected(service)
        ]

    def visible(self, workload: Workload) -> list[Service]:
        """The services a proxy hears of: all, or those its Sidecar resource lets through."""
        hosts = self._egress_hosts(workload)
        if hosts is None:
            return self.services
        return [service for service in self.services if _egress_allows(hosts, service, workload.namespace)]

    def _egress_hosts(self, workload: Workload) -> list[str] | None:
        """Hosts of the Sidecar in force: by selector, else the namespace's, else the mesh's."""
        candidates = []
        for item in self.spec.of_kind("Sidecar"):
            selector = item.get("spec", {}).get("workloadSelector", {}).get("labels", {})
            namespace = item["metadata"]["namespace"]
            if namespace == workload.namespace:
                if selector and selector.items() <= _template_labels(workload).items():
                    candidates.append((0, item))
                elif not selector:
                    candidates.append((1, item))
            elif namespace == ROOT_NAMESPACE and not selector:
                candidates.append((2, item))
        if not candidates:
            return None
        chosen = min(candidates, key=lambda pair: pair[0])[1]
        egress = chosen["spec"].get("egress")
        if egress is None:
            return None
        return [host for entry in egress for host in entry.get("hosts", [])]

    def peer_mode(self, workload: Workload, port: int | None) -> str:
        """The effective PeerAuthentication: port, workload, namespace, mesh; PERMISSIVE when nobody says."""
        labels = _template_labels(workload)
        layers: list[str | None] = [None, None, None, None]
        for item in sorted(self.spec.of_kind("PeerAuthentication"), key=_age):
            body = item.get("spec", {})
            namespace = item["metadata"]["namespace"]
            selector = body.get("selector", {}).get("matchLabels", {})
            mode = body.get("mtls", {}).get("mode")
            if selector:
                if namespace != workload.namespace or not selector.items() <= labels.items():
                    continue
                ports = body.get("portLevelMtls", {})
                per_port = ports.get(port, ports.get(str(port), {})).get("mode")
                layers[0] = layers[0] or _set(per_port)
                layers[1] = layers[1] or _set(mode)
            elif namespace == workload.namespace:
                layers[2] = layers[2] or _set(mode)
            if not selector and namespace == ROOT_NAMESPACE:
                layers[3] = layers[3] or _set(mode)
        return next((mode for mode in layers if mode), "PERMISSIVE")

    def destination_rule(self, service: Service, workload: Workload) -> Json | None:
        """The DestinationRule in force: of the client's namespace, the service's, the root one; oldest first."""
        order = [workload.namespace, service.namespace, ROOT_NAMESPACE]
        found = []
        for item in self.spec.of_kind("DestinationRule"):
            namespace = item["metadata"]["namespace"]
            host = self.resolve(item["spec"]["host"], namespace)
            if namespace in order and _host_matches(host, service.host):
                found.append(((host.startswith("*"), order.index(namespace), *_age(item)), item))
        return min(found, key=lambda pair: pair[0])[1] if found else None

    def virtual_services(self, workload: Workload) -> list[Json]:
        """The VirtualServices that apply inside the mesh, oldest first."""
        return sorted(
            (
                item
                for item in self.spec.of_kind("VirtualService")
                if "mesh" in item["spec"].get("gateways", ["mesh"])
            ),
            key=_age,
        )

    def inbound_ports(self, workload: Workload) -> list[tuple[int, Service, ServicePort]]:
        """The ports the sidecar serves: the targets of the services that select the workload."""
        if not workload.pods:
            return []
        found: dict[int, tuple[int, Service, ServicePort]] = {}
        pod = workload.pods[0]
        for service in self.services:
            if service.external or not any(item is workload for item, _ in self.selected(service)):
                continue
            for port in service.ports:
                number = target_port(workload, port)
                if number not in workload.bypassed_ports(pod):
                    found.setdefault(number, (number, service, port))
        return [found[number] for number in sorted(found)]

    def _service(self, item: Json) -> Service:
        metadata, spec = item["metadata"], item["spec"]
        name, namespace = metadata["name"], metadata["namespace"]
        return Service(
            host=f"{name}.{namespace}.svc.{CLUSTER_DOMAIN}",
            name=name,
            namespace=namespace,
            address=self.cluster_ip(item),
            ports=tuple(_service_port(port) for port in spec.get("ports", [])),
            selector=spec.get("selector", {}),
            resolution="ORIGINAL_DST" if spec.get("clusterIP") == "None" else "EDS",
        )

    def cluster_ip(self, item: Json) -> str:
        """The service's own address: given, or the next of 10.96.0.0/16 by its place among the services."""
        given = item["spec"].get("clusterIP")
        if given:
            return str(given)
        place = int(self.spec.uid("ClusterIP", *map(str, identity(item)))[:4], 16)
        return f"10.96.{place >> 8}.{(place & 255) or 1}"


def target_port(workload: Workload, port: ServicePort) -> int:
    """The container port a service port leads to; a name is looked up in the pod."""
    if isinstance(port.target, int):
        return port.target
    return next((item.number for item in workload.ports if item.name == port.target), port.number)


def http_like(port: ServicePort) -> bool:
    return port.protocol in ("http", "http2")


def _service_port(port: Json) -> ServicePort:
    name = str(port.get("name", ""))
    number = int(port["port"])
    target = port.get("targetPort", number)
    return ServicePort(number, name, _protocol(name, port), target)


def _protocol(name: str, port: Json) -> str:
    """What Istio takes a port for: appProtocol, else the name's prefix, else it sniffs."""
    word = str(port.get("appProtocol") or port.get("protocolName") or name.split("-")[0]).lower()
    word = word.rsplit("/", 1)[-1]
    if word == "http":
        return "http"
    if word in ("http2", "h2c", "grpc"):
        return "http2"
    if word in ("tcp", "tls", "https", "mongo", "mysql", "redis", "udp"):
        return "tcp"
    return "auto"


def _service_entry(item: Json) -> list[Service]:
    body, metadata = item["spec"], item["metadata"]
    kinds = {"DNS": "STRICT_DNS", "STATIC": "EDS", "NONE": "ORIGINAL_DST"}
    ports = tuple(
        ServicePort(
            int(port["number"]),
            str(port.get("name", "")),
            _protocol(str(port.get("protocol", "")), {}),
            int(port.get("targetPort", port["number"])),
        )
        for port in body.get("ports", [])
    )
    given = tuple(endpoint["address"] for endpoint in body.get("endpoints", []))
    return [
        Service(
            host=host,
            name=host,
            namespace=metadata["namespace"],
            address=(body.get("addresses") or ["0.0.0.0"])[0],
            ports=ports,
            external=True,
            resolution=kinds[body.get("resolution", "NONE")],
            given=given,
        )
        for host in body["hosts"]
    ]


def _egress_allows(hosts: list[str], service: Service, namespace: str) -> bool:
    for entry in hosts:
        space, _, host = entry.partition("/")
        if space == "~":
            continue
        space_fits = space == "*" or service.namespace == (namespace if space == "." else space)
        if space_fits and (host == "*" or _host_matches(host, service.host)):
            return True
    return False


def _host_matches(pattern: str, host: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*") else pattern == host


def _template_labels(workload: Workload) -> dict[str, str]:
    return (
        workload.pod_labels(workload.pods[0]) if workload.pods else {"app": workload.app, **workload.labels}
    )


def _set(mode: Any) -> str | None:
    return None if mode in (None, "UNSET") else str(mode)


def _age(item: Json) -> tuple[str, str, str]:
    """Order among policies of one level: the oldest, then by name, then by namespace."""
    metadata = item["metadata"]
    return str(metadata.get("creationTimestamp", "")), metadata["name"], metadata["namespace"]


def _number(target: int | str) -> int:
    return target if isinstance(target, int) else 0
