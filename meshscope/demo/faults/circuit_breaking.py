"""Faults of circuit breaking and outlier detection: limits that overflow, endpoints that are ejected."""

from __future__ import annotations

from meshscope.demo.faults.registry import fault
from meshscope.demo.spec import Behaviour, Flow, MeshSpec


@fault(
    "max-pending", "details may have one pending request, the client sends twelve at once", settle_seconds=2
)
def max_pending(spec: MeshSpec) -> None:
    _limit(spec, "details", "{tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}")
    _burst(spec)


@fault(
    "max-requests", "details may have one active request, the client sends twelve at once", settle_seconds=2
)
def max_requests(spec: MeshSpec) -> None:
    _limit(spec, "details", "{http: {http2MaxRequests: 1}}")
    _burst(spec)


@fault("max-retries", "calls to details are retried, but only one retry may be under way", settle_seconds=2)
def max_retries(spec: MeshSpec) -> None:
    _limit(spec, "details", "{http: {maxRetries: 1}}")
    spec.workload("details-v1").behaviour = Behaviour(status=503, delay_ms=200)
    spec.add("""
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: details, namespace: bookinfo}
        spec:
          hosts: [details]
          http:
          - retries: {attempts: 3, retryOn: 5xx}
            route: [{destination: {host: details}}]
    """)
    _burst(spec)


@fault("max-connections-tcp", "mongodb may have one connection, the client opens eight", settle_seconds=2)
def max_connections_tcp(spec: MeshSpec) -> None:
    _limit(spec, "mongodb", "{tcp: {maxConnections: 1}}")
    spec.workload("mongodb-v1").behaviour = Behaviour(delay_ms=400)
    spec.flows.append(Flow("mongodb-burst", "bookinfo/client", "tcp://mongodb:27017", rate=1, burst=8))


@fault("max-connections-queueing", "details may have one connection: requests wait for it", settle_seconds=2)
def max_connections_queueing(spec: MeshSpec) -> None:
    _limit(spec, "details", "{tcp: {maxConnections: 1}}")
    url = "http://details:9080/details/0?delay_ms=50"
    spec.flows.append(Flow("details-burst", "bookinfo/client", url, rate=2, burst=12, concurrency=24))


@fault(
    "all-endpoints-ejected",
    "details answers 503 until outlier detection ejects its only pod",
    settle_seconds=4,
)
def all_endpoints_ejected(spec: MeshSpec) -> None:
    spec.workload("details-v1").behaviour = Behaviour(status=503)
    _outliers(spec, "details", "maxEjectionPercent: 100")


@fault("one-endpoint-ejected", "one of two ratings pods answers 503 and is ejected", settle_seconds=4)
def one_endpoint_ejected(spec: MeshSpec) -> None:
    pods = spec.scale("ratings-v1", 2).pods
    pods[1].behaviour = Behaviour(status=503)
    spec.flow("ratings").rate = 10
    _outliers(spec, "ratings", "maxEjectionPercent: 100")


@fault(
    "panic-mode",
    "every ratings pod is ejected, and the panic threshold sends them traffic all the same",
    settle_seconds=4,
)
def panic_mode(spec: MeshSpec) -> None:
    spec.scale("ratings-v1", 2)
    spec.workload("ratings-v1").behaviour = Behaviour(status=503)
    _outliers(spec, "ratings", "maxEjectionPercent: 100, minHealthPercent: 50")


@fault(
    "ejection-prevented-by-max-ejection-percent",
    "one of two ratings pods answers 503, but only 10 % may be ejected",
    settle_seconds=4,
)
def ejection_prevented(spec: MeshSpec) -> None:
    pods = spec.scale("ratings-v1", 2).pods
    pods[1].behaviour = Behaviour(status=503)
    _outliers(spec, "ratings", "maxEjectionPercent: 10")


def _limit(spec: MeshSpec, service: str, pool: str) -> None:
    spec.add(f"""
        apiVersion: networking.istio.io/v1
        kind: DestinationRule
        metadata: {{name: {service}, namespace: bookinfo}}
        spec:
          host: {service}
          trafficPolicy:
            connectionPool: {pool}
    """)


def _outliers(spec: MeshSpec, service: str, more: str) -> None:
    spec.add(f"""
        apiVersion: networking.istio.io/v1
        kind: DestinationRule
        metadata: {{name: {service}, namespace: bookinfo}}
        spec:
          host: {service}
          trafficPolicy:
            outlierDetection: {{consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 120s, {more}}}
    """)


def _burst(spec: MeshSpec) -> None:
    url = "http://details:9080/details/0?delay_ms=400"
    spec.flows.append(Flow("details-burst", "bookinfo/client", url, rate=1, burst=12, concurrency=24))
