"""Faults of identity and TLS: who may connect, with what, until when."""

from __future__ import annotations

from datetime import timedelta

from meshscope.demo.faults.registry import fault
from meshscope.demo.spec import Authority, Certificate, Flow, Json, MeshSpec


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


@fault(
    "client-without-sidecar-server-strict",
    "a workload outside the mesh calls details, which demands mTLS",
)
def client_without_sidecar_server_strict(spec: MeshSpec) -> None:
    url = "http://details.bookinfo:9080/details/0"
    spec.flows.append(Flow("details-legacy", "legacy/legacy-client", url, rate=5))


@fault(
    "auto-mtls-endpoint-not-labelled",
    "details has its sidecar, but lost the label by which auto mTLS knows that",
)
def auto_mtls_endpoint_not_labelled(spec: MeshSpec) -> None:
    spec.workload("details-v1").tls_label = False


@fault("client-mtls-server-disable", "a DestinationRule wants mTLS to details, whose policy is DISABLE")
def client_mtls_server_disable(spec: MeshSpec) -> None:
    spec.add(_details_mode("DISABLE"))
    spec.add(_details_tls("{mode: ISTIO_MUTUAL}"))


@fault("client-mtls-server-without-sidecar", "a DestinationRule wants mTLS to details, which has no sidecar")
def client_mtls_server_without_sidecar(spec: MeshSpec) -> None:
    details = spec.workload("details-v1")
    details.sidecar = False
    # Left out of injection on purpose: that it has no sidecar is nobody's mistake.
    details.labels["sidecar.istio.io/inject"] = "false"
    spec.add(_details_tls("{mode: ISTIO_MUTUAL}"))


@fault("client-sends-no-certificate", "a DestinationRule uses TLS without client certificate to details")
def client_sends_no_certificate(spec: MeshSpec) -> None:
    spec.add(_details_tls("{mode: SIMPLE, insecureSkipVerify: true}"))


@fault(
    "tls-without-istio-alpn",
    "a DestinationRule uses TLS that isn't the mesh's own to details, which takes mesh TLS and plaintext",
)
def tls_without_istio_alpn(spec: MeshSpec) -> None:
    spec.add(_details_mode("PERMISSIVE"))
    spec.add(_details_tls("{mode: SIMPLE, insecureSkipVerify: true}"))


@fault(
    "sni-matches-no-filter-chain",
    "an EnvoyFilter binds the chains of details to its server name; a DestinationRule sends another",
)
def sni_matches_no_filter_chain(spec: MeshSpec) -> None:
    spec.add("""
        apiVersion: networking.istio.io/v1alpha3
        kind: EnvoyFilter
        metadata: {name: details-server-name, namespace: bookinfo}
        spec:
          workloadSelector: {labels: {app: details}}
          configPatches:
          - applyTo: FILTER_CHAIN
            match: {context: SIDECAR_INBOUND, listener: {portNumber: 9080}}
            patch:
              operation: MERGE
              value:
                filter_chain_match:
                  server_names: [outbound_.9080_._.details.bookinfo.svc.cluster.local]
    """)

    def bind(listener: Json) -> None:
        for chain in listener["filter_chains"]:
            if chain["filter_chain_match"].get("destination_port") == 9080:
                name = "outbound_.9080_._.details.bookinfo.svc.cluster.local"
                chain["filter_chain_match"]["server_names"] = [name]

    spec.patch("bookinfo/details-v1", "listener", "virtualInbound", bind)
    spec.add(_details_tls("{mode: ISTIO_MUTUAL, sni: details.example.com}"))


@fault("tls-version-mismatch", "the mesh demands TLS 1.3, an EnvoyFilter keeps productpage at TLS 1.2")
def tls_version_mismatch(spec: MeshSpec) -> None:
    spec.mesh_config["meshMTLS"] = {"minProtocolVersion": "TLSV1_3"}
    spec.add("""
        apiVersion: networking.istio.io/v1alpha3
        kind: EnvoyFilter
        metadata: {name: productpage-tls12, namespace: bookinfo}
        spec:
          workloadSelector: {labels: {app: productpage}}
          configPatches:
          - applyTo: CLUSTER
            match: {context: SIDECAR_OUTBOUND, cluster: {service: details.bookinfo.svc.cluster.local}}
            patch:
              operation: MERGE
              value:
                transport_socket_matches:
                - name: tlsMode-istio
                  transport_socket:
                    typed_config: {common_tls_context: {tls_params: {tls_maximum_protocol_version: TLSv1_2}}}
    """)

    def server_minimum(listener: Json) -> None:
        for chain in listener["filter_chains"]:
            if "transport_socket" in chain:
                _tls_parameters(chain["transport_socket"])["tls_minimum_protocol_version"] = "TLSv1_3"

    def client_maximum(cluster: Json) -> None:
        socket = cluster["transport_socket_matches"][0]["transport_socket"]
        _tls_parameters(socket)["tls_maximum_protocol_version"] = "TLSv1_2"

    details = "outbound|9080||details.bookinfo.svc.cluster.local"
    spec.patch("*", "listener", "virtualInbound", server_minimum)
    spec.patch("bookinfo/productpage-v1", "cluster", details, client_maximum)


def _tls_parameters(socket: Json) -> Json:
    common: Json = socket["typed_config"]["common_tls_context"]
    parameters: Json = common["tls_params"]
    return parameters


@fault(
    "plaintext-traffic-allowed",
    "details takes plaintext beside mTLS, and a workload outside the mesh uses that",
)
def plaintext_traffic_allowed(spec: MeshSpec) -> None:
    spec.add(_details_mode("PERMISSIVE"))
    url = "http://details.bookinfo:9080/details/0"
    spec.flows.append(Flow("details-legacy", "legacy/legacy-client", url, rate=5))


def _details_mode(mode: str) -> str:
    return f"""
        apiVersion: security.istio.io/v1
        kind: PeerAuthentication
        metadata: {{name: details, namespace: bookinfo}}
        spec:
          selector: {{matchLabels: {{app: details}}}}
          mtls: {{mode: {mode}}}
    """


def _details_tls(settings: str) -> str:
    return f"""
        apiVersion: networking.istio.io/v1
        kind: DestinationRule
        metadata: {{name: details, namespace: bookinfo}}
        spec:
          host: details
          trafficPolicy: {{tls: {settings}}}
    """


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
