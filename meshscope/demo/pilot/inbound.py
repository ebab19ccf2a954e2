"""The virtualInbound listener and the inbound clusters of one proxy."""

from __future__ import annotations

from dataclasses import dataclass

from meshscope.demo.pilot import authentication, authorization
from meshscope.demo.pilot.envoy_json import (
    ALL_MTLS_ALPN,
    MTLS_HTTP_ALPN,
    MTLS_TCP_ALPN,
    PLAIN_HTTP_ALPN,
    address,
    connection_manager,
    downstream_tls,
    http_filters,
    http_protocol_options,
    listener_access_log,
    listener_filter,
    tcp_proxy,
    unlimited,
)
from meshscope.demo.pilot.registry import Registry, Service, ServicePort, http_like
from meshscope.demo.spec import Json, Pod, Workload


@dataclass(frozen=True)
class _Chain:
    """One row of Istio's table: what a filter chain matches, speaks and whether it ends TLS."""

    http: bool
    transport: str
    alpn: tuple[str, ...] = ()
    tls: bool = False


def _chains(mode: str, protocol: str) -> list[_Chain]:
    """The filter chains for a PeerAuthentication mode and a port's protocol (http, tcp or auto)."""
    sniffed = protocol == "auto"
    http = protocol == "http"
    if mode == "STRICT":
        if sniffed:
            return [
                _Chain(True, "tls", tuple(MTLS_HTTP_ALPN), tls=True),
                _Chain(False, "tls", tls=True),
            ]
        return [_Chain(http, "tls", tls=True)]
    if mode == "DISABLE":
        plain = [_Chain(True, "raw_buffer", tuple(PLAIN_HTTP_ALPN))] if sniffed else []
        return [*plain, _Chain(http, "raw_buffer")]
    if sniffed:
        return [
            _Chain(True, "tls", tuple(MTLS_HTTP_ALPN), tls=True),
            _Chain(True, "raw_buffer", tuple(PLAIN_HTTP_ALPN)),
            _Chain(False, "tls", tuple(MTLS_TCP_ALPN), tls=True),
            _Chain(False, "raw_buffer"),
            _Chain(False, "tls"),
        ]
    chains = [_Chain(http, "tls", tuple(ALL_MTLS_ALPN), tls=True), _Chain(http, "raw_buffer")]
    return chains if http else [*chains, _Chain(False, "tls")]


def virtual_inbound(registry: Registry, workload: Workload, pod: Pod) -> Json:
    """The listener of port 15006. The pod's ports are additional addresses: they stand in for the redirect."""
    spec = registry.spec
    pod_ip = spec.pod_ip(pod)
    ports = registry.inbound_ports(workload)
    chains: list[Json] = [
        {
            "filter_chain_match": {"destination_port": 15006},
            "filters": [tcp_proxy(spec, "BlackHoleCluster", logged=False)],
            "name": "virtualInbound-blackhole",
        }
    ]
    mode = registry.peer_mode(workload, None)
    for chain in _chains(mode, "auto"):
        name = "virtualInbound-catchall-http" if chain.http else "virtualInbound"
        chains.append(_filter_chain(registry, workload, chain, name, None))
    for number, service, port in ports:
        protocol = "http" if http_like(port) else port.protocol
        for chain in _chains(registry.peer_mode(workload, number), protocol):
            name = f"0.0.0.0_{number}"
            chains.append(_filter_chain(registry, workload, chain, name, (number, service, port)))
    listener: Json = {
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": "virtualInbound",
        "address": address(pod_ip, 15006),
        "additional_addresses": [{"address": address(pod_ip, number)} for number, _, _ in ports],
        "filter_chains": chains,
        "listener_filters": _listener_filters(chains),
        "listener_filters_timeout": "0s",
        "traffic_direction": "INBOUND",
        "continue_on_listener_filters_timeout": True,
        "access_log": [listener_access_log(spec)],
        "max_connections_to_accept_per_socket_event": 1,
    }
    if not ports:
        del listener["additional_addresses"]
    return listener


def inbound_clusters(registry: Registry, workload: Workload, pod: Pod) -> list[Json]:
    """inbound|PORT|| for every served port; static, as after a Sidecar's defaultEndpoint: no redirect here."""
    spec = registry.spec
    found: list[Json] = []
    for number, service, port in registry.inbound_ports(workload):
        name = f"inbound|{number}||"
        host = {"host": service.host, "namespace": service.namespace, "name": service.name}
        endpoint = {"endpoint": {"address": address(spec.app_ip(workload, pod), number)}}
        found.append(
            {
                "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
                "name": name,
                "type": "STATIC",
                "connect_timeout": "10s",
                "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
                "circuit_breakers": {"thresholds": [unlimited()]},
                "upstream_bind_config": {"source_address": {"address": "127.0.0.6", "port_value": 0}},
                "metadata": {"filter_metadata": {"istio": {"services": [host]}}},
                "common_lb_config": {},
                "alt_stat_name": f"{name};",
            }
        )
        if port.protocol == "http2":
            options = http_protocol_options({"explicit_http_config": {"http2_protocol_options": {}}})
            found[-1]["typed_extension_protocol_options"] = options
    return found


def _filter_chain(
    registry: Registry,
    workload: Workload,
    chain: _Chain,
    name: str,
    served: tuple[int, Service, ServicePort] | None,
) -> Json:
    spec = registry.spec
    match: Json = {"transport_protocol": chain.transport}
    if served:
        match["destination_port"] = served[0]
    if chain.alpn:
        match["application_protocols"] = list(chain.alpn)
    number = served[0] if served else 0
    cluster = f"inbound|{number}||" if served else "InboundPassthroughCluster"
    if chain.http:
        stat_prefix = f"inbound_0.0.0.0_{number};" if served else "InboundPassthroughCluster;"
        extra = [
            *authentication.http_filters(registry, workload),
            *authorization.http_filters(registry, workload),
        ]
        routes = {"route_config": _route_config(number, cluster, served)}
        filters = [connection_manager(spec, workload, stat_prefix, routes, http_filters(extra), inbound=True)]
    else:
        filters = [*authorization.network_filters(registry, workload), tcp_proxy(spec, cluster)]
    result: Json = {"filter_chain_match": match, "filters": filters}
    if chain.tls:
        result["transport_socket"] = downstream_tls()
    result["name"] = name
    return result


def _route_config(number: int, cluster: str, served: tuple[int, Service, ServicePort] | None) -> Json:
    operation = f"{served[1].host}:{served[2].number}/*" if served else ":0/*"
    route = {
        "match": {"prefix": "/"},
        "route": {
            "cluster": cluster,
            "timeout": "0s",
            "retry_policy": {"retry_on": "reset-before-request", "num_retries": 2},
            "max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"},
        },
        "decorator": {"operation": operation},
        "name": "default",
    }
    virtual_host = {"name": f"inbound|http|{number}", "domains": ["*"], "routes": [route]}
    return {"name": cluster, "virtual_hosts": [virtual_host], "validate_clusters": False}


def _listener_filters(chains: list[Json]) -> list[Json]:
    """original_dst, then the inspectors, each off for the ports whose chains don't need it."""
    needs: dict[int, tuple[bool, bool]] = {}
    for chain in chains:
        match = chain["filter_chain_match"]
        tls, http = needs.get(match.get("destination_port", 0), (False, False))
        needs[match.get("destination_port", 0)] = (
            tls or match.get("transport_protocol") == "tls",
            http or bool(set(match.get("application_protocols", [])) & set(PLAIN_HTTP_ALPN)),
        )
    found = [listener_filter("original_dst", "original_dst.v3.OriginalDst")]
    inspectors: tuple[tuple[str, str, Json], ...] = (
        ("tls_inspector", "tls_inspector.v3.TlsInspector", {"initial_read_buffer_size": 512}),
        ("http_inspector", "http_inspector.v3.HttpInspector", {}),
    )
    for place, (name, kind, config) in enumerate(inspectors):
        if any(need[place] for need in needs.values()):
            inspector = listener_filter(name, kind, config)
            default = needs.get(0, (False, False))[place]
            ports = sorted(port for port, need in needs.items() if port and need[place] != default)
            if ports:
                predicate = _ports(ports)
                inspector["filter_disabled"] = predicate if default else {"not_match": predicate}
            elif not default:
                continue
            found.append(inspector)
    return found


def _ports(ports: list[int]) -> Json:
    ranges: list[Json] = [{"destination_port_range": {"start": port, "end": port + 1}} for port in ports]
    return ranges[0] if len(ranges) == 1 else {"or_match": {"rules": ranges}}
