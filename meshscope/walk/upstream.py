"""The client's side of the walk: the cluster a route leads to and the endpoints behind it."""

from __future__ import annotations

import msgspec

from meshscope.envoy.clusters import HostStatus
from meshscope.envoy.config_dump import Cluster, LbEndpoint
from meshscope.envoy.outliers import panics
from meshscope.facts.mesh import Mesh
from meshscope.facts.proxy import Proxy
from meshscope.istio.kubernetes import dicts, pod_ips, strings
from meshscope.istio.names import cluster_name, metadata_object
from meshscope.model.findings import Evidence, Unavailable
from meshscope.model.kubernetes import KubernetesObject
from meshscope.model.names import ObjectRef
from meshscope.sources.source import Part
from meshscope.walk.hops import Hop, Outcome, Stage

DNS_TYPES = frozenset({"STRICT_DNS", "LOGICAL_DNS"})
"""Clusters whose endpoints the proxy finds by resolving names itself."""


class Target(msgspec.Struct, frozen=True):
    """An endpoint a request can be sent to. `pod` and `server` are None where nothing known has the address."""

    address: str
    port: int
    tls_mode: str = ""
    weight: int = 1
    pod: KubernetesObject | None = None
    server: Proxy | None = None
    stale: str = ""
    """What Kubernetes lists instead, where it doesn't list this address for the Service's port at all."""
    port_moved: bool = False
    """Whether Kubernetes lists the same pod with another port: no rollout between two reads makes that."""


def cluster(mesh: Mesh, client: Proxy, name: str) -> tuple[Cluster | None, Hop]:
    """The named cluster of the client's proxy; None with the failing (or unknowing) hop where there is none."""
    config = client.config
    assert not isinstance(config, Unavailable)
    found = config.clusters.get(name)
    where = f"cluster {name}"
    if found is not None:
        limits = found.thresholds()
        return found, Hop(
            Stage.CLUSTER,
            "pass",
            f"{name}, {found.lb_policy.lower().replace('_', ' ')}",
            client.id,
            where,
            metadata_object(found.metadata.istio()),
            detail={"limits": limits, "outlier": found.outlier_detection},
        )
    if not config.has_clusters:
        return None, Hop(Stage.CLUSTER, "unknown", "the dump has no clusters", client.id, where)
    parsed = cluster_name(name)
    cause, why = "route-to-unknown-host", f"the route leads to {name}, a cluster this proxy doesn't have"
    if (
        parsed is not None
        and parsed.subset
        and any(_same_host(parsed.fqdn, parsed.port, c) for c in config.clusters)
    ):
        cause, why = (
            "subset-not-defined",
            f"no DestinationRule defines the subset {parsed.subset} of {parsed.fqdn}",
        )
    evidence = (
        Evidence(f"proxy {client.id}", f"{client.path(Part.CONFIG_DUMP)}: clusters", f"no cluster {name}"),
    )
    return None, Hop(Stage.CLUSTER, "fail", why, client.id, where, cause=cause, evidence=evidence)


def _same_host(fqdn: str, port: int, candidate: Cluster) -> bool:
    name = cluster_name(candidate.name)
    return name is not None and name.fqdn == fqdn and name.port == port


def usable(host: HostStatus) -> bool:
    """Whether Envoy's load balancer would choose this host (outside panic)."""
    return not (
        host.failed_outlier_check
        or host.failed_active_health_check
        or host.eds_health_status in {"UNHEALTHY", "DRAINING", "TIMEOUT"}
    )


def targets(mesh: Mesh, client: Proxy, of: Cluster) -> tuple[tuple[Target, ...], Hop]:
    """Endpoints the cluster's load balancer would choose from; none with the reason in the hop."""
    config = client.config
    assert not isinstance(config, Unavailable)
    where = f"cluster {of.name} / endpoints"
    if of.type == "ORIGINAL_DST" or of.name in {"PassthroughCluster", "BlackHoleCluster"}:
        return (), _special(client, of, where)
    service_name = of.eds_cluster_config.service_name if of.eds_cluster_config else ""
    assignment = (
        of.load_assignment or config.endpoints.get(service_name or of.name) or config.endpoints.get(of.name)
    )
    endpoints = list(assignment.all()) if assignment is not None else []
    hosts = _hosts(client, of.name)
    if of.type in DNS_TYPES and hosts is not None:
        endpoints = []  # These are names; what they resolve to is in /clusters.
    by_address = {host.address: host for host in hosts or ()}
    panic = panics(of, hosts or ())
    found: list[Target] = []
    for endpoint in endpoints:
        socket = endpoint.endpoint.address.socket_address
        if socket is None or endpoint.health_status in {"UNHEALTHY", "DRAINING", "TIMEOUT"}:
            continue
        host = by_address.get(str(socket))
        if host is not None and not usable(host) and not panic:
            continue
        found.append(
            _target(
                mesh, socket.address, socket.port_value, endpoint.tls_mode(), endpoint.load_balancing_weight
            )
        )
    found = _with_stale(mesh, client, of, found, {_address(e): e.workload()[4:5] for e in endpoints})
    if not endpoints and hosts:
        for host in hosts:
            address, _, port = host.address.rpartition(":")
            if (panic or usable(host)) and port.isdigit():
                found.append(_target(mesh, address.strip("[]"), int(port), "", host.weight))
    if found and panic:
        return tuple(found), Hop(
            Stage.ENDPOINT,
            "pass",
            "too few endpoints are healthy: the panic threshold sends requests to all of them",
            client.id,
            where,
            cause="panic-mode",
        )
    if found:
        return tuple(found), Hop(
            Stage.ENDPOINT,
            "pass",
            f"{len(found)} of {max(len(endpoints), len(hosts or ()))} endpoints can be chosen",
            client.id,
            where,
        )
    return (), _none_usable(
        mesh, client, of, where, hosts, bool(endpoints), assignment is not None or config.has_endpoints
    )


def _address(endpoint: LbEndpoint) -> str:
    return str(endpoint.endpoint.address.socket_address or "")


def _with_stale(
    mesh: Mesh, client: Proxy, of: Cluster, found: list[Target], clusters: dict[str, tuple[str, ...]]
) -> list[Target]:
    """Marks the targets that Kubernetes doesn't list; those of other clusters it can't list."""
    name = cluster_name(of.name)
    service = mesh.objects.service_of_host(name.fqdn) if name is not None else None
    if name is None or service is None or of.type != "EDS" or not mesh.objects.has_endpoints_of(service):
        return found
    listed = {f"{e.address}:{e.port}" for e in mesh.objects.endpoints(service, name.port)}
    words = f"Kubernetes lists {', '.join(sorted(listed)[:3]) or 'no endpoint'} for {service.ref}"
    here = client.node.cluster_id
    pods = {e.address for e in mesh.objects.endpoints(service, name.port)}
    return [
        target
        if (address := f"{target.address}:{target.port}") in listed
        or (here and clusters.get(address, (here,)) not in ((here,), ()))
        else msgspec.structs.replace(target, stale=words, port_moved=target.address in pods)
        for target in found
    ]


def stale_hop(client: Proxy, target: Target) -> Hop:
    """That the proxy sends requests to an address that isn't the Service's (any more); who answers there isn't known."""
    address = f"{target.address}:{target.port}"
    return Hop(
        Stage.ENDPOINT,
        "unknown",
        f"the proxy holds {address}, {target.stale}",
        client.id,
        f"endpoint {address}",
        cause="proxy-endpoints-stale",
        evidence=(
            Evidence(f"proxy {client.id}", f"{client.path(Part.CONFIG_DUMP)}: endpoints", address),
            Evidence("kubernetes", "EndpointSlice", target.stale),
        ),
        detail={"address": address, "port_moved": target.port_moved},
    )


WALKED_ENDPOINTS = 16
"""So many endpoints of a cluster are walked one by one; of more, one stands for all that are alike."""


def representative(found: tuple[Target, ...]) -> tuple[Target, ...]:
    """The endpoints to walk: all of a few; of many one for each kind of endpoint, with the weight of all of its kind."""
    if len(found) <= WALKED_ENDPOINTS:
        return found
    alike: dict[tuple[str, int, bool, str, str], list[Target]] = {}
    for target in found:
        owner = (
            target.pod.metadata.ownerReferences[0].name
            if target.pod and target.pod.metadata.ownerReferences
            else ""
        )
        alike.setdefault(
            (target.tls_mode, target.port, target.server is None, owner, target.stale), []
        ).append(target)
    return tuple(
        msgspec.structs.replace(group[0], weight=sum(target.weight for target in group))
        for group in alike.values()
    )


def _target(mesh: Mesh, address: str, port: int, tls_mode: str, weight: int) -> Target:
    return Target(address, port, tls_mode, weight, mesh.pod_at(address), mesh.proxy_at(address))


def _special(client: Proxy, of: Cluster, where: str) -> Hop:
    if of.name == "BlackHoleCluster":
        return Hop(
            Stage.ENDPOINT,
            "fail",
            "BlackHoleCluster: the proxy may not call this",
            client.id,
            where,
            cause="registry-only",
        )
    return Hop(
        Stage.ENDPOINT,
        "unknown",
        "sent on to the address the application asked for, outside the mesh's knowledge",
        client.id,
        where,
        detail={"passthrough": True},
    )


def to_a_stranger(mesh: Mesh, hop: Hop, host: str, port: int) -> Hop:
    """The hop that leaves the mesh's knowledge, with what Kubernetes says of the name: perhaps it is mistyped."""
    service = mesh.objects.service_of_host(host)
    if service is None:
        known = f"no Service is called {host}" if mesh.has_kubernetes else ""
    else:
        ports = [str(entry.get("port")) for entry in service.spec.get("ports") or ()]
        lacks = f"the Service {service.metadata.name} has no port {port}, only {', '.join(ports) or 'none'}"
        known = "" if str(port) in ports else lacks
    return msgspec.structs.replace(hop, decision=f"{hop.decision}; {known}") if known else hop


def _hosts(client: Proxy, name: str) -> tuple[HostStatus, ...] | None:
    """The hosts as /clusters shows them, None where that can't be read."""
    statuses = client.clusters
    if isinstance(statuses, Unavailable):
        return None
    status = statuses.get(name)
    return status.hosts if status is not None else None


def _none_usable(
    mesh: Mesh,
    client: Proxy,
    of: Cluster,
    where: str,
    hosts: tuple[HostStatus, ...] | None,
    assigned: bool,
    seen: bool,
) -> Hop:
    source = Evidence(
        f"proxy {client.id}", f"{client.path(Part.CLUSTERS)}: {of.name}", _flags_in_words(hosts or ())
    )

    def failing(cause: str, decision: str, behind: ObjectRef | None = None, outcome: Outcome = "fail") -> Hop:
        known = mesh.has_kubernetes and decision != UNREAD_WORKLOADS
        detail = {"cluster": of.name, "kubernetes": known}
        return Hop(Stage.ENDPOINT, outcome, decision, client.id, where, behind, cause, (source,), detail)

    if hosts:
        if all(host.failed_outlier_check for host in hosts):
            return failing(
                "all-endpoints-ejected",
                "outlier detection has ejected every endpoint",
                metadata_object(of.metadata.istio()),
            )
        if all(host.eds_health_status == "DRAINING" for host in hosts):
            return failing("endpoints-draining", "every endpoint is draining")
        return failing("endpoints-unhealthy", f"no endpoint is healthy{_unready_pods(mesh, hosts)}")
    if assigned:
        return failing("endpoints-unhealthy", "every endpoint is marked unhealthy or draining")
    if not seen and hosts is None:
        return Hop(
            Stage.ENDPOINT,
            "unknown",
            "neither /clusters nor the endpoints of the dump could be read",
            client.id,
            where,
        )
    if of.type in DNS_TYPES:
        return failing("dns-failure", f"{_dns_names(of)} resolves to no address")
    return failing(*_why_empty(mesh, of))


def _dns_names(of: Cluster) -> str:
    endpoints = of.load_assignment.all() if of.load_assignment is not None else ()
    names = [
        e.endpoint.address.socket_address.address for e in endpoints if e.endpoint.address.socket_address
    ]
    return ", ".join(dict.fromkeys(names)) or "the host's name"


UNREAD_WORKLOADS = "the Service's selector matches no pod, and no workload was read that may have none now"


def _why_empty(mesh: Mesh, of: Cluster) -> tuple[str, str, ObjectRef | None]:
    """Why a cluster has no endpoints at all: what Kubernetes says of the Service behind it."""
    name = cluster_name(of.name)
    service = mesh.objects.service_of_host(name.fqdn) if name is not None else None
    if service is None or name is None:
        return "no-endpoints", "it has no endpoint", None
    if not service.spec.get("selector"):
        return "no-endpoints", "nobody lists an endpoint for the Service, which has no selector", service.ref
    rule = metadata_object(of.metadata.istio())
    labels = subset_labels(mesh, of, name.subset) if name.subset else {}
    selected = mesh.objects.pods_selected(service)
    fitting = tuple(pod for pod in selected if _has_labels(pod, labels))
    workloads = mesh.workloads_selected(service)
    if not fitting:
        if not selected and not workloads and not mesh.knows_workloads(service.metadata.namespace):
            return "no-endpoints", UNREAD_WORKLOADS, service.ref
        if not selected and not workloads:
            return "service-selects-no-pods", "the Service's selector matches no workload's pods", service.ref
        if labels and not mesh.workloads_selected(service, labels):
            wanted = ", ".join(f"{key}={value}" for key, value in labels.items())
            return "subset-selects-no-pods", f"no pod of {service.metadata.name} has {wanted}", rule
        behind = ", ".join(workload.name for workload in mesh.workloads_selected(service, labels))
        return (
            "no-endpoints",
            f"{behind or 'the workload'} has no pod: it is scaled to 0 or can't start any",
            service.ref,
        )
    unready = [pod for pod in fitting if not mesh.objects.ready(pod)]
    if len(unready) == len(fitting):
        count = "the only pod is not" if len(fitting) == 1 else f"none of the {len(fitting)} pods is"
        return "no-endpoints", f"{count} ready{_why_unready(unready)}", service.ref
    addresses = {ip for pod in fitting for ip in pod_ips(pod)}
    listed = [e for e in mesh.objects.endpoints(service, name.port) if e.ready and e.address in addresses]
    if listed:
        known = ", ".join(f"{endpoint.address}:{endpoint.port}" for endpoint in listed[:3])
        return "proxy-endpoints-stale", f"Kubernetes lists {known}, this proxy holds none", service.ref
    return "no-endpoints", f"its pods are ready, and none is listed for port {name.port}", service.ref


def _why_unready(pods: list[KubernetesObject]) -> str:
    """What the first pod's containers say of themselves: waiting for what, ended how, or just not ready."""
    for status in dicts(pods[0].status.get("containerStatuses")):
        state = status.get("state")
        for kind in ("waiting", "terminated"):
            told = state.get(kind) if isinstance(state, dict) else None
            if isinstance(told, dict) and told.get("reason"):
                return f" ({status.get('name')}: {told['reason']})"
    for status in dicts(pods[0].status.get("containerStatuses")):
        if status.get("ready") is False:
            return f" (its container {status.get('name')} runs and fails its readiness probe)"
    return ""


def subset_labels(mesh: Mesh, of: Cluster, subset: str) -> dict[str, str]:
    """The labels of a subset, as the DestinationRule behind the cluster defines it; {} where it isn't known."""
    ref = metadata_object(of.metadata.istio())
    rule = mesh.objects.get("DestinationRule", ref.namespace, ref.name) if ref is not None else None
    for entry in dicts(rule.spec.get("subsets")) if rule is not None else ():
        if entry.get("name") == subset:
            return strings(entry.get("labels"))
    return {}


def _has_labels(pod: KubernetesObject, labels: dict[str, str]) -> bool:
    return all(pod.metadata.labels.get(key) == value for key, value in labels.items())


def _unready_pods(mesh: Mesh, hosts: tuple[HostStatus, ...]) -> str:
    """What Kubernetes says of the pods at these addresses, where they aren't ready."""
    found = [mesh.pod_at(host.address.rpartition(":")[0].strip("[]")) for host in hosts]
    unready = [pod for pod in found if pod is not None and not mesh.objects.ready(pod)]
    if not unready:
        return ""
    return f": {len(unready)} of {len(hosts)} pods aren't ready{_why_unready(unready)}"


def _flags_in_words(hosts: tuple[HostStatus, ...]) -> str:
    if not hosts:
        return "no hosts"
    words = []
    for host in hosts[:5]:
        flags = [
            flag for flag in ("failed_outlier_check", "failed_active_health_check") if getattr(host, flag)
        ]
        words.append(f"{host.address} {' '.join([host.eds_health_status or 'HEALTHY', *flags])}")
    return "; ".join(words)


def kubernetes_targets(mesh: Mesh, host: str, port: int) -> tuple[tuple[Target, ...], Hop]:
    """Where a call without sidecar goes: the ready pods behind the Service, or the pod with that address."""
    service = mesh.objects.service_of_host(host)
    if service is None:
        pod, server = mesh.pod_at(host), mesh.proxy_at(host)
        if pod is not None or server is not None:
            return (Target(host, port, pod=pod, server=server),), Hop(
                Stage.ENDPOINT, "pass", f"straight to {host}:{port}"
            )
        return (), Hop(Stage.ENDPOINT, "unknown", f"nothing is known of {host}")
    ready = [endpoint for endpoint in mesh.objects.endpoints(service, port) if endpoint.ready]
    found = tuple(_target(mesh, endpoint.address, endpoint.port, "", 1) for endpoint in ready)
    if found:
        return found, Hop(
            Stage.ENDPOINT, "pass", f"the Service has {len(found)} endpoints", kubernetes=service.ref
        )
    return (), Hop(
        Stage.ENDPOINT,
        "fail",
        "the Service has no ready endpoint",
        kubernetes=service.ref,
        cause="no-endpoints",
    )
