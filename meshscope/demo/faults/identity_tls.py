"""Faults of identity and TLS: who may connect, with what, until when."""

from __future__ import annotations

from datetime import timedelta

from meshscope.demo.faults.registry import fault
from meshscope.demo.spec import Authority, Flow, MeshSpec


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


@fault("server-cert-expired", "the certificate of details expired an hour ago and was never renewed")
def server_cert_expired(spec: MeshSpec) -> None:
    certificate = spec.workload("details-v1").certificate
    certificate.not_before = timedelta(hours=-25)
    certificate.not_after = timedelta(hours=-1)
    spec.authorities["mesh"].not_before = timedelta(days=-30)


@fault(
    "server-cert-not-yet-valid", "the certificate of details begins in an hour: its issuer's clock runs ahead"
)
def server_cert_not_yet_valid(spec: MeshSpec) -> None:
    spec.workload("details-v1").certificate.not_before = timedelta(hours=1)


@fault("root-ca-expired", "the mesh's root certificate expired an hour ago, the workloads' own are fresh")
def root_ca_expired(spec: MeshSpec) -> None:
    root = spec.authorities["mesh"]
    root.not_before = timedelta(days=-3650)
    root.not_after = timedelta(hours=-1)


@fault(
    "client-cert-untrusted-by-server", "the client's certificate comes from an authority that nobody trusts"
)
def client_cert_untrusted_by_server(spec: MeshSpec) -> None:
    spec.authorities["elsewhere"] = Authority()
    spec.workload("client").certificate.issuer = "elsewhere"


@fault(
    "server-cert-untrusted-by-client", "the certificate of details comes from an authority that nobody trusts"
)
def server_cert_untrusted_by_client(spec: MeshSpec) -> None:
    spec.authorities["elsewhere"] = Authority()
    spec.workload("details-v1").certificate.issuer = "elsewhere"


@fault(
    "server-root-bundle-outdated",
    "the mesh's root was rotated; details never got the new one into its trust bundle",
)
def server_root_bundle_outdated(spec: MeshSpec) -> None:
    spec.authorities["rotated"] = Authority()
    for workload in spec.workloads:
        workload.certificate.roots = ("mesh", "rotated")
    spec.workload("productpage-v1").certificate.issuer = "rotated"
    spec.workload("details-v1").certificate.roots = ("mesh",)


@fault("san-mismatch-service-account", "details shows the certificate of another service account")
def san_mismatch_service_account(spec: MeshSpec) -> None:
    spec.workload("details-v1").certificate.service_account = "default"


@fault(
    "san-mismatch-trust-domain", "the certificate of details is of the trust domain that the mesh had before"
)
def san_mismatch_trust_domain(spec: MeshSpec) -> None:
    spec.workload("details-v1").certificate.trust_domain = "old.example"


@fault("client-secret-not-delivered", "the client's sidecar never got its certificate")
def client_secret_not_delivered(spec: MeshSpec) -> None:
    _withhold(spec.workload("client").certificate)


@fault("server-secret-not-delivered", "the sidecar of details never got its certificate")
def server_secret_not_delivered(spec: MeshSpec) -> None:
    _withhold(spec.workload("details-v1").certificate)


def _withhold(certificate: Certificate) -> None:
    """No certificate; the proxy gives up waiting, so that its listeners run and requests show what is missing."""
    certificate.delivered = False
    certificate.fetch_timeout = "1s"

@fault(
    "no-peer-identity-for-principal-policy",
    "details takes plaintext too, but its policy asks who calls; a caller without sidecar is nobody",
)
def no_peer_identity_for_principal_policy(spec: MeshSpec) -> None:
    spec.add("""
        apiVersion: security.istio.io/v1
        kind: PeerAuthentication
        metadata: {name: details, namespace: bookinfo}
        spec:
          selector: {matchLabels: {app: details}}
          mtls: {mode: PERMISSIVE}
    """)
    spec.add("""
        apiVersion: security.istio.io/v1
        kind: AuthorizationPolicy
        metadata: {name: details-readers, namespace: bookinfo}
        spec:
          selector: {matchLabels: {app: details}}
          rules:
          - from: [{source: {namespaces: [bookinfo, legacy]}}]
    """)
    url = "http://details.bookinfo:9080/details/0"
    spec.flows.append(Flow("details-legacy", "legacy/legacy-client", url, rate=5))
