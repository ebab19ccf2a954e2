"""Edges: who calls whom, found in what the proxies on both sides saw, with the symptoms on each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import msgspec

from meshscope.envoy.access_log import AccessLogEntry
from meshscope.envoy.clusters import ClusterStatus
from meshscope.facts import symptoms as seen
from meshscope.facts.mesh import Mesh
from meshscope.facts.proxy import Proxy
from meshscope.facts.symptoms import Symptom
from meshscope.istio.names import ClusterName, cluster_name, is_inbound, sni_name
from meshscope.model.findings import Edge, Unavailable
from meshscope.model.names import WorkloadId

DEFAULT_WINDOW_S = 600.0
"""How far back a log line counts as now where the user doesn't say: ten minutes before the capture."""


class EdgeKey(msgspec.Struct, frozen=True, order=True):
    """A calling workload, and the host and port it calls."""

    client: WorkloadId
    host: str
    port: int

    @property
    def edge(self) -> Edge:
        return Edge(str(self.client), short_host(self.host), self.port or None)


class ObservedEdge:
    """One edge with what both sides told of it. Lines are of the window only, in the log's order."""

    def __init__(self, mesh: Mesh, key: EdgeKey) -> None:
        self.mesh = mesh
        self.key = key
        self.client_lines: dict[Proxy, list[AccessLogEntry]] = {}
        self.server_lines: dict[Proxy, list[AccessLogEntry]] = {}
        self.clusters: set[str] = set()
        """Names of the client's Envoy clusters that the traffic used, one a subset."""

    def __repr__(self) -> str:
        return f"ObservedEdge({self.edge})"

    @property
    def edge(self) -> Edge:
        return self.key.edge

    @property
    def clients(self) -> tuple[Proxy, ...]:
        """The proxies of the calling workload; empty where it has none or none could be read."""
        return tuple(self.client_lines) or self.mesh.proxies_of(self.key.client)

    @cached_property
    def servers(self) -> tuple[Proxy, ...]:
        """The proxies that serve the host, by what they saw, by endpoints and by the Service's selector."""
        found: dict[Proxy, None] = dict.fromkeys(self.server_lines)
        for client in self.clients:
            for ip in endpoint_ips(client, self.key.host, self.key.port):
                if (proxy := self.mesh.proxy_at(ip)) is not None:
                    found[proxy] = None
        service = self.mesh.objects.service_of_host(self.key.host)
        if service is not None:
            for pod in self.mesh.objects.pods_selected(service):
                for proxy in self.mesh.proxies.values():
                    if proxy.id.namespace == pod.metadata.namespace and proxy.id.pod == pod.metadata.name:
                        found[proxy] = None
        return tuple(found)

    @cached_property
    def symptoms(self) -> tuple[Symptom, ...]:
        """Everything that fails on this edge now: from logs, and from counters of proxies without a log."""
        found: list[Symptom] = []
        for proxy, lines in self.client_lines.items():
            found += seen.from_log(proxy.id, "client", str(self.edge), lines)
        answered = [entry for lines in self.client_lines.values() for entry in lines]
        for proxy, lines in self.server_lines.items():
            found += seen.from_log(proxy.id, "server", str(self.edge), lines, answered)
        for proxy in self.clients:
            if isinstance(proxy.log, Unavailable):
                found += self._counters(proxy)
        return tuple(found)

    def _counters(self, proxy: Proxy) -> Iterator[Symptom]:
        if proxy.moved is None:
            return
        for name in sorted(self.clusters):
            requests = int(proxy.moved.get("cluster", name, "upstream_rq_total") or 0)
            answered = proxy.moved.get("cluster", name, "upstream_rq_completed") or 0
            for stat in seen.FAILING_CLUSTER_STATS:
                count = proxy.moved.get("cluster", name, stat) or 0
                if count > 0 and (answered or stat not in seen.ORDINARY_FOR_TCP):
                    yield Symptom(
                        id=f"{proxy.id}|counter|{name}|{stat}",
                        proxy=proxy.id,
                        side="client",
                        count=int(count),
                        of=requests,
                        cluster=name,
                        stat=("cluster", name, stat),
                    )

    @property
    def idle(self) -> bool:
        """Whether no call was seen on it by anybody: it is there only because it was asked for."""
        return not (self.client_lines or self.server_lines or self.clusters)

    @property
    def requests(self) -> int:
        """How many requests the better-informed side saw in the window (lines; counters where there are none)."""
        client = sum(len(lines) for lines in self.client_lines.values())
        server = sum(len(lines) for lines in self.server_lines.values())
        return max(client, server)


def short_host(host: str) -> str:
    """`reviews.bookinfo` for `reviews.bookinfo.svc.cluster.local`; other hosts as they are."""
    name, dot, rest = host.partition(".svc.")
    return name if dot and rest else host


def endpoint_ips(client: Proxy, host: str, port: int) -> Iterator[str]:
    """Addresses that the client's proxy holds for any subset of host and port."""
    config = client.config
    if isinstance(config, Unavailable):
        return
    for assignment in config.endpoints:
        name = cluster_name(assignment.cluster_name)
        if name is None or name.fqdn != host or (port and name.port != port):
            continue
        for endpoint in assignment.all():
            if endpoint.endpoint.address.socket_address:
                yield endpoint.endpoint.address.socket_address.address


def is_outbound(mesh: Mesh, proxy: Proxy, entry: AccessLogEntry) -> bool:
    """Whether the line is of a request that the proxy's own application sent.

    The cluster says so; a refused request has none: then the addresses do, because a request of the pod itself
    comes from the pod's address and goes elsewhere.
    """
    if is_inbound(entry.upstream_cluster):
        return False
    if entry.upstream_cluster:
        return True
    if proxy.node.kind == "router":
        return True
    own = mesh.ips(proxy)
    if _ip(entry.downstream_local_address) in own:
        return False
    return _ip(entry.downstream_remote_address) in own or not entry.requested_server_name


def observe(
    mesh: Mesh, proxies: Iterable[Proxy], window_s: float = DEFAULT_WINDOW_S
) -> dict[EdgeKey, ObservedEdge]:
    """The edges on which these proxies saw traffic, by key.

    Sources, best first: access log lines of the window, counters that moved between two samples, per-host
    counters of /clusters that moved (or, where there is one sample only, that aren't zero).
    """
    edges: dict[EdgeKey, ObservedEdge] = {}
    asked: dict[tuple[WorkloadId, str], dict[EdgeKey, None]] = {}
    served: list[tuple[Proxy, AccessLogEntry]] = []

    def at(key: EdgeKey) -> ObservedEdge:
        return edges.setdefault(key, ObservedEdge(mesh, key))

    for proxy in proxies:
        client = mesh.workload_of(proxy)
        log = proxy.log
        if isinstance(log, Unavailable):
            for name in _clusters_with_traffic(proxy):
                edge = at(EdgeKey(client, name.fqdn, name.port))
                edge.clusters.add(str(name))
            continue
        for entry in seen.current(log.entries, mesh.captured_at, window_s):
            if is_outbound(mesh, proxy, entry):
                host, port = _called(mesh, client, entry)
                key = EdgeKey(client, host, port)
                edge = at(key)
                edge.client_lines.setdefault(proxy, []).append(entry)
                asked.setdefault((client, entry.upstream_host), {})[key] = None
                if entry.upstream_cluster:
                    edge.clusters.add(entry.upstream_cluster)
            else:
                served.append((proxy, entry))
    for proxy, entry in served:
        caller = mesh.workload_at(_ip(entry.downstream_remote_address))
        host, port = _served(mesh, proxy, entry, asked.get((caller, entry.downstream_local_address), ()))
        at(EdgeKey(caller, host, port)).server_lines.setdefault(proxy, []).append(entry)
    return edges


def _clusters_with_traffic(proxy: Proxy) -> Iterator[ClusterName]:
    names: set[str] = set()
    if proxy.moved is not None:
        for stat in ("upstream_rq_total", "upstream_cx_total", *seen.FAILING_CLUSTER_STATS):
            names |= {name for name, by in proxy.moved.find("cluster", stat).items() if by > 0}
    if not names and not isinstance(proxy.clusters, Unavailable):
        before = proxy.clusters_before
        for status in proxy.clusters:
            earlier = before.get(status.name) if before is not None else None
            if _host_requests(status) > _host_requests(earlier):
                names.add(status.name)
    for name in sorted(names):
        parsed = cluster_name(name)
        if parsed is not None and parsed.direction == "outbound":
            yield parsed


def _host_requests(status: ClusterStatus | None) -> int:
    hosts = status.hosts if status is not None else ()
    return sum(host.stats.get("rq_total", 0) + host.stats.get("cx_total", 0) for host in hosts)


def _called(mesh: Mesh, client: WorkloadId, entry: AccessLogEntry) -> tuple[str, int]:
    name = cluster_name(entry.upstream_cluster)
    if name is not None:
        return name.fqdn, name.port
    port = _port(entry.downstream_local_address)
    host, _, given = (
        entry.authority.rpartition(":") if _has_port(entry.authority) else (entry.authority, "", "")
    )
    if host:
        return qualified(mesh, host, client.namespace), int(given or 0) or port
    address = _ip(entry.downstream_local_address)
    return mesh.host_at(address) or address, port


def _served(mesh: Mesh, proxy: Proxy, entry: AccessLogEntry, asked: Iterable[EdgeKey]) -> tuple[str, int]:
    """The host a server line is of: by SNI, by what the caller's proxy `asked` of this address, by the pod's services.

    Of several the one that the authority names.
    """
    by_sni = sni_name(entry.requested_server_name)
    if by_sni is not None:
        return by_sni.fqdn, by_sni.port
    port = _port(entry.downstream_local_address)
    hosts = [(key.host, key.port) for key in asked] or served_hosts(mesh, proxy, port)
    authority = entry.authority.rpartition(":")[0] if _has_port(entry.authority) else entry.authority
    for host, service_port in hosts:
        if authority and (host == authority or host.startswith(f"{authority}.")):
            return host, service_port
    if hosts:
        return hosts[0]
    return str(mesh.workload_of(proxy)), port


def served_hosts(mesh: Mesh, proxy: Proxy, port: int) -> tuple[tuple[str, int], ...]:
    """Service hosts (with service port) that lead to this port of the proxy's pod."""
    found: dict[tuple[str, int], None] = {}
    pod = mesh.pod(proxy.id)
    if pod is not None:
        for service in mesh.objects.services_selecting(pod):
            for entry in service.spec.get("ports") or ():
                target = entry.get("targetPort", entry.get("port"))
                if (
                    target == port
                    or (isinstance(target, str) and not target.isdigit())
                    or entry.get("port") == port
                ):
                    host = f"{service.metadata.name}.{service.metadata.namespace}.svc.{mesh.domain}"
                    found[(host, int(entry.get("port", port)))] = None
    config = proxy.config
    if not isinstance(config, Unavailable):
        cluster = config.clusters.get(f"inbound|{port}||")
        if cluster is not None:
            for service_entry in cluster.metadata.istio().get("services") or ():
                if isinstance(service_entry, dict) and service_entry.get("host"):
                    found.setdefault((str(service_entry["host"]), port), None)
    return tuple(found)


def qualified(mesh: Mesh, host: str, namespace: str) -> str:
    """The FQDN of a short host name, where such a Service exists; else the host as it was called."""
    for candidate in (host, f"{host}.{namespace}.svc.{mesh.domain}"):
        if mesh.objects.service_of_host(candidate) is not None:
            return candidate
    name, _, rest = host.partition(".")
    if rest and "." not in rest:
        candidate = f"{name}.{rest}.svc.{mesh.domain}"
        if mesh.objects.service_of_host(candidate) is not None:
            return candidate
    if rest.endswith(".svc"):
        return f"{host}.{mesh.domain}"
    return host


def _has_port(authority: str) -> bool:
    return authority.rpartition(":")[2].isdigit() and ":" in authority


def _ip(address: str) -> str:
    return address.rpartition(":")[0].strip("[]") if ":" in address else address


def _port(address: str) -> int:
    port = address.rpartition(":")[2]
    return int(port) if port.isdigit() else 0
