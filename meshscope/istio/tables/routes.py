"""The table of a proxy's routes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from meshscope.envoy.config_dump import (
    ConfigDump,
    Message,
    Route,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from meshscope.istio.names import PASSTHROUGH, metadata_object
from meshscope.istio.tables.table import Row, Table, decoded, distinct, service_behind, state_cell

_COLUMNS = ("NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE")
_FURTHER = ("STATE", "KUBERNETES OBJECTS")

_FEW_DOMAINS = 2


class RouteFilter(Struct, frozen=True):
    """Which route configurations: the one of this name."""

    name: str = ""

    def takes(self, name: str) -> bool:
        return self.name in ("", name)


def route_table(config: ConfigDump, only: RouteFilter) -> Table:
    """A row for each route that doesn't just pass traffic through: those of ports by number, others as Envoy has them.

    istioctl sorts with a comparison that isn't an order (names that are no number compare equal to everything), so
    that its order of more than twelve configurations depends on how Go sorts: see docs/tables.md.
    """
    found, problems = decoded(config, "route", RouteConfiguration)
    taken = [(message, routes) for message, routes in found if only.takes(routes.name)]
    taken.sort(key=lambda pair: _by_port(pair[1].name))
    return Table(
        "route",
        _COLUMNS,
        _FURTHER,
        tuple(row for message, routes in taken for row in _rows(message, routes)),
        tuple(message.raw for message, _ in taken),
        problems,
    )


def _by_port(name: str) -> tuple[bool, int]:
    is_port = name.isascii() and name.isdigit() and len(name) <= 5
    return (not is_port, int(name) if is_port else 0)


def _rows(message: Message, routes: RouteConfiguration) -> Iterator[Row]:
    for host in routes.virtual_hosts:
        where = (routes.name, host.name, _domains(host.domains))
        if not host.routes:
            yield Row(routes.name, (*where, "/*", "404", state_cell(message), _service(host)))
        for route in host.routes:
            if not _passes_through(route):
                yield Row(routes.name, (*where, *_route(route), state_cell(message), _objects(host, route)))


def _passes_through(route: Route) -> bool:
    return route.route is not None and route.route.cluster == PASSTHROUGH


def _route(route: Route) -> tuple[str, str]:
    service = metadata_object(route.metadata.istio())
    return match_cell(route.match), f"{service.name}.{service.namespace}" if service else ""


def _objects(host: VirtualHost, route: Route) -> str:
    return distinct((_service(host), str(metadata_object(route.metadata.istio()) or "")))


def _service(host: VirtualHost) -> str:
    return service_behind(host.name.rpartition(":")[0])


def match_cell(match: RouteMatch) -> str:
    """The condition on a path; those on headers and parameters aren't told."""
    words = []
    if match.prefix:
        words.append(f"{match.prefix}*")
    if match.path_separated_prefix:
        words.append(f"PathPrefix:{match.path_separated_prefix}")
    if match.path:
        words.append(match.path)
    if match.safe_regex is not None:
        words.append(f"regex {match.safe_regex.regex}")
    return " ".join(words)


def _domains(domains: Iterable[str]) -> str:
    """The first domains without those that only repeat one with a port or a longer suffix."""
    listed = tuple(domains)
    if len(listed) < 2:
        return "".join(listed)
    hosts = _without_longer([domain for domain in listed if not _has_port(domain)])
    shown = ", ".join(hosts[:_FEW_DOMAINS])
    return f"{shown} + {len(hosts) - _FEW_DOMAINS} more..." if len(hosts) > _FEW_DOMAINS else shown


def _has_port(domain: str) -> bool:
    """Whether `host:80`, `10.0.0.1:80` or `[::1]:80`; an address of IPv6 alone ends in a bracket."""
    return ":" in domain and not domain.endswith("]")


def _without_longer(hosts: list[str]) -> list[str]:
    """Hosts without `a.ns.svc.cluster.local` and `a.ns.svc` where `a.ns` is there, too."""
    known = set(hosts)
    return [
        host
        for host in hosts
        if not any(
            host.endswith(suffix) and host.removesuffix(suffix) in known
            for suffix in (".svc.cluster.local", ".svc")
        )
    ]
