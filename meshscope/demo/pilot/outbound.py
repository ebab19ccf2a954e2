"""The outbound listeners of one proxy: virtualOutbound and one a port or address."""

from __future__ import annotations

from meshscope.demo.pilot.envoy_json import (
    PLAIN_HTTP_ALPN,
    address,
    cluster_name,
    config_source,
    connection_manager,
    http_filters,
    listener_access_log,
    listener_filter,
    tcp_proxy,
)
from meshscope.demo.pilot.registry import Registry, Service, ServicePort, http_like
from meshscope.demo.pilot.routes import registry_only, tcp_route
from meshscope.demo.spec import Json, Pod, Workload

_LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"


def virtual_outbound(registry: Registry, pod: Pod) -> Json:
    """The listener of port 15001.

    Without iptables nothing tells it where the application meant to go, so the demo's applications
    say it in a PROXY protocol line; from there on the hand-over to the other listeners is Istio's own.
    """
    spec = registry.spec
    catchall = "BlackHoleCluster" if registry_only(spec) else "PassthroughCluster"
    proxy_protocol = {"allow_requests_without_proxy_protocol": True}
    return {
        "@type": _LISTENER,
        "name": "virtualOutbound",
        "address": address(spec.pod_ip(pod), 15001),
        "filter_chains": [
            {
                "filter_chain_match": {"destination_port": 15001},
                "filters": [tcp_proxy(spec, "BlackHoleCluster", logged=False)],
                "name": "virtualOutbound-blackhole",
            },
            {"filters": [tcp_proxy(spec, catchall)], "name": "virtualOutbound-catchall-tcp"},
        ],
        "listener_filters": [
            listener_filter("proxy_protocol", "proxy_protocol.v3.ProxyProtocol", proxy_protocol)
        ],
        "use_original_dst": True,
        "traffic_direction": "OUTBOUND",
        "access_log": [listener_access_log(spec)],
        "max_connections_to_accept_per_socket_event": 1,
    }


def outbound_listeners(registry: Registry, workload: Workload) -> list[Json]:
    """0.0.0.0_PORT for the HTTP ports (one for all services), ADDRESS_PORT for TCP and sniffed ones."""
    found: dict[str, Json] = {}
    for service in registry.visible(workload):
        for port in service.ports:
            if http_like(port):
                name, host = f"0.0.0.0_{port.number}", "0.0.0.0"
                if name not in found:
                    found[name] = _http_listener(registry, workload, name, host, port, None)
            elif service.resolution != "ORIGINAL_DST":
                host = service.address
                name = f"{host}_{port.number}"
                if port.protocol == "auto":
                    found[name] = _http_listener(registry, workload, name, host, port, service)
                else:
                    found[name] = _tcp_listener(registry, workload, name, host, port, service)
    return [found[name] for name in sorted(found)]


def route_name(service: Service, port: ServicePort) -> str:
    """The route configuration of a service port: shared by number for HTTP, its own where sniffed."""
    return str(port.number) if http_like(port) else f"{service.host}:{port.number}"


def _http_listener(
    registry: Registry,
    workload: Workload,
    name: str,
    host: str,
    port: ServicePort,
    sniffed: Service | None,
) -> Json:
    spec = registry.spec
    routes = route_name(sniffed, port) if sniffed else str(port.number)
    rds = {"rds": {"config_source": config_source(), "route_config_name": routes}}
    manager = connection_manager(
        spec, workload, f"outbound_{host}_{port.number};", rds, http_filters(), inbound=False
    )
    http_chain = {
        "filter_chain_match": {
            "transport_protocol": "raw_buffer",
            "application_protocols": PLAIN_HTTP_ALPN,
        },
        "filters": [manager],
        "transport_socket_connect_timeout": "15s",
    }
    if sniffed:
        cluster = cluster_name(port.number, "", sniffed.host)
        default: Json = {"filters": [tcp_proxy(spec, cluster)], "transport_socket_connect_timeout": "15s"}
    else:
        catchall = "BlackHoleCluster" if registry_only(spec) else "PassthroughCluster"
        default = {
            "filter_chain_match": {},
            "filters": [tcp_proxy(spec, catchall)],
            "name": "PassthroughFilterChain",
        }
    return {
        "@type": _LISTENER,
        "name": name,
        "address": address(host, port.number),
        "filter_chains": [http_chain],
        "listener_filters": [listener_filter("http_inspector", "http_inspector.v3.HttpInspector")],
        "listener_filters_timeout": "0s",
        "traffic_direction": "OUTBOUND",
        "continue_on_listener_filters_timeout": True,
        "default_filter_chain": default,
        "bind_to_port": False,
    }


def _tcp_listener(
    registry: Registry, workload: Workload, name: str, host: str, port: ServicePort, service: Service
) -> Json:
    cluster = tcp_route(registry, workload, service, port)
    return {
        "@type": _LISTENER,
        "name": name,
        "address": address(host, port.number),
        "filter_chains": [
            {
                "filters": [tcp_proxy(registry.spec, cluster)],
                "transport_socket_connect_timeout": "15s",
            }
        ],
        "listener_filters_timeout": "0s",
        "traffic_direction": "OUTBOUND",
        "continue_on_listener_filters_timeout": True,
        "bind_to_port": False,
    }
