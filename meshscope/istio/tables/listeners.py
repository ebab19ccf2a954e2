"""The table of a proxy's listeners: what each filter chain matches, and where it leads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from meshscope.envoy.config_dump import (
    AdditionalAddress,
    Address,
    ConfigDump,
    FilterChain,
    FilterChainMatch,
    HttpConnectionManager,
    Message,
    RouteConfiguration,
    TcpProxy,
    TypedExtension,
    VirtualHost,
)
from meshscope.istio.names import BLACK_HOLE, cluster_name, route_config_name
from meshscope.istio.tables.routes import match_cell
from meshscope.istio.tables.table import Row, Table, decoded, service_behind, state_cell

_COLUMNS = ("ADDRESSES", "PORT", "MATCH", "DESTINATION")
_FURTHER = ("STATE", "KUBERNETES OBJECTS")

_HTTP = "envoy.filters.network.http_connection_manager"
_TCP = "envoy.filters.network.tcp_proxy"
_NEITHER = "Non-HTTP/Non-TCP"

# Lists of application protocols that istioctl has words for.
_APPLICATIONS = {
    ("http/1.0", "http/1.1", "h2c"): "App: HTTP",
    ("istio", "istio-http/1.0", "istio-http/1.1", "istio-h2"): "App: Istio HTTP Plain",
    ("http/1.0", "http/1.1", "h2c", "istio-http/1.0", "istio-http/1.1", "istio-h2"): "App: HTTP TLS",
    ("istio-peer-exchange", "istio"): "App: TCP TLS",
}

ListenerType = Literal["HTTP", "TCP", "HTTP+TCP", "UNKNOWN"]


class _Listener(Struct, frozen=True):
    name: str = ""
    address: Address = Address()
    additional_addresses: tuple[AdditionalAddress, ...] = ()
    filter_chains: tuple[FilterChain, ...] = ()
    default_filter_chain: FilterChain | None = None

    @property
    def chains(self) -> tuple[FilterChain, ...]:
        default = self.default_filter_chain
        return (*self.filter_chains, default) if default else self.filter_chains

    @property
    def addresses(self) -> tuple[str, ...]:
        all_of_them = (self.address, *(more.address for more in self.additional_addresses))
        return tuple(found.socket_address.address if found.socket_address else "" for found in all_of_them)

    @property
    def port(self) -> int:
        return self.address.socket_address.port_value if self.address.socket_address else 0

    @property
    def type(self) -> ListenerType:
        """What its chains speak; one that leads nowhere doesn't count."""
        filters = [found for chain in self.chains for found in chain.filters]
        http = any(found.name == _HTTP for found in filters)
        tcp = any(found.name == _TCP and not _leads_nowhere(found) for found in filters)
        if http:
            return "HTTP+TCP" if tcp else "HTTP"
        return "TCP" if tcp else "UNKNOWN"


class ListenerFilter(Struct, frozen=True):
    """Which listeners: an address (any of its own), port, type (HTTP, TCP, HTTP+TCP, UNKNOWN, in any case)."""

    address: str = ""
    port: int | None = None
    type: str = ""

    def takes(self, listener: _Listener) -> bool:
        return (
            (not self.address or self.address.lower() in map(str.lower, listener.addresses))
            and (self.port is None or self.port == listener.port)
            and (not self.type or self.type.upper() == listener.type)
        )


def listener_table(config: ConfigDump, only: ListenerFilter) -> Table:
    """A row for each filter chain, by port and address; within a listener by destination, downwards."""
    found, problems = decoded(config, "listener", _Listener)
    taken = [(message, listener) for message, listener in found if only.takes(listener)]
    taken.sort(key=lambda pair: (pair[1].port, pair[1].addresses[0], pair[1].type))
    return Table(
        "listener",
        _COLUMNS,
        _FURTHER,
        tuple(row for message, listener in taken for row in _rows(message, listener)),
        tuple(message.raw for message, _ in taken),
        problems,
    )


def _rows(message: Message, listener: _Listener) -> list[Row]:
    where = (",".join(listener.addresses), str(listener.port))
    chains = [(_match(chain.filter_chain_match), *_destination(chain.filters)) for chain in listener.chains]
    chains.sort(key=lambda chain: chain[1], reverse=True)
    return [
        Row(listener.name or message.name, (*where, match, destination, state_cell(message), behind))
        for match, destination, behind in chains
    ]


def _match(match: FilterChainMatch) -> str:
    words = []
    if match.server_names:
        words.append(f"SNI: {','.join(match.server_names)}")
    if match.transport_protocol:
        words.append(f"Trans: {match.transport_protocol}")
    if match.application_protocols:
        listed = f"App: {','.join(match.application_protocols)}"
        words.append(_APPLICATIONS.get(match.application_protocols, listed))
    port = f":{match.destination_port}" if match.destination_port is not None else ""
    if match.prefix_ranges:
        ranges = ",".join(f"{found.address_prefix}/{found.prefix_len}" for found in match.prefix_ranges)
        words.append(f"Addr: {ranges}{port}")
    elif port:
        words.append(f"Addr: *{port}")
    return "; ".join(words) or "ALL"


def _destination(filters: Sequence[TypedExtension]) -> tuple[str, str]:
    """Where the first filter that leads anywhere leads, and the Service behind that."""
    for found in filters:
        try:
            if found.name == _HTTP:
                return _http(found.decode(HttpConnectionManager))
            if found.name == _TCP and not _leads_nowhere(found):
                return _tcp(found.decode(TcpProxy))
        except msgspec.DecodeError as error:
            return f"unreadable: {error}", ""
    return _NEITHER, ""


def _http(manager: HttpConnectionManager) -> tuple[str, str]:
    if manager.route_config is not None:
        return _inline(manager.route_config)
    name = manager.rds.route_config_name if manager.rds else ""
    if not name:
        return "HTTP", ""
    parts = route_config_name(name)
    return f"Route: {name}", service_behind(parts.host) if parts else ""


def _tcp(proxy: TcpProxy) -> tuple[str, str]:
    if proxy.weighted_clusters is None:
        return _cluster(proxy.cluster)
    shares = ", ".join(f"{found.name} (weight {found.weight})" for found in proxy.weighted_clusters.clusters)
    return f"Clusters: {shares}", ""


def _cluster(name: str) -> tuple[str, str]:
    parts = cluster_name(name)
    # PassthroughCluster and its like say themselves what they are.
    return name if "Cluster" in name else f"Cluster: {name}", service_behind(parts) if parts else ""


def _leads_nowhere(found: TypedExtension) -> bool:
    raw = found.typed_config
    return isinstance(raw, msgspec.Raw) and BLACK_HOLE.encode() in bytes(raw)


def _inline(routes: RouteConfiguration) -> tuple[str, str]:
    only = _only_cluster(routes)
    if only:
        return _cluster(only)
    return f"Inline Route: {'; '.join(map(_virtual_host, routes.virtual_hosts))}", ""


def _only_cluster(routes: RouteConfiguration) -> str:
    """The cluster of a route configuration that sends everything to one; "" for others."""
    if len(routes.virtual_hosts) != 1 or routes.virtual_hosts[0].domains != ("*",):
        return ""
    host = routes.virtual_hosts[0]
    if len(host.routes) != 1 or host.routes[0].match.prefix != "/" or host.routes[0].route is None:
        return ""
    return host.routes[0].route.cluster or ""


def _virtual_host(host: VirtualHost) -> str:
    matches = ", ".join(match_cell(route.match) for route in host.routes)
    return matches if host.domains == ("*",) else f"{'/'.join(host.domains)} {matches}"
