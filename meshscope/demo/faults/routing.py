"""Faults of routing: hosts, routes and subsets that lead nowhere."""

from __future__ import annotations

from meshscope.demo.faults.registry import fault
from meshscope.demo.spec import MeshSpec


@fault(
    "subset-not-defined", "a route sends half of reviews to the subset v4, which no DestinationRule defines"
)
def subset_not_defined(spec: MeshSpec) -> None:
    spec.add("""
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: reviews, namespace: bookinfo}
        spec:
          hosts: [reviews]
          http:
          - name: split
            route:
            - {destination: {host: reviews, subset: v1}, weight: 50}
            - {destination: {host: reviews, subset: v4}, weight: 50}
    """)
