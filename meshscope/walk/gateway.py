"""The way out of a gateway: its listeners are those of its own ports, its virtual hosts those that its Gateways serve."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from meshscope.envoy.config_dump import ConfigDump, FilterChain, Listener
from meshscope.envoy.request import HttpRequest
from meshscope.facts.mesh import Mesh
from meshscope.facts.proxy import Proxy
from meshscope.istio.names import ClusterName
from meshscope.model.findings import Unavailable
from meshscope.walk.hops import Hop, Stage
from meshscope.walk.outbound import Way, through_chain

AGENT_PORTS = frozenset({15021, 15090})
"""Ports of a gateway's own health and metrics: no Gateway leads there."""


def capture(client: Proxy) -> Hop:
    return Hop(Stage.CAPTURE, "pass", "the gateway takes the call", client.id)


def ways(
    mesh: Mesh, client: Proxy, host: str, port: int, request: HttpRequest | None, entered: int
) -> tuple[Way, ...]:
    """Every way a call can go that came to the gateway's port `entered` (0: not known) and is for `host` and `port`.

    Of several listeners the one counts that serves the request's host. A request that was made up tells nothing of
    the gateway's hosts: then its route isn't known, and the way goes on at the cluster it must have led to.
    """
    config = client.config
    assert not isinstance(config, Unavailable)
    told: list[tuple[Way, ...]] = []
    try:
        for listener, chain in _chains(config, entered):
            found = through_chain(mesh, client, config, listener, chain, host, port, request)
            if not all(way.hops[-1].cause == "no-vhost" for way in found):
                return found
            told.append(found)
    except msgspec.DecodeError as error:
        unread = Hop(Stage.OUTBOUND_LISTENER, "unknown", f"its listeners can't be read: {error}", client.id)
        return (Way(1.0, (unread,), None),)
    cluster = str(ClusterName("outbound", port, "", host))
    if config.clusters.get(cluster) is not None:
        led = Hop(Stage.ROUTE, "unknown", "which of the gateway's routes led here isn't known", client.id)
        return (Way(1.0, (led,), cluster),)
    if told:
        return told[0]
    unknown = Hop(
        Stage.OUTBOUND_LISTENER,
        "unknown",
        f"no listener of the gateway at port {entered or '(any)'}",
        client.id,
    )
    return (Way(1.0, (unknown,), None),)


def _chains(config: ConfigDump, entered: int) -> Iterator[tuple[Listener, FilterChain]]:
    for listener in config.listeners:
        ports = {address.port_value for address in listener.addresses()}
        if (
            listener.traffic_direction == "INBOUND"
            or ports & AGENT_PORTS
            or (entered and entered not in ports)
        ):
            continue
        for chain in (*listener.filter_chains, listener.default_filter_chain):
            if chain is not None:
                yield listener, chain
