"""Faults of the control plane and of injection: configuration that doesn't arrive, proxies that aren't there."""

from __future__ import annotations

from meshscope.demo.faults.registry import fault
from meshscope.demo.mesh import DemoMesh
from meshscope.demo.spec import Flow, Json, MeshSpec


def _stop_istiod(mesh: DemoMesh) -> None:
    mesh.set_control_plane(up=False)


@fault("control-plane-down", "no istiod answers the proxies any more", after_start=_stop_istiod)
def control_plane_down(spec: MeshSpec) -> None:
    for pod in spec.workload("istiod").pods:
        pod.ready = False


@fault(
    "not-injected",
    "ratings started without its sidecar in a namespace with injection; mongodb demands mTLS of it",
)
def not_injected(spec: MeshSpec) -> None:
    spec.workload("ratings-v1").sidecar = False
    spec.flows.append(Flow("mongodb-ratings", "bookinfo/ratings-v1", "tcp://mongodb:27017", rate=5))


@fault(
    "inbound-port-skipped",
    "an annotation takes the port of details away from its sidecar; its callers go on sending mTLS",
)
def inbound_port_skipped(spec: MeshSpec) -> None:
    details = spec.workload("details-v1")
    details.annotations["traffic.sidecar.istio.io/excludeInboundPorts"] = "9080"


@fault(
    "proxy-endpoints-stale",
    "the application of details moved to another port; productpage's sidecar still holds the old one",
)
def proxy_endpoints_stale(spec: MeshSpec) -> None:
    """istiod believes it has told everybody: a push was lost, as happens with a changed targetPort."""

    def old_port(assignment: Json) -> None:
        for locality in assignment["endpoints"]:
            for endpoint in locality["lb_endpoints"]:
                endpoint["endpoint"]["address"]["socket_address"]["port_value"] = 9081

    host = "outbound|9080||details.bookinfo.svc.cluster.local"
    spec.patch("bookinfo/productpage-v1", "endpoints", host, old_port)
