"""The tables of a proxy's endpoints: as its clusters hold them, and as they came over EDS."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile

import msgspec
from msgspec import Raw, Struct

from meshscope.envoy.config_dump import (
    Address,
    ClusterLoadAssignment,
    ConfigDump,
    DecodeProblem,
    LbEndpoint,
    Locality,
    decode_json,
)
from meshscope.istio.tables.table import Row, Table, by_service, decoded


class EndpointFilter(Struct, frozen=True):
    """Which endpoints: address (with or without port), port, cluster, status; all whole and in any case."""

    address: str = ""
    port: int | None = None
    cluster: str = ""
    status: str = ""

    def takes(self, address: Address, cluster: str, status: str) -> bool:
        socket = address.socket_address
        return (
            (not self.address or self.address.lower() in map(str.lower, _names(address)))
            and (self.port is None or (socket is not None and socket.port_value == self.port))
            and self.cluster.lower() in ("", cluster.lower())
            and self.status.lower() in ("", status.lower())
        )


def _names(address: Address) -> tuple[str, ...]:
    """What a person may call an address."""
    socket = address.socket_address
    if socket:
        return socket.address, f"{socket.address}:{socket.port_value}", str(socket)
    return (address.pipe.path, str(address)) if address.pipe else (_internal(address),)


def _name(address: Address) -> str:
    """What istioctl calls an address: IPv6 without brackets, a pipe by its path."""
    if address.socket_address:
        return f"{address.socket_address.address}:{address.socket_address.port_value}"
    return address.pipe.path if address.pipe else _internal(address)


def _internal(address: Address) -> str:
    """`envoy://LISTENER/ENDPOINT` of an endpoint that is a listener of the same Envoy."""
    internal = address.envoy_internal_address
    if not internal:
        return "unknown"
    return f"envoy://{internal.get('server_listener_name', '')}/{internal.get('endpoint_id', '')}"


# --- /clusters ----------------------------------------------------------------------------------------------

_COLUMNS = ("ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER")
_FURTHER = ("HEALTH CHECK", "WEIGHT", "PRIORITY")


class _Health(Struct, frozen=True):
    eds_health_status: str = "UNKNOWN"
    failed_outlier_check: bool = False
    failed_active_health_check: bool = False


class _Host(Struct, frozen=True):
    address: Address = Address()
    health_status: _Health = _Health()
    weight: int = 1
    priority: int = 0


class _Cluster(Struct, frozen=True):
    name: str = ""
    host_statuses: tuple[_Host, ...] = ()


class _Answer(Struct, frozen=True):
    cluster_statuses: tuple[Raw, ...]


def endpoint_table(clusters: bytes, only: EndpointFilter) -> Table:
    """The answer of /clusters?format=json by address, port and cluster. Raises msgspec.DecodeError where it is none."""
    rows: list[tuple[tuple[str, int, str], Row]] = []
    messages: list[Raw] = []
    problems: list[DecodeProblem] = []
    for position, raw in enumerate(decode_json(clusters, _Answer).cluster_statuses):
        try:
            cluster = decode_json(raw, _Cluster)
        except msgspec.DecodeError as error:
            problems.append(DecodeProblem(f"cluster_statuses[{position}]", str(error)))
            continue
        taken = [
            host
            for host in cluster.host_statuses
            if only.takes(host.address, cluster.name, host.health_status.eds_health_status)
        ]
        rows += [_host(host, cluster.name) for host in taken]
        if taken:
            messages.append(raw)
    rows.sort(key=lambda pair: pair[0])
    return Table(
        "endpoint", _COLUMNS, _FURTHER, tuple(row for _, row in rows), tuple(messages), tuple(problems)
    )


def _host(host: _Host, cluster: str) -> tuple[tuple[str, int, str], Row]:
    socket, pipe = host.address.socket_address, host.address.pipe
    name = str(host.address) if pipe else _name(host.address)
    by_address = (socket.address, socket.port_value) if socket else (name, 0)
    health = host.health_status
    cells = (
        name,
        health.eds_health_status,
        _check(failed=health.failed_outlier_check),
        cluster,
        _check(failed=health.failed_active_health_check),
        str(host.weight),
        str(host.priority),
    )
    return (*by_address, cluster), Row(name, cells)


def _check(*, failed: bool) -> str:
    return "FAILED" if failed else "OK"


# --- EDS ----------------------------------------------------------------------------------------------------

_EDS_COLUMNS = ("NAME", "STATUS", "LOCALITY", "CLUSTER")
_EDS_FURTHER = ("WORKLOAD", "TLS MODE")


def eds_table(config: ConfigDump, only: EndpointFilter) -> Table:
    """The load assignments of a dump taken with `include_eds`, by cluster; the empty ones have no row."""
    found, problems = decoded(config, "endpoint", ClusterLoadAssignment)
    found.sort(key=lambda pair: by_service(pair[1].cluster_name))
    rows: list[Row] = []
    messages: list[Raw] = []
    for message, assignment in found:
        taken = list(_assigned(assignment, only))
        rows += taken
        if taken:
            whole = len(taken) == sum(1 for _ in assignment.all())
            messages.append(message.raw if whole else _filtered(message.raw, only))
    return Table("endpoint", _EDS_COLUMNS, _EDS_FURTHER, tuple(rows), tuple(messages), problems)


def _assigned(assignment: ClusterLoadAssignment, only: EndpointFilter) -> Iterator[Row]:
    for locality in assignment.endpoints:
        for endpoint in locality.lb_endpoints:
            if only.takes(endpoint.endpoint.address, assignment.cluster_name, endpoint.health_status):
                yield _endpoint(endpoint, locality.locality, assignment.cluster_name)


def _endpoint(endpoint: LbEndpoint, locality: Locality, cluster: str) -> Row:
    name = _name(endpoint.endpoint.address)
    workload = ".".join(endpoint.workload()[:2])
    cells = (name, endpoint.health_status, _locality(locality), cluster, workload, endpoint.tls_mode())
    return Row(name, cells)


def _locality(locality: Locality) -> str:
    """`region/zone/sub_zone` up to the first that isn't given."""
    return "/".join(takewhile(bool, (locality.region, locality.zone, locality.sub_zone)))


def _filtered(raw: Raw, only: EndpointFilter) -> Raw:
    """An assignment with those endpoints alone that the filter takes."""
    assignment = msgspec.json.decode(bytes(raw).decode("utf-8", "replace"))
    for locality in assignment.get("endpoints", ()):
        locality["lb_endpoints"] = [
            endpoint
            for endpoint in locality.get("lb_endpoints", ())
            if _takes(only, endpoint, assignment.get("cluster_name", ""))
        ]
    return Raw(msgspec.json.encode(assignment))


def _takes(only: EndpointFilter, endpoint: object, cluster: str) -> bool:
    read = msgspec.convert(endpoint, LbEndpoint, strict=False)
    return only.takes(read.endpoint.address, cluster, read.health_status)
