"""Faults of the control plane and of injection: configuration that doesn't arrive, proxies that aren't there."""

from __future__ import annotations

import copy
from collections.abc import Callable

from meshscope.demo.faults.registry import fault
from meshscope.demo.mesh import DemoMesh
from meshscope.demo.spec import Flow, Json, MeshSpec


def _stop_istiod(mesh: DemoMesh) -> None:
    mesh.set_control_plane(up=False)


@fault("control-plane-down", "no istiod answers the proxies any more", after_start=_stop_istiod)
def control_plane_down(spec: MeshSpec) -> None:
    for pod in spec.workload("istiod").pods:
        pod.ready = False


def _withhold(mesh: DemoMesh) -> None:
    mesh.freeze("client")
    mesh.apply(_limit_details)


def _limit_details(spec: MeshSpec) -> None:
    spec.add("""
        apiVersion: networking.istio.io/v1
        kind: DestinationRule
        metadata: {name: details, namespace: bookinfo}
        spec:
          host: details
          trafficPolicy: {connectionPool: {http: {http1MaxPendingRequests: 50}}}
    """)


@fault(
    "proxy-config-stale",
    "a DestinationRule for details is sent to every proxy, and the client's never acknowledges it",
    after_start=_withhold,
    settle_seconds=3,
)
def proxy_config_stale(_: MeshSpec) -> None:
    """All of it happens to the running mesh: see `_withhold`."""


def _apply(change: Callable[[MeshSpec], None]) -> Callable[[DemoMesh], None]:
    return lambda mesh: mesh.apply(change)


def _no_last_filter(spec: MeshSpec) -> None:
    """An EnvoyFilter takes away the router, which has to be a chain's last filter."""
    _filter(
        spec,
        "client-no-router",
        {
            "applyTo": "HTTP_FILTER",
            "match": {
                "context": "SIDECAR_OUTBOUND",
                "listener": {
                    "portNumber": 9080,
                    "filterChain": {
                        "filter": {
                            "name": "envoy.filters.network.http_connection_manager",
                            "subFilter": {"name": "envoy.filters.http.router"},
                        }
                    },
                },
            },
            "patch": {"operation": "REMOVE"},
        },
    )

    def change(listener: Json) -> None:
        for chain in (*listener["filter_chains"], listener.get("default_filter_chain", {"filters": []})):
            for network_filter in chain["filters"]:
                filters = network_filter["typed_config"].get("http_filters", [])
                filters[:] = [item for item in filters if item["name"] != "envoy.filters.http.router"]

    spec.patch("bookinfo/client", "listener", "0.0.0.0_9080", change)


@fault(
    "listener-rejected",
    "an EnvoyFilter takes the router out of the client's listener for 9080, which its Envoy refuses",
    after_start=_apply(_no_last_filter),
)
def listener_rejected(_: MeshSpec) -> None:
    """All of it happens to the running mesh: see `_no_last_filter`."""


def _impossible_ring(spec: MeshSpec) -> None:
    """An EnvoyFilter wants a hash ring whose least size is greater than its greatest."""
    ring: Json = {
        "lb_policy": "RING_HASH",
        "ring_hash_lb_config": {"minimum_ring_size": 2048, "maximum_ring_size": 1024},
    }
    match = {"context": "SIDECAR_OUTBOUND", "cluster": {"service": "details.bookinfo.svc.cluster.local"}}
    patch = {"operation": "MERGE", "value": ring}
    _filter(spec, "client-ring", {"applyTo": "CLUSTER", "match": match, "patch": patch})
    name = "outbound|9080||details.bookinfo.svc.cluster.local"
    spec.patch("bookinfo/client", "cluster", name, lambda cluster: cluster.update(ring))


@fault(
    "cluster-rejected",
    "an EnvoyFilter gives the client's cluster of details an impossible hash ring, which its Envoy refuses",
    after_start=_apply(_impossible_ring),
)
def cluster_rejected(_: MeshSpec) -> None:
    """All of it happens to the running mesh: see `_impossible_ring`."""


def _same_domain_twice(spec: MeshSpec) -> None:
    """An EnvoyFilter adds a virtual host for a domain that another one has."""
    extra: Json = {
        "name": "details-again",
        "domains": ["details.bookinfo.svc.cluster.local"],
        "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}],
    }
    match = {"context": "SIDECAR_OUTBOUND", "routeConfiguration": {"name": "9080"}}
    patch = {"operation": "ADD", "value": extra}
    _filter(spec, "client-details-again", {"applyTo": "VIRTUAL_HOST", "match": match, "patch": patch})
    spec.patch(
        "bookinfo/client",
        "route",
        "9080",
        lambda config: config["virtual_hosts"].append(copy.deepcopy(extra)),
    )


@fault(
    "route-rejected",
    "an EnvoyFilter adds details to the client's routes a second time, which its Envoy refuses",
    after_start=_apply(_same_domain_twice),
)
def route_rejected(_: MeshSpec) -> None:
    """All of it happens to the running mesh: see `_same_domain_twice`."""


def _filter(spec: MeshSpec, name: str, patch: Json) -> None:
    """An EnvoyFilter for the client; what it comes to is patched by the caller."""
    spec.objects.append(
        {
            "apiVersion": "networking.istio.io/v1alpha3",
            "kind": "EnvoyFilter",
            "metadata": {"name": name, "namespace": "bookinfo"},
            "spec": {"workloadSelector": {"labels": {"app": "client"}}, "configPatches": [patch]},
        }
    )


@fault(
    "not-injected",
    "ratings started without its sidecar in a namespace with injection; mongodb demands mTLS of it",
)
def not_injected(spec: MeshSpec) -> None:
    spec.workload("ratings-v1").sidecar = False
    spec.flows.append(Flow("mongodb-ratings", "bookinfo/ratings-v1", "tcp://mongodb:27017", rate=5))


@fault(
    "inbound-port-skipped",
    "an annotation takes the port of details away from its sidecar; its callers go on sending mTLS",
)
def inbound_port_skipped(spec: MeshSpec) -> None:
    details = spec.workload("details-v1")
    details.annotations["traffic.sidecar.istio.io/excludeInboundPorts"] = "9080"


@fault(
    "proxy-endpoints-stale",
    "the application of details moved to another port; productpage's sidecar still holds the old one",
)
def proxy_endpoints_stale(spec: MeshSpec) -> None:
    """istiod believes it has told everybody: a push was lost, as happens with a changed targetPort."""

    def old_port(assignment: Json) -> None:
        for locality in assignment["endpoints"]:
            for endpoint in locality["lb_endpoints"]:
                endpoint["endpoint"]["address"]["socket_address"]["port_value"] = 9081

    host = "outbound|9080||details.bookinfo.svc.cluster.local"
    spec.patch("bookinfo/productpage-v1", "endpoints", host, old_port)
