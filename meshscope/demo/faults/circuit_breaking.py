"""Faults of circuit breaking and outlier detection: limits that overflow, endpoints that are ejected."""

from __future__ import annotations

from meshscope.demo.faults.registry import fault
from meshscope.demo.spec import Flow, MeshSpec


@fault(
    "max-pending", "details may have one pending request, the client sends twelve at once", settle_seconds=2
)
def max_pending(spec: MeshSpec) -> None:
    spec.add("""
        apiVersion: networking.istio.io/v1
        kind: DestinationRule
        metadata: {name: details, namespace: bookinfo}
        spec:
          host: details
          trafficPolicy:
            connectionPool:
              tcp: {maxConnections: 1}
              http: {http1MaxPendingRequests: 1}
    """)
    url = "http://details:9080/details/0?delay_ms=400"
    spec.flows.append(Flow("details-burst", "bookinfo/client", url, rate=1, burst=12, concurrency=24))
