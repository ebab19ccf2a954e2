"""Faults of time, injected faults, limits and protocols."""

from __future__ import annotations

from meshscope.demo.faults.registry import fault
from meshscope.demo.spec import Behaviour, MeshSpec


@fault("route-timeout", "details answers after a second, the route waits 300 ms")
def route_timeout(spec: MeshSpec) -> None:
    spec.workload("details-v1").behaviour = Behaviour(delay_ms=1000)
    spec.add("""
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: details, namespace: bookinfo}
        spec:
          hosts: [details]
          http:
          - timeout: 0.3s
            route: [{destination: {host: details}}]
    """)


@fault("fault-abort", "a forgotten fault injection answers half of the calls to ratings with 500")
def fault_abort(spec: MeshSpec) -> None:
    spec.add("""
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: ratings, namespace: bookinfo}
        spec:
          hosts: [ratings]
          http:
          - fault: {abort: {httpStatus: 500, percentage: {value: 50}}}
            route: [{destination: {host: ratings}}]
    """)
