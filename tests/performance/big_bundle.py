"""Makes a bundle of a large mesh out of a small one: one proxy sees thousands of services more.

Every service that is added is a copy of one the proxy knows: its clusters, endpoints, virtual host,
listener and Kubernetes Service, with names and addresses of its own. What was wrong in the small mesh is
wrong in the large one, and nothing else. The same input gives the same bytes.
"""

from __future__ import annotations

import argparse
import ipaddress
import re
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from meshscope.model.findings import Unavailable
from meshscope.model.kubernetes import KubernetesObject, ObjectMeta
from meshscope.model.names import ProxyId
from meshscope.sources.bundle import open_bundle
from meshscope.sources.source import Capture, Part, Read, Source
from meshscope.store.bundle import write_bundle

RECORDING = Path(__file__).parents[1] / "data" / "istio" / "authz-deny.tar.gz"
CLIENT = "bookinfo/reviews-v2"
MEGABYTE = 1_000_000

Json = dict[str, Any]

_NAMESPACES = 60
_CLUSTER = re.compile(r"outbound\|\d+\|[^|]*\|[^\"|;]+")
_PORT_LISTENER = re.compile(r"\d+\.\d+\.\d+\.\d+_\d+")
_SAMPLE = 40
"""Services that are made to see how large one is."""


class Service(NamedTuple):
    """An added service."""

    number: int

    @property
    def name(self) -> str:
        return f"service-{self.number:05}"

    @property
    def namespace(self) -> str:
        return f"team-{self.number % _NAMESPACES:02}"

    @property
    def host(self) -> str:
        return f"{self.name}.{self.namespace}.svc.cluster.local"

    @property
    def address(self) -> str:
        return str(ipaddress.IPv4Address("172.20.0.1") + self.number)

    @property
    def endpoints(self) -> list[str]:
        """Three to eight pods."""
        first = ipaddress.IPv4Address("10.128.0.1") + 8 * self.number
        return [str(first + number) for number in range(3 + self.number % 6)]


class Pattern(NamedTuple):
    """The service that others are copied from, as the proxy holds it, and where in the dump copies go."""

    host: str
    clusters: list[Json]
    endpoints: list[Json]
    statuses: list[Json]
    route: Json
    virtual_host: Json
    listener: Json

    @property
    def name(self) -> str:
        return self.host.split(".")[0]

    @property
    def namespace(self) -> str:
        return self.host.split(".")[1]


class BigMesh:
    """A source that answers as another does, but for one proxy that has a configuration dump of `size_bytes`."""

    def __init__(self, base: Source, client: str, size_bytes: int) -> None:
        self._base = base
        found = [proxy for proxy in base.proxies() if str(proxy).startswith(client)]
        if not found:
            raise SystemExit(f"no proxy {client}… among: {', '.join(map(str, base.proxies()))}")
        self._client = found[0]
        self._size_bytes = size_bytes

    @property
    def capture(self) -> Capture:
        return self._base.capture

    def proxies(self) -> tuple[ProxyId, ...]:
        return self._base.proxies()

    def read(self, proxy: ProxyId, part: Part) -> bytes | Unavailable:
        if proxy == self._client and part is Part.CONFIG_DUMP:
            return self._dump
        if proxy == self._client and part is Part.CLUSTERS:
            return _as_envoy({"cluster_statuses": [*self._small_statuses, *self._statuses()]})
        return self._base.read(proxy, part)

    def kubernetes(self) -> Read | Unavailable:
        read = self._base.kubernetes()
        if isinstance(read, Unavailable):
            return read
        added = (_kubernetes_service(service) for service in self._services)
        return Read((*read.objects, *added), read.problems)

    def control_planes(self) -> tuple[str, ...]:
        return self._base.control_planes()

    def read_control_plane(self, pod: str, path: str) -> bytes | Unavailable:
        return self._base.read_control_plane(pod, path)

    def close(self) -> None:
        self._base.close()

    @cached_property
    def _services(self) -> list[Service]:
        """As many as it takes: all are of nearly one size."""
        none, some = len(self._dump_with([])), len(self._dump_with(_services(_SAMPLE)))
        return _services(max(0, -(-(self._size_bytes - none) * _SAMPLE // (some - none))))

    @cached_property
    def _dump(self) -> bytes:
        return self._dump_with(self._services)

    def _dump_with(self, services: list[Service]) -> bytes:
        dump = self._part(Part.CONFIG_DUMP)
        pattern = self._pattern
        sections = {section["@type"].rpartition(".")[2]: section for section in dump["configs"]}
        clusters = sections["ClustersConfigDump"]["dynamic_active_clusters"]
        endpoints = sections["EndpointsConfigDump"]["dynamic_endpoint_configs"]
        listeners = sections["ListenersConfigDump"]["dynamic_listeners"]
        routes = sections["RoutesConfigDump"]["dynamic_route_configs"]
        (route,) = (entry for entry in routes if _name_of(entry) == _name_of(pattern.route))
        for service in services:
            clusters += [_copied(entry, pattern, service) for entry in pattern.clusters]
            endpoints += [_assignment(entry, pattern, service) for entry in pattern.endpoints]
            # Before the catch-all, which Istio puts last.
            route["route_config"]["virtual_hosts"].insert(-1, _virtual_host(pattern, service))
            if service.number % 4 == 0:
                listeners.append(_listener(pattern, service))
        return _as_envoy(dump)

    def _statuses(self) -> Iterator[Json]:
        for service in self._services:
            for entry in self._pattern.statuses:
                copied = _copied(entry, self._pattern, service)
                (host, *_) = copied["host_statuses"]
                copied["host_statuses"] = [_at(host, address) for address in service.endpoints]
                yield copied

    @cached_property
    def _small_statuses(self) -> list[Json]:
        found: list[Json] = self._part(Part.CLUSTERS)["cluster_statuses"]
        return found

    @cached_property
    def _pattern(self) -> Pattern:
        """A service of the proxy's own namespace if there is one, with as many clusters as possible."""
        sections = {
            section["@type"].rpartition(".")[2]: section
            for section in self._part(Part.CONFIG_DUMP)["configs"]
        }
        clusters = sections["ClustersConfigDump"]["dynamic_active_clusters"]
        candidates = []
        for route in sections["RoutesConfigDump"]["dynamic_route_configs"]:
            for virtual_host in route["route_config"].get("virtual_hosts", [])[:-1]:
                host = virtual_host["name"].rpartition(":")[0]
                is_near = f".{self._client.namespace}.svc." in host
                candidates.append(((is_near, len(_of(host, clusters)), host), route, virtual_host))
        if not candidates:
            raise SystemExit("the proxy has no route with virtual hosts to copy")
        (_, _, host), route, virtual_host = max(candidates, key=lambda candidate: candidate[0])
        listeners = sections["ListenersConfigDump"]["dynamic_listeners"]
        return Pattern(
            host,
            _of(host, clusters),
            _of(host, sections["EndpointsConfigDump"]["dynamic_endpoint_configs"]),
            [
                entry
                for entry in self._small_statuses
                if entry["name"].endswith(f"|{host}") and "host_statuses" in entry
            ],
            route,
            virtual_host,
            next(entry for entry in listeners if _PORT_LISTENER.fullmatch(entry["name"])),
        )

    def _part(self, part: Part) -> Json:
        data = self._base.read(self._client, part)
        if isinstance(data, Unavailable):
            raise SystemExit(f"{data.what}: {data.why}")
        found: Json = orjson.loads(data)
        return found


def _services(count: int) -> list[Service]:
    return [Service(number) for number in range(count)]


def _of(host: str, entries: list[Json]) -> list[Json]:
    return [entry for entry in entries if _name_of(entry).endswith(f"|{host}") and _has_endpoints(entry)]


def _has_endpoints(entry: Json) -> bool:
    return "endpoint_config" not in entry or any(
        locality.get("lb_endpoints") for locality in entry["endpoint_config"].get("endpoints", ())
    )


def _name_of(entry: Json) -> str:
    """The name of a cluster's, an endpoint assignment's or a route's entry."""
    for kind, field in (("cluster", "name"), ("endpoint_config", "cluster_name"), ("route_config", "name")):
        if kind in entry:
            return str(entry[kind].get(field, ""))
    return ""


def _copied(entry: Json, pattern: Pattern, service: Service) -> Json:
    """An entry with the pattern's names replaced by the service's."""
    old, new = pattern, service
    text = orjson.dumps(entry).decode()
    for before, after in (
        (f"{old.name}.{old.namespace}", f"{new.name}.{new.namespace}"),
        (f"/ns/{old.namespace}/sa/{old.namespace}-{old.name}", f"/ns/{new.namespace}/sa/{new.name}"),
        (f"/namespaces/{old.namespace}/", f"/namespaces/{new.namespace}/"),
        (f'"{old.name}-v', f'"{new.name}-v'),
        (f";{old.namespace};{old.name};", f";{new.namespace};{new.name};"),
    ):
        text = text.replace(before, after)
    copied: Json = orjson.loads(text)
    istio = copied.get("cluster", {}).get("metadata", {}).get("filter_metadata", {}).get("istio", {})
    for known in istio.get("services", ()):
        known.update(name=service.name, namespace=service.namespace)
    return copied


def _assignment(entry: Json, pattern: Pattern, service: Service) -> Json:
    copied = _copied(entry, pattern, service)
    locality = next(found for found in copied["endpoint_config"]["endpoints"] if found.get("lb_endpoints"))
    endpoint = locality["lb_endpoints"][0]
    locality["lb_endpoints"] = [
        {**endpoint, "endpoint": _at(endpoint["endpoint"], address)} for address in service.endpoints
    ]
    locality["load_balancing_weight"] = len(service.endpoints)
    return copied


def _at(holder: Json, address: str) -> Json:
    """What holds a socket address, with another address in it."""
    socket = {**holder["address"]["socket_address"], "address": address}
    return {**holder, "address": {"socket_address": socket}}


def _virtual_host(pattern: Pattern, service: Service) -> Json:
    """A service of another namespace has every name but the short one."""
    copied = _copied(pattern.virtual_host, pattern, service)
    long = [domain for domain in copied["domains"] if domain.startswith(f"{service.name}.")]
    return {**copied, "domains": [*long, service.address]}


def _listener(pattern: Pattern, service: Service) -> Json:
    """A listener of the service's own address, as a port that isn't HTTP gets one."""
    address, _, port = pattern.listener["name"].rpartition("_")
    cluster = _name_of(_copied(pattern.clusters[0], pattern, service))
    new_port = cluster.split("|")[1]
    text = orjson.dumps(pattern.listener).decode()
    text = text.replace(f"{address}_{port}", f"{service.address}_{new_port}").replace(
        address, service.address
    )
    text = text.replace(f'"port_value":{port}', f'"port_value":{new_port}')
    copied: Json = orjson.loads(_CLUSTER.sub(cluster, text))
    return copied


def _kubernetes_service(service: Service) -> KubernetesObject:
    metadata = {"name": service.name, "namespace": service.namespace, "labels": {"app": service.name}}
    body = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "clusterIP": service.address,
            "selector": {"app": service.name},
            "ports": [{"name": "http", "port": 9080, "targetPort": 9080, "protocol": "TCP"}],
        },
    }
    return KubernetesObject(
        "v1", "Service", ObjectMeta(service.name, service.namespace, labels={"app": service.name}), body
    )


_INDENT = re.compile(rb"\n +")


def _as_envoy(document: Json) -> bytes:
    """JSON indented by one blank, as Envoy's admin writes it."""
    indented = orjson.dumps(document, option=orjson.OPT_INDENT_2)
    return _INDENT.sub(lambda found: b"\n" + b" " * (len(found[0]) // 2), indented)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/big-bundle", description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="a directory, or a .tar.zst or .tar.gz file")
    parser.add_argument("--from", dest="base", type=Path, default=RECORDING, help="the small bundle")
    parser.add_argument("--client", default=CLIENT, help="NAMESPACE/POD of the proxy, or how it begins")
    parser.add_argument("--megabytes", type=float, default=50, help="the size of its configuration dump")
    parser.add_argument("--force", action="store_true", help="replace what is there")
    arguments = parser.parse_args()
    source = BigMesh(open_bundle(arguments.base), arguments.client, int(arguments.megabytes * MEGABYTE))
    written = write_bundle(source, arguments.output, force=arguments.force)
    sys.stdout.write(
        f"wrote {written.path}: {written.size_bytes / MEGABYTE:.0f} MB, {written.objects} Kubernetes objects\n"
    )
    source.close()


if __name__ == "__main__":
    main()
