"""The client's side of the walk: capture, outbound listener, route, injected fault."""

from __future__ import annotations

from typing import Any

import msgspec

from meshscope.envoy.config_dump import (
    ConfigDump,
    FilterChain,
    HttpConnectionManager,
    Listener,
    RouteConfiguration,
    TcpProxy,
    decode_json,
)
from meshscope.envoy.listeners import FilterChainsNotUnderstood, filter_chain
from meshscope.envoy.request import HttpRequest
from meshscope.envoy.routes import RouteOutcome, normalized, route, virtual_host
from meshscope.facts.mesh import Mesh
from meshscope.facts.proxy import Proxy
from meshscope.istio import sidecar
from meshscope.istio.names import BLACK_HOLE, PASSTHROUGH, metadata_object
from meshscope.model.findings import Evidence, Unavailable
from meshscope.model.kubernetes import KubernetesObject
from meshscope.model.names import ObjectRef
from meshscope.sources.source import Part
from meshscope.walk.hops import Hop, Stage

CLOSED_PROXY_PORTS = frozenset({15000, 15001, 15004, 15006})
"""Ports of the sidecar itself that take nothing from other pods: its admin, its two ends of the redirect, debugging.

15001 and 15006 lead what is sent straight to them to the BlackHoleCluster, lest it run in circles."""

BLOCK_ALL = "block_all"
"""The virtual host that Istio adds last where the outbound policy is REGISTRY_ONLY."""


EXCLUDED_OUTBOUND = "traffic.sidecar.istio.io/excludeOutboundPorts"


class Way(msgspec.Struct, frozen=True):
    """One way out of the client's proxy: its share, the hops so far, the cluster it leads to (None: it ends here)."""

    share: float
    hops: tuple[Hop, ...]
    cluster: str | None


def capture(mesh: Mesh, client: Proxy, port: int) -> Hop:
    """Whether the call passes through the client's sidecar."""
    if port in CLOSED_PROXY_PORTS:
        return Hop(
            Stage.CAPTURE,
            "fail",
            f"port {port} is the sidecar's own: it takes no requests of others",
            client.id,
            cause="connect-to-proxy-port",
        )
    pod = mesh.pod(client.id)
    past = past_the_sidecar(pod, port) if pod is not None else None
    return past or Hop(Stage.CAPTURE, "pass", "the sidecar captures the call", client.id)


def past_the_sidecar(pod: KubernetesObject, port: int) -> Hop | None:
    """The hop by which a call leaves past its own sidecar, where an annotation of the pod excludes the port."""
    excluded = pod.metadata.annotations.get(EXCLUDED_OUTBOUND, "")
    if str(port) not in {entry.strip() for entry in excluded.split(",")}:
        return None
    return Hop(
        Stage.CAPTURE,
        "pass",
        f"port {port} is excluded from capture: the call leaves in plaintext, past the sidecar",
        kubernetes=pod.ref,
        evidence=(Evidence("kubernetes", f"{pod.ref}: annotations", f"{EXCLUDED_OUTBOUND}: {excluded}"),),
        detail={"excluded": True},
    )


def outbound_listener(config: ConfigDump, port: int, addresses: tuple[str, ...]) -> Listener | None:
    """The listener that takes a call to one of `addresses` at `port`: the address's own, the wildcard's, the catch-all."""
    candidates = [
        listener
        for listener in config.listeners
        if listener.traffic_direction != "INBOUND" and any(a.port_value == port for a in listener.addresses())
    ]
    for listener in candidates:
        if any(listener.name == f"{address}_{port}" for address in addresses):
            return listener
        if any(a.address in addresses and a.port_value == port for a in listener.addresses()):
            return listener
    for listener in candidates:
        if listener.name in {f"0.0.0.0_{port}", f"[::]_{port}", f"::_{port}"}:
            return listener
    for listener in candidates:
        if any(a.address in {"0.0.0.0", "::"} for a in listener.addresses()):
            return listener
    return config.listeners.get("virtualOutbound")


def ways(mesh: Mesh, client: Proxy, host: str, port: int, request: HttpRequest | None) -> tuple[Way, ...]:
    """Every way the client's own proxy lets the call go; to it an https call is TLS of the application's own."""
    config = client.config
    tls = request is not None and request.scheme == "https"
    assert not isinstance(config, Unavailable)
    addresses = mesh.addresses(host)
    listener = outbound_listener(config, port, addresses)
    if listener is None:
        if not config.has_listeners:
            return (
                Way(
                    1.0,
                    (Hop(Stage.OUTBOUND_LISTENER, "unknown", "the dump has no listeners", client.id),),
                    None,
                ),
            )
        missing = Hop(
            Stage.OUTBOUND_LISTENER,
            "fail",
            f"no listener takes a call to {host}:{port}",
            client.id,
            cause="no-vhost",
        )
        return (Way(1.0, (missing,), None),)
    try:
        chain = filter_chain(
            listener,
            destination_address=addresses[0] if addresses else host,
            destination_port=port,
            transport_protocol="tls" if tls else "raw_buffer",
            server_name=host if tls else "",
            application_protocols=("http/1.1",) if request else (),
        )
        if chain is not None:
            readable = None if tls else request
            return through_chain(mesh, client, config, listener, chain, host, port, readable)
    except (FilterChainsNotUnderstood, msgspec.DecodeError) as error:
        why = f"listener {listener.name} can't be read: {error}"
        return (Way(1.0, (Hop(Stage.OUTBOUND_LISTENER, "unknown", why, client.id),), None),)
    missing = Hop(
        Stage.OUTBOUND_LISTENER,
        "fail",
        f"listener {listener.name} has no filter chain for it",
        client.id,
        f"listener {listener.name}",
        cause="no-vhost",
    )
    return (Way(1.0, (missing,), None),)


def through_chain(
    mesh: Mesh,
    client: Proxy,
    config: ConfigDump,
    listener: Listener,
    chain: FilterChain,
    host: str,
    port: int,
    request: HttpRequest | None,
) -> tuple[Way, ...]:
    """Where one filter chain of a listener of the caller's proxy leads the call."""
    manager_filter = chain.network_filter("HttpConnectionManager")
    tcp_filter = chain.network_filter("TcpProxy")
    where = f"listener {listener.name}"
    if manager_filter is not None and request is not None:
        manager = manager_filter.decode(HttpConnectionManager)
        name = (
            manager.rds.route_config_name
            if manager.rds
            else (manager.route_config.name if manager.route_config else "")
        )
        taken = Hop(
            Stage.OUTBOUND_LISTENER,
            "pass",
            f"{where} takes it as HTTP, route {name}",
            client.id,
            where,
            detail={"http": True, "stat_prefix": manager.stat_prefix, "route_config": name},
        )
        routes = config.routes.get(name) if manager.rds else manager.route_config
        if routes is None:
            problem = Hop(Stage.ROUTE, "unknown", f"route configuration {name} isn't in the dump", client.id)
            return (Way(1.0, (taken, problem), None),)
        return tuple(
            _way(mesh, client, manager, routes, outcome, taken, host, port)
            for outcome in route(routes, normalized(manager, request))
        )
    if tcp_filter is not None:
        proxy = tcp_filter.decode(TcpProxy)
        taken = Hop(
            Stage.OUTBOUND_LISTENER,
            "pass",
            f"{where} takes it as plain TCP",
            client.id,
            where,
            detail={"http": False, "listener": listener.name},
        )
        shares = _tcp_clusters(proxy)
        if [name for name, _ in shares] == [BLACK_HOLE]:
            return (Way(1.0, (taken, _forbidden(mesh, client, host, port, where, BLACK_HOLE)), None),)
        return tuple(
            Way(share, (taken, Hop(Stage.ROUTE, "pass", f"TCP proxy to {name}", client.id, where)), name)
            for name, share in shares
        )
    odd = Hop(
        Stage.OUTBOUND_LISTENER,
        "unknown",
        f"{where} ends in a filter that meshscope doesn't know",
        client.id,
        where,
    )
    return (Way(1.0, (odd,), None),)


def _tcp_clusters(proxy: TcpProxy) -> list[tuple[str, float]]:
    if proxy.weighted_clusters and proxy.weighted_clusters.clusters:
        total = sum(cluster.weight for cluster in proxy.weighted_clusters.clusters) or 1
        return [(cluster.name, cluster.weight / total) for cluster in proxy.weighted_clusters.clusters]
    return [(proxy.cluster, 1.0)]


def _way(
    mesh: Mesh,
    client: Proxy,
    manager: HttpConnectionManager,
    routes: RouteConfiguration,
    outcome: RouteOutcome,
    taken: Hop,
    host: str,
    port: int,
) -> Way:
    hop = _route_hop(mesh, client, routes, outcome, host, port)
    if hop.outcome == "fail" or outcome.kind != "cluster":
        return Way(outcome.share, (taken, hop), None)
    fault = _fault_hop(client, manager, outcome)
    hops = (taken, hop, fault) if fault is not None else (taken, hop)
    return Way(outcome.share, hops, outcome.cluster)


def route_object(routes: RouteConfiguration, outcome: RouteOutcome) -> str:
    """How the deciding route is named to people: `route 9080 / reviews:9080 / default`."""
    parts = [f"route {routes.name}"]
    if outcome.virtual_host:
        parts.append(outcome.virtual_host.name)
    if outcome.route and outcome.route.name:
        parts.append(outcome.route.name)
    return " / ".join(parts)


def _route_hop(
    mesh: Mesh, client: Proxy, routes: RouteConfiguration, outcome: RouteOutcome, host: str, port: int
) -> Hop:
    where = route_object(routes, outcome)
    virtual_service = metadata_object(outcome.route.metadata.istio()) if outcome.route else None
    detail: dict[str, Any] = {"route_config": routes.name, "kind": outcome.kind}
    evidence = (Evidence(f"proxy {client.id}", f"{client.path(Part.CONFIG_DUMP)}: {where}", outcome.kind),)
    if outcome.route is not None and outcome.route.route is not None:
        detail["action"] = outcome.route.route
    if outcome.kind == "cluster":
        hidden = _hiding_sidecar(mesh, client, host) if outcome.cluster == PASSTHROUGH else None
        return Hop(
            Stage.ROUTE,
            "pass",
            f"routed to {outcome.cluster}" + (f": {hidden} hides {host} from this proxy" if hidden else ""),
            client.id,
            where,
            hidden or virtual_service,
            cause="sidecar-egress-hides-host" if hidden else "",
            detail=detail,
        )
    if outcome.kind == "unknown":
        return Hop(Stage.ROUTE, "unknown", outcome.why, client.id, where, virtual_service, detail=detail)
    if outcome.kind == "no_vhost" or (outcome.virtual_host is not None and not outcome.virtual_host.routes):
        return Hop(
            Stage.ROUTE,
            "fail",
            f"no virtual host of route {routes.name} has the name {host}"
            if outcome.virtual_host is None
            else f"virtual host {outcome.virtual_host.name} has no routes: nothing is served here",
            client.id,
            where,
            cause="no-vhost",
            evidence=evidence,
            detail=detail,
        )
    if outcome.kind == "no_route":
        owner = virtual_service or _virtual_service_of(outcome)
        return Hop(
            Stage.ROUTE,
            "fail",
            "the host is known, but no route of it matches this request",
            client.id,
            where,
            owner,
            cause="no-matching-route",
            evidence=evidence,
            detail=detail,
        )
    if outcome.kind == "direct_response":
        if outcome.virtual_host is not None and outcome.virtual_host.name == BLOCK_ALL:
            hop = _forbidden(mesh, client, host, port, where, f"{BLOCK_ALL}, {outcome.status}")
            return msgspec.structs.replace(hop, evidence=evidence, detail={**hop.detail, **detail})
        return Hop(
            Stage.ROUTE,
            "pass",
            f"answered directly with {outcome.status}",
            client.id,
            where,
            virtual_service,
            detail=detail,
        )
    return Hop(
        Stage.ROUTE,
        "pass",
        f"{outcome.kind.replace('_', ' ')} {outcome.status or ''}".strip(),
        client.id,
        where,
        virtual_service,
        detail=detail,
    )


def _virtual_service_of(outcome: RouteOutcome) -> ObjectRef | None:
    """The VirtualService behind a virtual host, from any of its routes."""
    for candidate in outcome.virtual_host.routes if outcome.virtual_host else ():
        if (found := metadata_object(candidate.metadata.istio())) is not None:
            return found
    return None


def _forbidden(mesh: Mesh, client: Proxy, host: str, port: int, where: str, by: str) -> Hop:
    """The outbound policy ends the call: the host isn't in the registry, or is and this proxy doesn't hear of it.

    `knows` in the detail names another proxy of the caller's namespace that holds a route for the host.
    """
    hiding = _hiding_sidecar(mesh, client, host)
    knows = None if mesh.has_kubernetes else _knowing_proxy(mesh, client, host, port)
    hidden = hiding is not None or knows is not None
    decision = f"{host} isn't among the hosts this proxy may call ({by})"
    if hiding is not None:
        decision += f": {hiding} leaves it out"
    return Hop(
        Stage.ROUTE,
        "fail",
        decision,
        client.id,
        where,
        hiding,
        cause="sidecar-egress-hides-host" if hidden else "registry-only",
        detail={"knows": str(knows.id) if knows is not None else "", "by": by},
    )


def _hiding_sidecar(mesh: Mesh, client: Proxy, host: str) -> ObjectRef | None:
    """The Sidecar resource that keeps a host of the mesh's registry from this proxy."""
    pod = mesh.pod(client.id)
    labels = pod.metadata.labels if pod else client.node.labels
    found = sidecar.in_force(mesh.objects, client.id.namespace, labels)
    if found is None or next(sidecar.registered_in(mesh.objects, host), None) is None:
        return None
    return None if sidecar.shows(mesh.objects, found, client.id.namespace, host) else found.ref


def _knowing_proxy(mesh: Mesh, client: Proxy, host: str, port: int) -> Proxy | None:
    """Another proxy that serves the host, or one of the caller's namespace whose routes have it: the registry has it, too."""
    for other in mesh.proxies.values():
        if other is client or isinstance(other.config, Unavailable):
            continue
        if _serves(mesh, client, other.config, host):
            return other
        if other.id.namespace != client.id.namespace:
            continue
        routes = other.config.routes.get(str(port))
        found = virtual_host(routes, f"{host}:{port}") if routes is not None else None
        if found is not None and "*" not in found.domains:
            return other
    return None


def _serves(mesh: Mesh, client: Proxy, config: ConfigDump, host: str) -> bool:
    """Whether an inbound cluster is for the host, by the Services that istiod names in it; a short name is completed."""
    names = {host, f"{host}.svc.{mesh.domain}", f"{host}.{client.id.namespace}.svc.{mesh.domain}"}
    return any(
        isinstance(service, dict) and service.get("host") in names
        for cluster in config.clusters
        if cluster.name.startswith("inbound|")
        for service in cluster.metadata.istio().get("services") or ()
    )


FAULT_FILTER = "envoy.filters.http.fault"


def _fault_hop(client: Proxy, manager: HttpConnectionManager, outcome: RouteOutcome) -> Hop | None:
    """The fault that the route injects, if it does; abort with 100 % ends the walk."""
    if outcome.route is None or FAULT_FILTER not in outcome.route.typed_per_filter_config:
        return None
    try:
        fault = decode_json(outcome.route.typed_per_filter_config[FAULT_FILTER], dict[str, Any])
    except msgspec.DecodeError:
        return None
    abort, delay = _mapped(fault.get("abort")), _mapped(fault.get("delay"))
    where = f"route / {outcome.route.name or 'unnamed'} / fault filter"
    virtual_service = metadata_object(outcome.route.metadata.istio())
    share = _percentage(abort)
    if abort and share > 0:
        status = abort.get("http_status") or abort.get("grpc_status")
        outcome_word = "fail" if share >= 1 else "unknown"
        return Hop(
            Stage.FAULT,
            "fail" if share >= 1 else "unknown",
            f"the route aborts {share:.0%} of the requests with {status} on purpose",
            client.id,
            where,
            virtual_service,
            cause="fault-abort",
            detail={"abort": abort, "delay": delay, "share": share, "certain": outcome_word == "fail"},
        )
    if delay:
        return Hop(
            Stage.FAULT,
            "pass",
            f"the route delays {_percentage(delay):.0%} of the requests by {delay.get('fixed_delay')} on purpose",
            client.id,
            where,
            virtual_service,
            cause="fault-delay",
            detail={"abort": abort, "delay": delay},
        )
    return None


def _percentage(fault: dict[str, Any]) -> float:
    percentage = _mapped(fault.get("percentage"))
    scale = {"TEN_THOUSAND": 10_000, "MILLION": 1_000_000}.get(str(percentage.get("denominator")), 100)
    numerator = percentage.get("numerator", 0)
    return float(numerator) / scale if isinstance(numerator, int | float) else 0.0


def _mapped(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
