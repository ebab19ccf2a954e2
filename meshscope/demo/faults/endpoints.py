"""Faults of endpoints and upstreams: nobody there, or somebody who does not answer."""

from __future__ import annotations

from meshscope.demo.faults.registry import fault
from meshscope.demo.spec import Behaviour, Flow, Json, MeshSpec, Workload


@fault("service-selects-no-pods", "a misspelt selector: the Service details selects no workload's pods")
def service_selects_no_pods(spec: MeshSpec) -> None:
    spec.find("Service", "details")["spec"]["selector"] = {"app": "detials"}


@fault("subset-selects-no-pods", "the subset v2 of details has labels that none of its pods carries")
def subset_selects_no_pods(spec: MeshSpec) -> None:
    spec.add("""
        apiVersion: networking.istio.io/v1
        kind: DestinationRule
        metadata: {name: details, namespace: bookinfo}
        spec:
          host: details
          subsets: [{name: v2, labels: {version: v2}}]
    """)
    spec.add("""
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: details, namespace: bookinfo}
        spec:
          hosts: [details]
          http:
          - route: [{destination: {host: details, subset: v2}}]
    """)


@fault("no-endpoints", "the only pod of details is not ready: its application does not listen")
def no_endpoints(spec: MeshSpec) -> None:
    workload = spec.workload("details-v1")
    workload.behaviour = Behaviour("refuse")
    for pod in workload.pods:
        pod.ready = False


@fault("app-not-listening", "the Service details leads to port 9081, and details listens at 9080")
def app_not_listening(spec: MeshSpec) -> None:
    spec.add("""
        apiVersion: v1
        kind: Service
        metadata: {name: details, namespace: bookinfo, labels: {app: details, service: details}}
        spec:
          selector: {app: details}
          ports: [{name: http, port: 9080, targetPort: 9081, protocol: TCP}]
    """)


@fault("nothing-listens-at-endpoint", "details runs without a sidecar, and its application doesn't listen")
def nothing_listens_at_endpoint(spec: MeshSpec) -> None:
    workload = _without_sidecar(spec)
    workload.behaviour = Behaviour("refuse")


@fault("connect-timeout", "packets to details, which has no sidecar, go nowhere", settle_seconds=2)
def connect_timeout(spec: MeshSpec) -> None:
    workload = _without_sidecar(spec)
    workload.behaviour = Behaviour("drop")
    spec.add("""
        apiVersion: networking.istio.io/v1
        kind: DestinationRule
        metadata: {name: details, namespace: bookinfo}
        spec:
          host: details
          trafficPolicy:
            connectionPool: {tcp: {connectTimeout: 0.3s}}
    """)


@fault("app-closes-connection", "details reads requests and closes the connection without an answer")
def app_closes_connection(spec: MeshSpec) -> None:
    spec.workload("details-v1").behaviour = Behaviour("close")


@fault("app-dies-mid-response", "details breaks off in the middle of its answers")
def app_dies_mid_response(spec: MeshSpec) -> None:
    spec.workload("details-v1").behaviour = Behaviour("die-mid-body")


@fault("application-answer", "half of the answers of details are its own 500")
def application_answer(spec: MeshSpec) -> None:
    spec.workload("details-v1").behaviour = Behaviour(status=500, share=0.5)


@fault("app-overloaded-by-proxy-limit", "a Sidecar lets details' proxy pass one request at a time")
def app_overloaded_by_proxy_limit(spec: MeshSpec) -> None:
    spec.add("""
        apiVersion: networking.istio.io/v1
        kind: Sidecar
        metadata: {name: details, namespace: bookinfo}
        spec:
          workloadSelector: {labels: {app: details}}
          inboundConnectionPool:
            tcp: {maxConnections: 1}
            http: {http1MaxPendingRequests: 1}
    """)

    def limit(cluster: Json) -> None:
        thresholds = cluster["circuit_breakers"]["thresholds"][0]
        thresholds.update({"max_connections": 1, "max_pending_requests": 1})

    spec.patch("bookinfo/details-v1", "cluster", "inbound|9080||", limit)
    url = "http://details:9080/details/0?delay_ms=400"
    spec.flows.append(Flow("details-burst", "bookinfo/client", url, rate=1, burst=8))


@fault("listener-connection-limit", "the listener of details takes two connections at a time")
def listener_connection_limit(spec: MeshSpec) -> None:
    def limit(bootstrap: Json) -> None:
        layer = bootstrap["layered_runtime"]["layers"][0]["static_layer"]
        layer["envoy.resource_limits.listener.virtualInbound.connection_limit"] = 2

    spec.patch("bookinfo/details-v1", "bootstrap", "bootstrap", limit)
    url = "http://details:9080/details/0?delay_ms=400"
    spec.flows.append(Flow("details-burst", "bookinfo/client", url, rate=1, burst=8))


@fault("overload-manager", "the proxy of details thinks that its heap is full, and takes no requests")
def overload_manager(spec: MeshSpec) -> None:
    heap = "envoy.resource_monitors.fixed_heap"

    def full(bootstrap: Json) -> None:
        monitor: Json = {
            "name": heap,
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                "max_heap_size_bytes": 1 << 20,
            },
        }
        action: Json = {
            "name": "envoy.overload_actions.stop_accepting_requests",
            "triggers": [{"name": heap, "threshold": {"value": 0.95}}],
        }
        manager = bootstrap["overload_manager"]
        manager["refresh_interval"] = "0.1s"
        manager["resource_monitors"].append(monitor)
        manager["actions"] = [action]

    spec.patch("bookinfo/details-v1", "bootstrap", "bootstrap", full)


@fault("endpoints-unhealthy", "istiod marks the only endpoint of details as unhealthy")
def endpoints_unhealthy(spec: MeshSpec) -> None:
    _mark_details(spec, "UNHEALTHY")


@fault("endpoints-draining", "the only endpoint of details is draining, and nothing has taken its place")
def endpoints_draining(spec: MeshSpec) -> None:
    _mark_details(spec, "DRAINING")


def _mark_details(spec: MeshSpec, status: str) -> None:
    def mark(assignment: Json) -> None:
        for locality in assignment["endpoints"]:
            for endpoint in locality["lb_endpoints"]:
                endpoint["health_status"] = status

    spec.patch("*", "endpoints", "outbound|9080||details.bookinfo.svc.cluster.local", mark)


@fault("dns-failure", "the name of an external host, which the proxy resolves by itself, has no address")
def dns_failure(spec: MeshSpec) -> None:
    spec.add("""
        apiVersion: networking.istio.io/v1
        kind: ServiceEntry
        metadata: {name: publisher, namespace: bookinfo}
        spec:
          hosts: [publisher.invalid]
          location: MESH_EXTERNAL
          resolution: DNS
          ports: [{number: 9080, name: http, protocol: HTTP}]
    """)

    def ask_nobody(cluster: Json) -> None:
        """No name server listens there, so that not even the question leaves this host."""
        nobody = {"socket_address": {"address": "127.0.0.1", "port_value": 9}}
        kind = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
        cluster["typed_dns_resolver_config"] = {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {"@type": kind, "resolvers": [nobody]},
        }

    spec.patch("*", "cluster", "outbound|9080||publisher.invalid", ask_nobody)
    url = "http://publisher.invalid:9080/books"
    spec.flows.append(Flow("publisher", "bookinfo/productpage-v1", url, rate=5))


def _without_sidecar(spec: MeshSpec) -> Workload:
    """details as its owner wants it: not injected."""
    workload = spec.workload("details-v1")
    workload.sidecar = False
    workload.labels["sidecar.istio.io/inject"] = "false"
    return workload
