"""The healthy mesh that every fault starts from: bookinfo, a client, and a workload outside the mesh."""

from __future__ import annotations

from meshscope.demo.spec import Flow, MeshSpec, Port, Workload

_SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}, service: {name}}}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: {port_name}, port: {port}, targetPort: {port}, protocol: TCP}}]
"""

_MESH_POLICY = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: bookinfo}
spec: {mtls: {mode: STRICT}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: bookinfo}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
  - {name: v3, labels: {version: v3}}
"""

_ISTIOD = """
apiVersion: v1
kind: Service
metadata: {name: istiod, namespace: istio-system, labels: {app: istiod, istio: pilot, istio.io/rev: default}}
spec:
  selector: {app: istiod, istio: pilot}
  ports:
  - {name: grpc-xds, port: 15010, targetPort: 15010, protocol: TCP}
  - {name: https-dns, port: 15012, targetPort: 15012, protocol: TCP}
  - {name: https-webhook, port: 443, targetPort: 15017, protocol: TCP}
  - {name: http-monitoring, port: 15014, targetPort: 15014, protocol: TCP}
"""


def bookinfo() -> MeshSpec:
    """Bookinfo in STRICT mTLS with steady traffic from `client` through productpage to mongodb."""
    spec = MeshSpec()
    spec.namespaces = {
        "kube-system": {},
        "default": {},
        "istio-system": {},
        "bookinfo": {"istio-injection": "enabled"},
        "legacy": {},
    }
    istiod = Workload("istiod", "istio-system", "istiod", service_account="istiod", sidecar=False)
    istiod.labels = {"istio": "pilot", "istio.io/rev": "default", "sidecar.istio.io/inject": "false"}
    spec.add_workload(istiod)
    _bookinfo_workload(
        spec, "productpage", "v1", calls=["http://details:9080/details/0", "http://reviews:9080/reviews/0"]
    )
    _bookinfo_workload(spec, "details", "v1")
    _bookinfo_workload(spec, "reviews", "v1")
    _bookinfo_workload(spec, "reviews", "v2", calls=["http://ratings:9080/ratings/0"])
    _bookinfo_workload(spec, "reviews", "v3", calls=["http://ratings:9080/ratings/0"])
    _bookinfo_workload(spec, "ratings", "v1", calls=["tcp://mongodb:27017"])
    mongodb = Workload("mongodb-v1", "bookinfo", "mongodb", service_account="bookinfo-mongodb")
    mongodb.ports = [Port(27017, "tcp-echo")]
    spec.add_workload(mongodb)
    spec.add_workload(Workload("client", "bookinfo", "client", service_account="client"))
    spec.add_workload(Workload("legacy-client", "legacy", "legacy-client", sidecar=False))
    for name in ("productpage", "details", "reviews", "ratings"):
        spec.add(_SERVICE.format(name=name, namespace="bookinfo", port_name="http", port=9080))
    spec.add(_SERVICE.format(name="mongodb", namespace="bookinfo", port_name="tcp-mongo", port=27017))
    spec.add(_ISTIOD)
    spec.add(_MESH_POLICY)
    spec.flows = [
        Flow("productpage", "bookinfo/client", "http://productpage:9080/productpage", rate=10),
        Flow("ratings", "bookinfo/client", "http://ratings:9080/ratings/0", rate=2),
    ]
    return spec


def _bookinfo_workload(spec: MeshSpec, app: str, version: str, calls: list[str] | None = None) -> None:
    workload = Workload(f"{app}-{version}", "bookinfo", app, version, f"bookinfo-{app}")
    workload.ports = [Port(9080)]
    workload.calls = calls or []
    spec.add_workload(workload)
