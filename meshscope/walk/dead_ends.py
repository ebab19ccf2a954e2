"""Where requests can end inside the caller's own proxy, read off its whole route tables.

The walk asks this of one request; where no log tells which requests there were, all that could end must do.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from meshscope.envoy.config_dump import Route, RouteConfiguration, RouteMatch, VirtualHost
from meshscope.facts.mesh import Mesh
from meshscope.facts.proxy import Proxy
from meshscope.istio import sidecar
from meshscope.istio.names import cluster_name, metadata_object, route_config_name
from meshscope.model.findings import Unavailable
from meshscope.model.names import ObjectRef
from meshscope.walk import upstream
from meshscope.walk.outbound import BLOCK_ALL

COUNTERS = {
    "no-vhost": "no_route",
    "no-matching-route": "no_route",
    "subset-not-defined": "no_cluster",
    "route-to-unknown-host": "no_cluster",
    "registry-only": "rq_direct_response",
    "sidecar-egress-hides-host": "rq_direct_response",
}
"""The counter of the outbound connection manager by which such an end shows, whatever the host was."""


class DeadEnd(msgspec.Struct, frozen=True):
    """A part of a route table that leads nowhere. `host` is "" where any host could be meant; `cluster` is the one missing."""

    cause: str
    port: int
    where: str
    decision: str
    host: str = ""
    cluster: str = ""
    owner: ObjectRef | None = None

    @property
    def counter(self) -> str:
        return COUNTERS[self.cause]


def dead_ends(mesh: Mesh, client: Proxy) -> Iterator[DeadEnd]:
    """Every dead end in the outbound route tables of one proxy."""
    config = client.config
    if isinstance(config, Unavailable):
        return
    for routes in config.routes:
        name = route_config_name(routes.name)
        if name is None or name.direction != "outbound":
            continue
        for host in routes.virtual_hosts:
            yield from _in_host(mesh, client, routes, host, name.port)
        if not any("*" in host.domains for host in routes.virtual_hosts):
            decision = f"route {routes.name} has no virtual host for names that it doesn't list"
            yield DeadEnd("no-vhost", name.port, f"route {routes.name}", decision)


def _in_host(
    mesh: Mesh, client: Proxy, routes: RouteConfiguration, host: VirtualHost, port: int
) -> Iterator[DeadEnd]:
    where = f"route {routes.name} / {host.name}"
    if host.name == BLOCK_ALL:
        yield from _forbidden(mesh, client, where, port)
        return
    called = host.name.rpartition(":")[0] or host.name
    seen: set[str] = set()
    for route in host.routes:
        owner = metadata_object(route.metadata.istio())
        for missing in _clusters(route):
            found, hop = upstream.cluster(mesh, client, missing)
            if found is None and hop.outcome == "fail" and missing not in seen:
                seen.add(missing)
                yield DeadEnd(hop.cause, port, where, hop.decision, called, missing, owner)
    if host.matcher is None and not any(_takes_all(route.match) for route in host.routes):
        owners = (metadata_object(route.metadata.istio()) for route in host.routes)
        behind = next((owner for owner in owners if owner is not None), None)
        yield DeadEnd(
            "no-matching-route", port, where, "no route of the host takes every request", called, "", behind
        )


def _forbidden(mesh: Mesh, client: Proxy, where: str, port: int) -> Iterator[DeadEnd]:
    """Hosts that the registry lacks; and those that a Sidecar hides, where one is in force."""
    decision = f"{BLOCK_ALL} answers for every host that this proxy doesn't know"
    yield DeadEnd("registry-only", port, where, decision)
    pod = mesh.pod(client.id)
    labels = pod.metadata.labels if pod is not None else client.node.labels
    hiding = sidecar.in_force(mesh.objects, client.id.namespace, labels)
    if hiding is not None and isinstance(hiding.spec.get("egress"), list):
        yield DeadEnd(
            "sidecar-egress-hides-host",
            port,
            where,
            f"{decision}; {hiding.ref} hides some",
            "",
            "",
            hiding.ref,
        )


def _clusters(route: Route) -> tuple[str, ...]:
    """The clusters to which a route sends requests."""
    action = route.route
    if action is None:
        return ()
    weighted = action.weighted_clusters.clusters if action.weighted_clusters is not None else ()
    named = (action.cluster, *(entry.name for entry in weighted if entry.weight))
    return tuple(name for name in named if name and cluster_name(name) is not None)


def _takes_all(match: RouteMatch) -> bool:
    return match in (RouteMatch(prefix="/"), RouteMatch(prefix=""))
