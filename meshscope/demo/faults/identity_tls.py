"""Faults of identity and TLS: who may connect, with what, until when."""

from __future__ import annotations

from datetime import timedelta

from meshscope.demo.faults.registry import fault
from meshscope.demo.spec import MeshSpec


@fault("client-plaintext-server-strict", "a DestinationRule sends plaintext to details, which demands mTLS")
def client_plaintext_server_strict(spec: MeshSpec) -> None:
    spec.add("""
        apiVersion: networking.istio.io/v1
        kind: DestinationRule
        metadata: {name: details, namespace: bookinfo}
        spec:
          host: details
          trafficPolicy: {tls: {mode: DISABLE}}
    """)


@fault("client-cert-expired", "the client's certificate expired an hour ago and was never renewed")
def client_cert_expired(spec: MeshSpec) -> None:
    certificate = spec.workload("client").certificate
    certificate.not_before = timedelta(hours=-25)
    certificate.not_after = timedelta(hours=-1)
    spec.authorities["mesh"].not_before = timedelta(days=-30)
