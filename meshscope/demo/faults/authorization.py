"""Faults of authorization: policies that refuse, and identities that are missing."""

from __future__ import annotations

from meshscope.demo.faults.registry import fault
from meshscope.demo.spec import MeshSpec


@fault("deny-policy", "a DENY policy on ratings refuses GET from reviews")
def deny_policy(spec: MeshSpec) -> None:
    spec.add("""
        apiVersion: security.istio.io/v1
        kind: AuthorizationPolicy
        metadata: {name: ratings-deny, namespace: bookinfo}
        spec:
          action: DENY
          selector: {matchLabels: {app: ratings}}
          rules:
          - from: [{source: {principals: [cluster.local/ns/bookinfo/sa/bookinfo-reviews]}}]
            to: [{operation: {methods: [GET]}}]
    """)
