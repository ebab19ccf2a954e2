"""What a rule sees: the mesh, its edges with their symptoms and walks. Every access is noted by its input's name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import cached_property

import msgspec

from meshscope.envoy.access_log import AccessLogEntry, EnvoyMessage
from meshscope.envoy.clusters import ClusterStatus
from meshscope.envoy.config_dump import Cluster, ConfigDump, RouteAction
from meshscope.envoy.request import HttpRequest
from meshscope.facts.edges import EdgeKey, ObservedEdge, served_hosts
from meshscope.facts.mesh import Mesh
from meshscope.facts.proxy import Proxy
from meshscope.facts.symptoms import Symptom
from meshscope.istio.kubernetes import Objects, finished, strings
from meshscope.istio.names import cluster_name, service_host
from meshscope.istio.syncz import ProxySync
from meshscope.model.findings import Edge, Evidence, Unavailable
from meshscope.model.kubernetes import KubernetesObject
from meshscope.model.names import OUTSIDE, ObjectRef, ProxyId, WorkloadId
from meshscope.sources.source import Part
from meshscope.walk.dead_ends import DeadEnd, dead_ends
from meshscope.walk.hops import Branch, Hop, Stage, Walk
from meshscope.walk.walk import Call, walk

INPUTS = ("symptoms", "walk", "counters", "hosts", "config", "kubernetes", "log", "sync")
"""The names a rule declares what it reads with.

symptoms: what fails now on an edge · walk: predicted decisions · counters: statistics that moved, and totals ·
hosts: /clusters · config: config dumps · kubernetes: objects · log: access log lines and Envoy's own messages ·
sync: istiod's word of what proxies acknowledged.
"""

WALKED_REQUESTS = 4
"""So many different requests of an edge are walked; more tell nothing new of the same routes."""


class Predicted(msgspec.Struct, frozen=True):
    """A walk that fails for a cause: the branch, and the hop that decides."""

    walk: Walk
    branch: Branch
    hop: Hop

    @property
    def share(self) -> float:
        return self.branch.share


class RouteFound(msgspec.Struct, frozen=True):
    """A route of the client's proxy, with the limits that it sets in Envoy's own spelling ("" where it sets none)."""

    action: RouteAction
    hop: Hop

    @property
    def owner(self) -> ObjectRef | None:
        """The VirtualService behind the route."""
        return self.hop.kubernetes

    def saying(self, decision: str) -> RouteFound:
        """The same with these words for what the route decides."""
        return RouteFound(self.action, msgspec.structs.replace(self.hop, decision=decision))

    @property
    def timeout(self) -> str:
        return self.action.timeout

    @property
    def idle_timeout(self) -> str:
        return self.action.idle_timeout

    @property
    def per_try_timeout(self) -> str:
        return self.action.retry_policy.per_try_timeout if self.action.retry_policy else ""

    @property
    def retries(self) -> int:
        return self.action.retry_policy.num_retries if self.action.retry_policy else 0

    @property
    def max_stream_duration(self) -> str:
        return self.action.max_stream_duration.max_stream_duration if self.action.max_stream_duration else ""


class Moved(msgspec.Struct, frozen=True):
    """A counter that moved between two samples, and where to read it."""

    proxy: Proxy
    scope: str
    name: str
    stat: str
    by: float

    @property
    def evidence(self) -> Evidence:
        return Evidence(
            f"proxy {self.proxy.id}",
            self.proxy.path(Part.METRICS),
            f"{'.'.join(filter(None, (self.scope, self.name, self.stat)))} +{self.by:g} since the earlier sample",
        )


class EdgeFacts:
    """One edge for a rule: who calls whom, what fails, what the walk predicts, what counters did."""

    def __init__(self, facts: Facts, observed: ObservedEdge) -> None:
        self._facts = facts
        self._observed = observed

    def __repr__(self) -> str:
        return f"EdgeFacts({self.edge})"

    @property
    def edge(self) -> Edge:
        return self._observed.edge

    @property
    def client(self) -> WorkloadId:
        return self._observed.key.client

    @property
    def host(self) -> str:
        """FQDN of the destination, or the name it was called by."""
        return self._observed.key.host

    @property
    def port(self) -> int:
        return self._observed.key.port

    @property
    def requests(self) -> int:
        """How many requests (or connections) were seen in the window; 0 where no log tells."""
        return self._observed.requests

    @property
    def client_proxies(self) -> tuple[Proxy, ...]:
        return self._observed.clients

    @property
    def server_proxies(self) -> tuple[Proxy, ...]:
        return self._observed.servers

    @property
    def clusters(self) -> tuple[str, ...]:
        """The client's Envoy clusters that the edge's traffic uses: those seen, else those of its host and port."""
        if self._observed.clusters:
            return tuple(sorted(self._observed.clusters))
        found: set[str] = set()
        for proxy in self.client_proxies:
            if isinstance(proxy.config, Unavailable):
                continue
            for cluster in proxy.config.clusters:
                name = cluster_name(cluster.name)
                if name is not None and name.fqdn == self.host and name.port == self.port:
                    found.add(cluster.name)
        return tuple(sorted(found))

    # --- what fails

    @property
    def symptoms(self) -> tuple[Symptom, ...]:
        """Everything that fails on this edge now, both sides."""
        self._facts.note("symptoms")
        return self._observed.symptoms

    @property
    def root_symptoms(self) -> tuple[Symptom, ...]:
        """The symptoms that don't follow from others (deeper calls, or the other side's decision)."""
        return tuple(s for s in self.symptoms if s.id not in self._facts.consequences)

    def on(self, side: str) -> tuple[Symptom, ...]:
        """The symptoms that one side's proxies told: `client` or `server`."""
        return tuple(symptom for symptom in self.symptoms if symptom.side == side)

    def successes(self) -> int:
        """Requests of the window that show no failure."""
        lines = list(self._observed.client_lines.values()) or list(self._observed.server_lines.values())
        self._facts.note("symptoms")
        total = sum(len(group) for group in lines)
        side = "client" if self._observed.client_lines else "server"
        return total - sum(s.count for s in self._observed.symptoms if s.side == side and s.from_log)

    # --- what the proxies hold

    def _walk(self) -> tuple[Walk, ...]:
        found = []
        for proxy in self.client_proxies[:1] or (None,):
            for request in self._requests():
                call = Call(
                    self.client,
                    proxy,
                    self.host,
                    self.port,
                    request,
                    self._server_name(),
                    self._served(),
                    self._entered(),
                )
                found.append(walk(self._facts.whole, call))
        return tuple(found)

    @property
    def walks(self) -> tuple[Walk, ...]:
        """Walks of the failing requests first, then of others seen; a plain GET / where none was seen."""
        self._facts.note("walk")
        return self._facts.walks_of(self._observed.key, self._walk)

    def _requests(self) -> list[HttpRequest | None]:
        found: dict[tuple[str, str, str], HttpRequest | None] = {}
        failing = [e for s in self._observed.symptoms for e in s.entries[-2:]]
        lines = [*self._observed.client_lines.values(), *self._observed.server_lines.values()]
        for entry in [*failing, *(entry for group in lines for entry in group[-20:])]:
            if len(found) >= WALKED_REQUESTS:
                break
            if not entry.method:
                found.setdefault(("", "", ""), None)
                continue
            headers = (("user-agent", entry.user_agent),) if entry.user_agent else ()
            key = (entry.method, entry.authority, entry.path.partition("?")[0])
            found.setdefault(
                key, HttpRequest(entry.method, entry.authority, entry.path, headers, partial=True)
            )
        if not found:
            return [HttpRequest("GET", self._authority(), "/", partial=True, guessed=True)]
        return list(found.values())

    def _served(self) -> tuple[Proxy, int] | None:
        """The server's proxy of the last such call in a log, and the port that it came to."""
        for proxy, lines in self._observed.server_lines.items():
            port = lines[-1].downstream_local_address.rpartition(":")[2] if lines else ""
            if port.isdigit():
                return proxy, int(port)
        return None

    def _entered(self) -> int:
        """The caller's own port that the last such request came to, which says something of gateways only."""
        lines = [entry for group in self._observed.client_lines.values() for entry in group[-1:]]
        port = lines[-1].downstream_local_address.rpartition(":")[2] if lines else ""
        return int(port) if port.isdigit() else 0

    def _server_name(self) -> str | None:
        """The SNI of the last connection in the servers' logs, "" for plaintext, None where no line tells."""
        lines = [entry for group in self._observed.server_lines.values() for entry in group[-1:]]
        return lines[-1].requested_server_name if lines else None

    def _authority(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host

    def predicted(self, *causes: str) -> tuple[Predicted, ...]:
        """The branches of the walks whose first failing hop has one of these causes."""
        found = []
        for one in self.walks:
            for branch in one.branches:
                failure = branch.failure
                if failure is not None and failure.cause in causes:
                    found.append(Predicted(one, branch, failure))
        return tuple(found)

    def passing(self, cause: str) -> tuple[Predicted, ...]:
        """The branches with a hop that names this cause without failing for it (dry run, delay)."""
        return tuple(
            Predicted(one, branch, hop)
            for one in self.walks
            for branch in one.branches
            for hop in branch.hops
            if hop.cause == cause and hop.outcome != "fail"
        )

    def route_with(self, fits: Callable[[RouteAction], bool]) -> RouteFound | None:
        """The first route of the walks, those of failing requests first, whose action fits."""
        for one in self.walks:
            for branch in one.branches:
                hop = branch.at(Stage.ROUTE)
                action = hop.detail.get("action") if hop is not None else None
                if hop is not None and isinstance(action, RouteAction) and fits(action):
                    return RouteFound(action, hop)
        return None

    def client_cluster(self, name: str) -> Cluster | None:
        """The client's Envoy cluster of this name."""
        for proxy in self.client_proxies:
            config = self._facts.config(proxy)
            if config is not None and (found := config.clusters.get(name)) is not None:
                return found
        return None

    def holding(self, name: str, what: str) -> Evidence | None:
        """As evidence: `what` stands in the client's Envoy cluster of this name; None where no proxy has it."""
        for proxy in self.client_proxies:
            config = self._facts.config(proxy)
            if config is not None and config.clusters.get(name) is not None:
                return Evidence(f"proxy {proxy.id}", f"{proxy.path(Part.CONFIG_DUMP)}: cluster {name}", what)
        return None

    def hosts(self) -> Iterator[tuple[Proxy, ClusterStatus]]:
        """The clusters of this edge with their hosts, as each client proxy's /clusters shows them."""
        self._facts.note("hosts")
        for proxy in self.client_proxies:
            if isinstance(proxy.clusters, Unavailable):
                continue
            for name in self.clusters:
                status = proxy.clusters.get(name)
                if status is not None:
                    yield proxy, status

    # --- what counters did

    def client_moved(self, *stats: str) -> tuple[Moved, ...]:
        """Counters of the edge's clusters at the client that moved, of those named."""
        self._facts.note("counters")
        return tuple(
            Moved(proxy, "cluster", name, stat, by)
            for proxy in self.client_proxies
            if proxy.moved is not None
            for name in self.clusters
            for stat in stats
            if (by := proxy.moved.get("cluster", name, stat) or 0) > 0
        )

    def client_http_moved(self, *stats: str) -> tuple[Moved, ...]:
        """Counters of the client's outbound connection manager for this port that moved, of those named.

        They count all hosts of the port together.
        """
        self._facts.note("counters")
        return tuple(
            Moved(proxy, "http", name, stat, by)
            for proxy in self.client_proxies
            if proxy.moved is not None
            for stat in stats
            for name, by in proxy.moved.find("http", stat).items()
            if by > 0 and name.startswith("outbound") and name.endswith((f"_{self.port}", f":{self.port}"))
        )

    def server_moved(self, scope: str, *stats: str) -> tuple[Moved, ...]:
        """Counters at the servers' proxies that moved, in any object of the scope (`listener`, `http`, `tcp`, …).

        What those proxies count of their own calls is left out.
        """
        self._facts.note("counters")
        return tuple(
            Moved(proxy, scope, name, stat, by)
            for proxy in self.server_proxies
            if proxy.moved is not None
            for stat in stats
            for name, by in proxy.moved.find(scope, stat).items()
            if by > 0 and not (scope == "http" and name.startswith("outbound"))
        )

    def server_counts(self, *stats: tuple[str, str]) -> bool:
        """Whether some server's proxy was sampled twice and shows one of these (scope, counter), moved or not."""
        self._facts.note("counters")
        return any(
            proxy.stats.find(scope, stat)
            for proxy in self.server_proxies
            if proxy.moved is not None and not isinstance(proxy.stats, Unavailable)
            for scope, stat in stats
        )

    def server_moved_ending(self, scope: str, ending: str) -> tuple[Moved, ...]:
        """Counters at the servers' proxies that moved and whose name ends so, for those whose prefix users choose."""
        self._facts.note("counters")
        return tuple(
            Moved(proxy, scope, name, stat, by)
            for proxy in self.server_proxies
            if proxy.moved is not None
            for found, name, stat, by in proxy.moved
            if found == scope and by > 0 and stat.endswith(ending)
        )

    @property
    def observable(self) -> bool:
        """Whether some proxy of this edge gave an access log in which a failure would show."""
        self._facts.note("symptoms")
        asked = (*self.client_proxies, *self.server_proxies)
        return any(not isinstance(p.log, Unavailable) and p.log.entries for p in asked)

    @property
    def is_tcp(self) -> bool:
        """Whether the mesh carries this edge as plain TCP: by its log lines, else by the walk's listener."""
        lines = [entry for group in self._observed.client_lines.values() for entry in group[-5:]]
        self._facts.note("symptoms")
        if lines:
            return all(not entry.method for entry in lines)
        listeners = [branch.at(Stage.OUTBOUND_LISTENER) for one in self.walks for branch in one.branches]
        return any(hop is not None and hop.detail.get("http") is False for hop in listeners)

    @property
    def idle(self) -> bool:
        """Whether nobody saw a call on this edge: the walk alone can say what would become of one."""
        return self._observed.idle

    @property
    def client_seen(self) -> bool:
        """Whether the log of some proxy of the caller shows its requests."""
        self._facts.note("symptoms")
        return bool(self._observed.client_lines)

    @property
    def server_seen(self) -> bool:
        """Whether the log of some proxy that serves this edge shows its requests."""
        self._facts.note("symptoms")
        return bool(self._observed.server_lines)

    def received(self, fits: Callable[[AccessLogEntry], bool]) -> tuple[tuple[Proxy, AccessLogEntry], ...]:
        """The lines of the servers' logs that fit, of the window."""
        self._facts.note("log")
        return tuple(
            (proxy, entry)
            for proxy, lines in self._observed.server_lines.items()
            for entry in lines
            if fits(entry)
        )

    @property
    def client_subject(self) -> ObjectRef:
        """The calling workload, as a finding's subject."""
        return self.client.ref

    @property
    def server_subject(self) -> ObjectRef:
        """What is called, as a finding's subject: the Service where the host is one's, else the host by name."""
        self._facts.note("kubernetes")
        name = service_host(self.host)
        return (
            ObjectRef("Service", name.service, name.namespace)
            if name is not None
            else ObjectRef("Host", self.host)
        )

    @property
    def client_log_missing(self) -> bool:
        """Whether the caller has proxies, and none of them gave its log."""
        self._facts.note("symptoms")
        return bool(self.client_proxies) and all(isinstance(p.log, Unavailable) for p in self.client_proxies)


class Facts:
    """The mesh for one rule. `touched` holds the names of the inputs that were read."""

    def __init__(self, shared: SharedFacts) -> None:
        self._shared = shared
        self.touched: set[str] = set()

    def note(self, name: str) -> None:
        self.touched.add(name)

    @property
    def whole(self) -> Mesh:
        """The mesh itself, for walks; rules use the named accessors instead."""
        return self._shared.mesh

    @property
    def captured_at(self) -> datetime:
        """The moment at which ages are judged."""
        return self._shared.mesh.captured_at

    @property
    def require_mtls(self) -> bool:
        """Whether the user wants permitted plaintext to count as a warning."""
        return self._shared.require_mtls

    def walks_of(self, key: EdgeKey, make: Callable[[], tuple[Walk, ...]]) -> tuple[Walk, ...]:
        """An edge's walks, made by the first rule that asks for them."""
        if key not in self._shared.walks:
            self._shared.walks[key] = make()
        return self._shared.walks[key]

    def unseen_caller(self, proxy: Proxy, port: int) -> Walk:
        """What a caller would meet at a proxy's port whom no log shows: in plaintext, with an unknown request."""
        self.note("walk")
        host, number = next(iter(served_hosts(self.whole, proxy, port)), (str(proxy.workload), port))
        request = HttpRequest("GET", host, "/", partial=True, guessed=True)
        return walk(self.whole, Call(OUTSIDE, None, host, number, request, "", (proxy, port)))

    @cached_property
    def edges(self) -> tuple[EdgeFacts, ...]:
        """The edges in question, those with traffic; in a stable order."""
        return tuple(EdgeFacts(self, observed) for observed in self._shared.observed)

    @property
    def consequences(self) -> dict[str, frozenset[str]]:
        return self._shared.consequences

    @property
    def objects(self) -> Objects:
        self.note("kubernetes")
        return self._shared.mesh.objects

    @property
    def has_kubernetes(self) -> bool:
        self.note("kubernetes")
        return self._shared.mesh.has_kubernetes

    @property
    def proxies(self) -> tuple[Proxy, ...]:
        """The proxies in question."""
        return self._shared.proxies

    def config(self, proxy: Proxy) -> ConfigDump | None:
        self.note("config")
        return None if isinstance(proxy.config, Unavailable) else proxy.config

    def messages(self, proxy: Proxy) -> tuple[EnvoyMessage, ...]:
        """Envoy's own log messages of this proxy, within the window."""
        self.note("log")
        return () if isinstance(proxy.log, Unavailable) else self._shared.recent(proxy.log.messages)

    def logs_nothing(self, proxy: Proxy) -> bool:
        """Whether the proxy's log couldn't be read."""
        self.note("symptoms")
        return isinstance(proxy.log, Unavailable)

    def moved(self, proxy: Proxy, scope: str, stat: str) -> dict[str, Moved]:
        """By object: the counter `stat` where it moved between the two samples."""
        self.note("counters")
        if proxy.moved is None:
            return {}
        return {
            name: Moved(proxy, scope, name, stat, by)
            for name, by in proxy.moved.find(scope, stat).items()
            if by > 0
        }

    def moved_named(self, proxy: Proxy, scope: str, fits: Callable[[str], bool]) -> tuple[Moved, ...]:
        """The counters of a scope that moved and whose names fit: for names that hold another object's."""
        self.note("counters")
        return tuple(
            Moved(proxy, scope, name, stat, by)
            for found, name, stat, by in (proxy.moved or ())
            if found == scope and by > 0 and fits(stat)
        )

    def gauges(self, proxy: Proxy, scope: str, fits: Callable[[str], bool]) -> dict[str, float]:
        """The current states of a scope whose names fit."""
        self.note("counters")
        stats = () if isinstance(proxy.stats, Unavailable) else proxy.stats
        return {stat: value for found, _, stat, value in stats if found == scope and fits(stat)}

    def gauge(self, proxy: Proxy, scope: str, name: str, stat: str) -> float | None:
        """A current state; totals of counters are no evidence of anything now."""
        self.note("counters")
        return None if isinstance(proxy.stats, Unavailable) else proxy.stats.get(scope, name, stat)

    def sync(self, proxy: Proxy) -> ProxySync | None:
        """What istiod says of this proxy, None where no istiod was asked or none knows it."""
        self.note("sync")
        return self._shared.mesh.sync.get(f"{proxy.id.pod}.{proxy.id.namespace}")

    def dead_ends(self, proxy: Proxy) -> tuple[DeadEnd, ...]:
        """Where requests can end in this proxy's own route tables."""
        self.note("walk")
        return tuple(dead_ends(self._shared.mesh, proxy))

    def host(self, service: KubernetesObject) -> str:
        """The Service's host name in full."""
        return self._shared.mesh.fqdn(service.ref)

    def endpoints_elsewhere(self, asking: Iterable[Proxy], cluster: str) -> tuple[frozenset[str], ...]:
        """What the other proxies in question hold for a cluster, one set of addresses each; those without it left out."""
        found = []
        asking = tuple(asking)
        for proxy in self.proxies:
            config = self.config(proxy) if proxy not in asking else None
            assignment = config.endpoints.get(cluster) if config is not None else None
            sockets = (
                [e.endpoint.address.socket_address for e in assignment.all()]
                if assignment is not None
                else []
            )
            if addresses := frozenset(str(socket) for socket in sockets if socket is not None):
                found.append(addresses)
        return tuple(found)

    def template_labels(self, namespace: str) -> tuple[dict[str, str], ...]:
        """The labels that the workloads of a namespace put on their pods."""
        self.note("kubernetes")
        return tuple(
            strings(found.spec.get("template", {}).get("metadata", {}).get("labels"))
            for kind in ("Deployment", "StatefulSet", "DaemonSet")
            for found in self._shared.mesh.objects.of(kind, namespace=namespace)
            if isinstance(found.spec.get("template"), dict)
            and isinstance(found.spec["template"].get("metadata"), dict)
        )

    @property
    def unread_sidecars(self) -> bool:
        """Whether some sidecar runs that the source has nothing of: what it asks for isn't known."""
        self.note("kubernetes")
        mesh = self._shared.mesh
        return any(
            ProxyId(pod.metadata.namespace, pod.metadata.name) not in mesh.proxies
            for pod in mesh.objects.pods
            if not finished(pod) and mesh.objects.has_proxy(pod) in {"istio", "both"}
        )

    def workload(self, proxy: Proxy) -> ObjectRef:
        return self._shared.mesh.workload_of(proxy).ref

    def told_at(self, addresses: Iterable[str]) -> tuple[Symptom, ...]:
        """What fails on any edge by the word of the serving proxies at these addresses (IP:PORT)."""
        found = {self._shared.mesh.proxy_at(address.rpartition(":")[0].strip("[]")) for address in addresses}
        told = {proxy.id for proxy in found if proxy is not None}
        return tuple(s for edge in self.edges for s in edge.on("server") if s.proxy in told)

    def workload_at(self, address: str) -> WorkloadId:
        """The workload with this address (with or without port)."""
        ip = address.rpartition(":")[0] if address.count(":") == 1 else address
        return self._shared.mesh.workload_at(ip.strip("[]"))


class SharedFacts(msgspec.Struct, frozen=True):
    """What all rules share: computed once, read by each through its own Facts."""

    mesh: Mesh
    observed: tuple[ObservedEdge, ...]
    consequences: dict[str, frozenset[str]]
    proxies: tuple[Proxy, ...]
    window_s: float
    require_mtls: bool = False
    walks: dict[EdgeKey, tuple[Walk, ...]] = msgspec.field(default_factory=dict)

    def recent(self, messages: tuple[EnvoyMessage, ...]) -> tuple[EnvoyMessage, ...]:
        at = self.mesh.captured_at
        return tuple(
            m for m in messages if m.time is not None and (at - m.time).total_seconds() <= self.window_s
        )


def symptom_evidence(symptom: Symptom) -> Evidence:
    """A symptom as evidence: the last line of its kind, or the counter that moved, and how many there were."""
    part = Part.LOG if symptom.from_log else Part.METRICS
    path = f"proxies/{symptom.proxy.namespace}/{symptom.proxy.pod}/{part.value}"
    if symptom.example is None:
        stat = ".".join(symptom.stat or ())
        return Evidence(f"proxy {symptom.proxy}", path, f"{stat} +{symptom.count} since the earlier sample")
    where = f"{path} line {symptom.example.number}"
    return Evidence(f"proxy {symptom.proxy}", where, f"{symptom.count}×: {told(symptom.example)}")


def line_evidence(proxy: Proxy, entry: AccessLogEntry, count: int) -> Evidence:
    """One line of a proxy's log that stands for `count` like it."""
    where = f"{proxy.path(Part.LOG)} line {entry.number}"
    return Evidence(f"proxy {proxy.id}", where, f"{count}×: {told(entry)}")


def told(entry: AccessLogEntry) -> str:
    """The telling fields of a line in the order of Istio's text format: a JSON line is four times as long."""
    at = entry.start_time.strftime("%H:%M:%S.%f")[:-3] if entry.start_time else "-"
    what = f'"{entry.method} {entry.path}"' if entry.method else "TCP"
    flags = ",".join(sorted(entry.response_flags)) or "-"
    parts = [at, what, str(entry.response_code), flags, entry.response_code_details]
    parts += [entry.connection_termination_details, entry.upstream_transport_failure_reason]
    if not entry.upstream_cluster.startswith("inbound|"):
        parts += [entry.upstream_cluster, f"host={entry.upstream_host or '-'}"]
    if entry.requested_server_name:
        parts.append(f"SNI={entry.requested_server_name}")
    return " ".join(part for part in parts if part)
