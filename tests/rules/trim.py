"""Cuts a rule's case out of a captured bundle: the proxies, resources, lines and objects that one failure needs.

    python -m tests.rules.trim BUNDLE TARGET --proxies bookinfo/client bookinfo/productpage [--lines 4] [--hosts …]

A proxy is NAMESPACE/POD or a prefix of it. What the diagnosis says before and after is printed: a case that lost its
finding was cut too small.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from meshscope.diagnose.diagnose import diagnose, gather
from meshscope.envoy.access_log import AccessLogEntry, read_log
from meshscope.facts.edges import DEFAULT_WINDOW_S, ObservedEdge
from meshscope.facts.mesh import Mesh
from meshscope.facts.proxy import Proxy
from meshscope.facts.symptoms import fails, signature
from meshscope.istio.names import cluster_name
from meshscope.model.findings import Unavailable
from meshscope.sources.bundle import open_bundle

Json = dict[str, Any]
HEALTHY_LINES = 2
MESSAGE_LINES = 4
POLICIES = frozenset(
    [
        "AuthorizationPolicy",
        "DestinationRule",
        "EnvoyFilter",
        "Gateway",
        "PeerAuthentication",
        "ProxyConfig",
        "RequestAuthentication",
        "ServiceEntry",
        "Sidecar",
        "Telemetry",
        "VirtualService",
        "WorkloadEntry",
        "WorkloadGroup",
    ]
)
_UNREAD_IN_CONTAINERS = frozenset(
    [
        "args",
        "command",
        "env",
        "envFrom",
        "imagePullPolicy",
        "lifecycle",
        "resources",
        "securityContext",
        "terminationMessagePath",
        "terminationMessagePolicy",
        "volumeMounts",
    ]
)
_UNREAD_IN_PODS = frozenset(
    ["volumes", "tolerations", "affinity", "dnsPolicy", "enableServiceLinks", "securityContext"]
)
_UNREAD_IN_MANAGERS = frozenset({"access_log", "tracing", "upgrade_configs", "request_id_extension"})


class Cut:
    """What of a bundle is kept: proxies, the hosts (with port) of their edges, and what follows from both."""

    def __init__(self, bundle: Path, proxies: list[str], hosts: list[str], lines: int) -> None:
        source = open_bundle(bundle)
        self.mesh = Mesh(source)
        self.bundle, self.lines = bundle, lines
        self.proxies = [
            p for p in self.mesh.proxies.values() if any(str(p.id).startswith(n) for n in proxies)
        ]
        edges = gather(self.mesh, None, None, DEFAULT_WINDOW_S).observed
        self.edges = [edge for edge in edges if self._wanted(edge, hosts)]
        self.hosts = {(edge.key.host, edge.key.port) for edge in self.edges}
        self.hosts |= {(host, int(port)) for host, _, port in (name.rpartition(":") for name in hosts)}

    def _wanted(self, edge: ObservedEdge, hosts: list[str]) -> bool:
        """The edges named, else those that fail between the proxies kept."""
        if hosts:
            return f"{edge.key.host}:{edge.key.port}" in hosts
        concerned = any(proxy in self.proxies for proxy in (*edge.clients, *edge.servers))
        callers = not edge.clients or any(proxy in self.proxies for proxy in edge.clients)
        return concerned and callers and bool(edge.symptoms)

    def calls(self, proxy: Proxy) -> bool:
        return any(proxy in edge.clients for edge in self.edges) or not self.serves(proxy)

    def serves(self, proxy: Proxy) -> bool:
        return any(proxy in edge.servers for edge in self.edges)

    def ports(self, proxy: Proxy) -> set[int]:
        """The pod's ports that the hosts lead to."""
        config = proxy.config
        found = {port for _, port in self.hosts}
        for other in self.mesh.proxies.values():
            if isinstance(other.config, Unavailable):
                continue
            for assignment in other.config.endpoints:
                if self.cluster(assignment.cluster_name):
                    sockets = [endpoint.endpoint.address.socket_address for endpoint in assignment.all()]
                    found |= {socket.port_value for socket in sockets if socket is not None}
        return found if not isinstance(config, Unavailable) else set()

    def cluster(self, name: str) -> bool:
        """Whether an outbound cluster is of a host that is kept."""
        parsed = cluster_name(name)
        return (
            parsed is not None and parsed.direction == "outbound" and (parsed.fqdn, parsed.port) in self.hosts
        )

    def keeps_cluster(self, proxy: Proxy, name: str) -> bool:
        parsed = cluster_name(name)
        if parsed is not None and parsed.direction == "inbound":
            return self.serves(proxy) and parsed.port in self.ports(proxy)
        if name in {"PassthroughCluster", "BlackHoleCluster"}:
            return True
        return (self.calls(proxy) and self.cluster(name)) or self.asked(name)

    def asked(self, name: str) -> bool:
        """Whether a cluster is of a host that was named and that no kept edge calls: one that proxies ask by themselves."""
        parsed = cluster_name(name)
        called = {(edge.key.host, edge.key.port) for edge in self.edges}
        return self.cluster(name) and parsed is not None and (parsed.fqdn, parsed.port) not in called


# --- the proxy's answers --------------------------------------------------------------------------------------


def config_dump(cut: Cut, proxy: Proxy, dump: Json) -> Json:
    for section in dump["configs"]:
        match section["@type"].rpartition(".")[2]:
            case "BootstrapConfigDump":
                section["bootstrap"] = {"node": _node(section["bootstrap"])}
            case "ClustersConfigDump":
                _clusters(cut, proxy, section)
            case "EndpointsConfigDump":
                _endpoints(cut, proxy, section)
            case "ListenersConfigDump":
                _listeners(cut, proxy, section)
            case "RoutesConfigDump":
                _routes(cut, proxy, section)
    return dump


def _node(holder: Json) -> Json:
    """A node without the list of every extension that was compiled in."""
    return {key: holder.get("node", {}).get(key) for key in ("id", "cluster", "metadata")}


def _clusters(cut: Cut, proxy: Proxy, section: Json) -> None:
    section.pop("static_clusters", None)
    for key in ("dynamic_active_clusters", "dynamic_warming_clusters"):
        if key in section:
            section[key] = [
                c for c in section[key] if cut.keeps_cluster(proxy, c.get("cluster", {}).get("name", ""))
            ]


def _endpoints(cut: Cut, proxy: Proxy, section: Json) -> None:
    for key in ("static_endpoint_configs", "dynamic_endpoint_configs"):
        kept = section.get(key, [])
        section[key] = [
            e for e in kept if cut.keeps_cluster(proxy, e.get("endpoint_config", {}).get("cluster_name", ""))
        ]


def _listeners(cut: Cut, proxy: Proxy, section: Json) -> None:
    section.pop("static_listeners", None)
    kept = []
    for entry in section.get("dynamic_listeners", []):
        name = entry.get("name", "")
        if name == "virtualInbound":
            if cut.serves(proxy):
                for state in ("active_state", "warming_state", "draining_state"):
                    _inbound(cut, proxy, entry.get(state, {}).get("listener", {}))
                kept.append(entry)
        elif not name or name == "virtualOutbound":
            kept += [entry] if cut.calls(proxy) or not name else []
        elif cut.calls(proxy) and name.rpartition("_")[2] in {str(port) for _, port in cut.hosts}:
            kept.append(entry)
    for entry in kept:
        _strip_managers(entry)
    section["dynamic_listeners"] = kept


def _inbound(cut: Cut, proxy: Proxy, listener: Json) -> None:
    ports = cut.ports(proxy)
    chains = listener.get("filter_chains", [])
    own = [c for c in chains if c.get("filter_chain_match", {}).get("destination_port") in ports]
    general = [c for c in chains if "destination_port" not in c.get("filter_chain_match", {})]
    if chains:
        # A port with chains of its own never falls through to the general ones.
        listener["filter_chains"] = own or general


def _strip_managers(node: Any) -> None:
    """Takes away what no decision is read from: where lines are logged, how spans are named."""
    if isinstance(node, dict):
        for key in _UNREAD_IN_MANAGERS & node.keys():
            if key != "access_log" or "filter_chains" not in node:
                del node[key]
        node.pop("access_log", None)
        for value in node.values():
            _strip_managers(value)
    elif isinstance(node, list):
        for value in node:
            _strip_managers(value)


def _routes(cut: Cut, proxy: Proxy, section: Json) -> None:
    section.pop("static_route_configs", None)
    kept = []
    for entry in section.get("dynamic_route_configs", []) if cut.calls(proxy) else []:
        config = entry.get("route_config", {})
        name = str(config.get("name", ""))
        if not any(name in {str(port), f"{host}:{port}"} for host, port in cut.hosts):
            continue
        names = {f"{host}:{port}" for host, port in cut.hosts}
        config["virtual_hosts"] = [
            v
            for v in config.get("virtual_hosts", [])
            if v.get("name") in names or "*" in v.get("domains", [])
        ]
        kept.append(entry)
    section["dynamic_route_configs"] = kept


def clusters(cut: Cut, proxy: Proxy, answer: Json) -> Json:
    answer["cluster_statuses"] = [
        status
        for status in answer.get("cluster_statuses", [])
        if cut.keeps_cluster(proxy, status.get("name", ""))
    ]
    return answer


_CLUSTER = re.compile(r'cluster_name="([^"]*)"')
_UNREAD_STATISTICS = re.compile(
    r"_ssl_(ciphers|curves|sigalgs|versions)_|_worker_|_admin_|_server_(?!live|state)|_bytes_(?!total)|_tx_bytes_|"
    r"_(version|length)$|"
    r"_(update|reload)_time|_config_reload|_external_upstream_|^envoy_(filesystem|runtime|proxy_proto|http_async|"
    r"http_inspector|tls_inspector|http_tracing|listener_http|dns|main_thread|thread_local|http_rds_)|_(bucket|sum|count)$"
)


_TELLING_AT_0 = frozenset({"envoy_control_plane_connected_state"})
"""Current states whose 0 is the news."""


def metrics(cut: Cut, proxy: Proxy, samples: dict[str, str]) -> dict[str, str]:
    """The statistics of what is kept that aren't 0 in every sample; histograms and Istio's own metrics are left out."""
    alive: set[str] = set()
    for text in samples.values():
        for line in text.splitlines():
            name, _, value = line.rpartition(" ")
            told = value not in {"0", ""} or name.partition("{")[0] in _TELLING_AT_0
            if told and not line.startswith("#") and _relevant(cut, proxy, name):
                alive.add(name)
    types = {name.partition("{")[0] for name in alive}
    found = {}
    for file, text in samples.items():
        lines = [
            line
            for line in text.splitlines()
            if line.rpartition(" ")[0] in alive or (line.startswith("# TYPE ") and line.split()[2] in types)
        ]
        found[file] = "\n".join(lines) + "\n"
    return found


def _relevant(cut: Cut, proxy: Proxy, name: str) -> bool:
    family = name.partition("{")[0]
    if not family.startswith("envoy_") or _UNREAD_STATISTICS.search(family):
        return False
    cluster = _CLUSTER.search(name)
    if cluster is not None:
        return cluster[1] == "xds-grpc" or cut.keeps_cluster(proxy, cluster[1])
    return True


def log(cut: Cut, proxy: Proxy, raw: bytes) -> bytes:
    """The last failing lines of each kind, the last healthy ones before them, and Envoy's own last messages."""
    read = read_log(raw)
    ours = {
        entry.number
        for edge in cut.edges
        for lines in (edge.client_lines.get(proxy, []), edge.server_lines.get(proxy, []))
        for entry in lines
    }
    entries = [entry for entry in read.entries if entry.number in ours]
    failing = [entry for entry in entries if fails(entry)]
    kept = {entry.number for group in _by_kind(failing) for entry in group[-cut.lines :]}
    last = max(kept, default=0)
    healthy = [entry for entry in entries if not fails(entry)]
    before = [entry for entry in healthy if entry.number < last]
    kept |= {entry.number for entry in (before or healthy)[-HEALTHY_LINES:]}
    kept |= {
        message.number for message in read.messages[-MESSAGE_LINES:] if "REST update" not in message.text
    }
    lines = raw.splitlines(keepends=True)
    return b"".join(line for number, line in enumerate(lines, 1) if number in kept)


def _by_kind(entries: Iterable[AccessLogEntry]) -> Iterator[list[AccessLogEntry]]:
    groups: dict[tuple[str, ...], list[AccessLogEntry]] = {}
    for entry in entries:
        groups.setdefault((entry.upstream_cluster, *signature(entry)), []).append(entry)
    yield from groups.values()


# --- Kubernetes -----------------------------------------------------------------------------------------------


def kubernetes(cut: Cut, bundle: Path) -> list[Json]:
    items = [item for path in sorted((bundle / "kubernetes").glob("*")) for item in _items(path)]
    pods = {str(proxy.id) for proxy in cut.proxies}
    services = set()
    scaled: set[tuple[str, str]] = set()  # Workloads count without pods, too.
    for host, _ in cut.hosts:
        service = cut.mesh.objects.service_of_host(host)
        if service is not None:
            services.add((service.metadata.namespace, service.metadata.name))
            scaled |= {(ref.namespace, ref.name) for ref in cut.mesh.workloads_selected(service)}
            pods |= {
                f"{pod.metadata.namespace}/{pod.metadata.name}"
                for pod in cut.mesh.objects.pods_selected(service)
            }
    for edge in cut.edges:
        for identity in cut.mesh.workloads.get(edge.key.client, ()):
            pods.add(str(identity))
    owners = {
        (pod.metadata.namespace, owner.name)
        for pod in cut.mesh.objects.pods
        if f"{pod.metadata.namespace}/{pod.metadata.name}" in pods
        for owner in pod.metadata.ownerReferences
    }
    owners |= {(namespace, name.rpartition("-")[0]) for namespace, name in owners}
    return [_bare(item) for item in items if _kept(item, pods, services, owners | scaled)]


def _kept(item: Json, pods: set[str], services: set[tuple[str, str]], owners: set[tuple[str, str]]) -> bool:
    kind, metadata = item.get("kind", ""), item.get("metadata", {})
    identity = (metadata.get("namespace", ""), metadata.get("name", ""))
    if kind == "Pod":
        return "/".join(identity) in pods
    if kind in {"Service", "Endpoints"}:
        return identity in services
    if kind == "EndpointSlice":
        return (identity[0], metadata.get("labels", {}).get("kubernetes.io/service-name", "")) in services
    if kind in {"ReplicaSet", "Deployment", "StatefulSet", "DaemonSet"}:
        return identity in owners
    if kind == "Namespace":
        return True
    return kind in POLICIES or (
        kind == "ConfigMap" and identity[1].startswith("istio") and "mesh" in item.get("data", {})
    )


def _items(path: Path) -> Iterator[Json]:
    for document in yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader):
        if document:
            yield from document.get("items", [document])


def _bare(item: Json) -> Json:
    metadata = item.get("metadata", {})
    metadata.pop("managedFields", None)
    for noise in ("kubectl.kubernetes.io/last-applied-configuration", "sidecar.istio.io/status"):
        metadata.get("annotations", {}).pop(noise, None)
    template = item.get("spec", {}).get("template", {}) if item.get("kind") != "Pod" else item
    spec = template.get("spec", {}) if isinstance(template, dict) else {}
    for key in _UNREAD_IN_PODS:
        spec.pop(key, None)
    for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
        for key in _UNREAD_IN_CONTAINERS:
            container.pop(key, None)
    return item


# --- the bundle -----------------------------------------------------------------------------------------------


def trim(bundle: Path, target: Path, proxies: list[str], hosts: list[str], lines: int) -> Cut:
    """Writes the small bundle to the new directory `target`."""
    cut = Cut(bundle, proxies, hosts, lines)
    target.mkdir(parents=True)
    for proxy in cut.proxies:
        _proxy(cut, proxy, target / "proxies" / proxy.id.namespace / proxy.id.pod)
    objects = kubernetes(cut, bundle)
    if objects:
        (target / "kubernetes").mkdir()
        text = yaml.dump_all(objects, Dumper=yaml.CSafeDumper, sort_keys=True)
        (target / "kubernetes" / "objects.yaml").write_text(text)
    names = {f"{proxy.id.pod}.{proxy.id.namespace}" for proxy in cut.proxies}
    for path in sorted(bundle.glob("istiod/*/syncz.json")):
        answer = json.loads(path.read_bytes())
        if isinstance(answer, list):
            answer = [status for status in answer if status.get("proxy") in names]
        copy = target / path.relative_to(bundle)
        copy.parent.mkdir(parents=True)
        _write(copy, answer)
    about = json.loads((bundle / "bundle.json").read_bytes())
    about["samples"] = {name: at for name, at in about.get("samples", {}).items() if (target / name).exists()}
    _write(target / "bundle.json", about)
    return cut


def _proxy(cut: Cut, proxy: Proxy, target: Path) -> None:
    source = cut.bundle / "proxies" / proxy.id.namespace / proxy.id.pod
    target.mkdir(parents=True)
    for name, change in (
        ("config_dump.json", config_dump),
        ("clusters.json", clusters),
        ("before.clusters.json", clusters),
    ):
        if (source / name).exists():
            _write(target / name, change(cut, proxy, json.loads((source / name).read_bytes())))
    if (source / "server_info.json").exists():
        info = json.loads((source / "server_info.json").read_bytes())
        info.pop("command_line_options", None)
        info["node"] = _node(info)
        _write(target / "server_info.json", info)
    samples = {name: source / name for name in ("before.prom", "metrics.prom") if (source / name).exists()}
    for name, text in metrics(cut, proxy, {name: path.read_text() for name, path in samples.items()}).items():
        (target / name).write_text(text)
    if (source / "proxy.log").exists():
        (target / "proxy.log").write_bytes(log(cut, proxy, (source / "proxy.log").read_bytes()))


def _write(path: Path, answer: Any) -> None:
    path.write_text(json.dumps(answer, separators=(",", ":")) + "\n")


def verdict(bundle: Path) -> str:
    source = open_bundle(bundle)
    try:
        report = diagnose(Mesh(source))
    finally:
        source.close()
    found = [
        f"{finding.severity} {finding.code} {finding.cause} {finding.confidence}"
        for finding in report.findings
    ]
    return "; ".join(found) or "no finding"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("target", type=Path, help="a new directory; an old one is replaced")
    parser.add_argument("--proxies", nargs="+", required=True, help="NAMESPACE/POD or how it begins")
    parser.add_argument(
        "--hosts", nargs="+", default=[], help="FQDN:PORT; else those that the proxies fail to call"
    )
    parser.add_argument("--lines", type=int, default=4, help="failing log lines of each kind")
    chosen = parser.parse_args()
    shutil.rmtree(chosen.target, ignore_errors=True)
    cut = trim(chosen.bundle, chosen.target, chosen.proxies, chosen.hosts, chosen.lines)
    sizes: Counter[str] = Counter()
    for path in chosen.target.rglob("*"):
        if path.is_file():
            sizes[path.name] += path.stat().st_size
    kept = ", ".join(f"{host}:{port}" for host, port in sorted(cut.hosts)) or "no edge"
    told = (
        f"{sum(sizes.values()) / 1024:.0f} KiB: {', '.join(f'{n} {s}' for n, s in sizes.most_common(5))}",
        f"kept:   {kept}",
        f"before: {verdict(chosen.bundle)}",
        f"after:  {verdict(chosen.target)}",
    )
    sys.stdout.write("\n".join(told) + "\n")


if __name__ == "__main__":
    main()
