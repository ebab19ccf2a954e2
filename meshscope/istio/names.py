"""Reads and writes the names that Istio gives to things inside Envoy, and finds the objects behind them."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct

from meshscope.envoy.config_dump import Node
from meshscope.model.names import ObjectRef, ProxyId, WorkloadId

PASSTHROUGH = "PassthroughCluster"
BLACK_HOLE = "BlackHoleCluster"
INBOUND_PASSTHROUGH = "InboundPassthroughCluster"

NETWORKING = "networking.istio.io"
SECURITY = "security.istio.io"


# --- clusters ---------------------------------------------------------------------------------------------


class ClusterName(Struct, frozen=True, order=True):
    """`outbound|9080|v1|reviews.ns.svc.cluster.local` in parts; `inbound|9080||` has only the first two."""

    direction: str
    port: int
    subset: str = ""
    fqdn: str = ""

    def __str__(self) -> str:
        return f"{self.direction}|{self.port}|{self.subset}|{self.fqdn}"

    @property
    def sni(self) -> str:
        """The server name that Istio's mTLS offers for this cluster."""
        return f"{self.direction}_.{self.port}_.{self.subset}_.{self.fqdn}"


def cluster_name(text: str) -> ClusterName | None:
    """The parts of a cluster's name; None for `PassthroughCluster`, `xds-grpc` and other forms."""
    parts = text.removesuffix(";").split("|")
    if len(parts) != 4 or parts[0] not in ("outbound", "inbound", "inbound-vip"):
        return None
    port = _port(parts[1])
    return None if port is None else ClusterName(parts[0], port, parts[2], parts[3])


def is_inbound(cluster: str) -> bool:
    """Whether an Envoy cluster leads to the pod's own application."""
    return cluster.startswith("inbound|") or cluster == INBOUND_PASSTHROUGH


def sni_name(text: str) -> ClusterName | None:
    """The cluster behind a server name such as `outbound_.9080_.v1_.reviews.ns.svc.cluster.local`."""
    parts = text.split("_.", 3)
    if len(parts) != 4 or parts[0] not in ("outbound", "inbound"):
        return None
    port = _port(parts[1])
    return None if port is None else ClusterName(parts[0], port, parts[2], parts[3])


def _port(text: str) -> int | None:
    """A port, 1 to 65535."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        return None
    return int(text) if 0 < int(text) < 65536 else None


# --- routes, listeners, statistics --------------------------------------------------------------------------


class RouteName(Struct, frozen=True):
    """A route configuration: `9080`, `host:443`, `inbound|9080||`, `http.8080` (gateways)."""

    direction: str
    port: int
    host: str = ""


def route_config_name(text: str) -> RouteName | None:
    """What a route configuration's name says; None where it isn't of Istio's form."""
    inbound = cluster_name(text)
    if inbound is not None:
        return RouteName(inbound.direction, inbound.port, inbound.fqdn)
    gateway, _, rest = text.partition(".")
    if gateway in ("http", "https"):
        port = _port(rest.partition(".")[0])
        return None if port is None else RouteName("gateway", port)
    host, colon, tail = text.rpartition(":")
    port = _port(tail)
    if port is None or (colon and not host):
        return None
    return RouteName("outbound", port, host)


class StatPrefix(Struct, frozen=True):
    """An HTTP connection manager's stat prefix: `inbound_0.0.0.0_9080;`."""

    direction: str
    address: str
    port: int


def stat_prefix(text: str) -> StatPrefix | None:
    direction, first, rest = text.removesuffix(";").partition("_")
    address, second, tail = rest.rpartition("_")
    port = _port(tail)
    if not (first and second and address) or port is None or direction not in ("inbound", "outbound"):
        return None
    return StatPrefix(direction, address, port)


def inbound_stat_prefix(port: int, address: str = "0.0.0.0") -> str:
    """The name under which an inbound port's HTTP statistics run (see meshscope.envoy.stats)."""
    return f"inbound_{address}_{port}"


# --- policies and the objects in metadata -------------------------------------------------------------------

_POLICY = re.compile(r"ns\[(?P<namespace>[^\]]*)\]-policy\[(?P<name>[^\]]*)\]-rule\[(?P<rule>[0-9]{1,6})\]")
_EXT_AUTHZ = "istio-ext-authz-"


class PolicyRule(Struct, frozen=True):
    """A rule of an AuthorizationPolicy, counted from 0, as Envoy's RBAC names it."""

    policy: ObjectRef
    rule: int

    @property
    def policy_id(self) -> str:
        return f"ns[{self.policy.namespace}]-policy[{self.policy.name}]-rule[{self.rule}]"


def policy_rule(text: str) -> PolicyRule | None:
    """The policy named anywhere in a text: a policy id, or response code details with one in it."""
    match = _POLICY.search(text)
    if match is None:
        return None
    return PolicyRule(authorization_policy(match["namespace"], match["name"]), int(match["rule"]))


def ext_authz_rule(text: str) -> PolicyRule | None:
    """The CUSTOM policy behind `istio-ext-authz-ns[…]-policy[…]-rule[…]`."""
    return policy_rule(text.removeprefix(_EXT_AUTHZ)) if text.startswith(_EXT_AUTHZ) else None


def authorization_policy(namespace: str, name: str) -> ObjectRef:
    return ObjectRef("AuthorizationPolicy", name, namespace, SECURITY)


_MATCHED_POLICY = re.compile(r"rbac_access_denied_matched_policy\[(?P<policy>.*)\]\Z", re.DOTALL)


def denied_by(details: str) -> str | None:
    """The policy id in response code (or connection termination) details, `none`, or None: no RBAC denial."""
    match = _MATCHED_POLICY.search(details)
    return match["policy"] if match else None


_CONFIG_PATH = re.compile(
    r"/apis/(?P<group>[^/]+)/(?P<version>[^/]+)/namespaces/(?P<namespace>[^/]+)/(?P<kind>[^/]+)/(?P<name>[^/]+)\Z"
)


def config_object(path: str) -> ObjectRef | None:
    """The object of `/apis/networking.istio.io/v1/namespaces/NS/virtual-service/NAME`."""
    match = _CONFIG_PATH.match(path)
    if match is None:
        return None
    words = match["kind"].split("-")
    kind = _KINDS.get(match["kind"], "".join(word[:1].upper() + word[1:] for word in words))
    return ObjectRef(kind, match["name"], match["namespace"], match["group"])


_KINDS = {
    "http-route": "HTTPRoute",
    "grpc-route": "GRPCRoute",
    "tcp-route": "TCPRoute",
    "tls-route": "TLSRoute",
}


def metadata_object(istio: dict[str, Any]) -> ObjectRef | None:
    """What `filter_metadata.istio` names: a route's VirtualService, a cluster's DestinationRule."""
    path = istio.get("config")
    return config_object(path) if isinstance(path, str) else None


# --- hosts ------------------------------------------------------------------------------------------------


class ServiceHost(Struct, frozen=True):
    """A Kubernetes service's host name in parts."""

    service: str
    namespace: str


_SERVICE_HOST = re.compile(r"(?P<service>[^.]+)\.(?P<namespace>[^.]+)\.svc(?:\..+)?\Z")


def service_host(fqdn: str) -> ServiceHost | None:
    """`reviews.ns.svc.cluster.local` (any cluster domain, or none) in parts; None for other hosts."""
    match = _SERVICE_HOST.match(fqdn)
    return ServiceHost(match["service"], match["namespace"]) if match else None


# --- nodes ------------------------------------------------------------------------------------------------


class NodeInfo(Struct, frozen=True):
    """Who a proxy says it is, in its bootstrap; what it doesn't say is ""."""

    kind: str
    """sidecar, router (a gateway), ztunnel or waypoint."""
    pod: str
    namespace: str
    ips: tuple[str, ...] = ()
    workload: WorkloadId = WorkloadId("", "")
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    service_account: str = ""
    istio_version: str = ""
    interception_mode: str = ""
    trust_domain: str = ""
    mesh_id: str = ""
    cluster_id: str = ""
    domain: str = ""
    container_ports: tuple[int, ...] = ()

    @property
    def proxy(self) -> ProxyId:
        return ProxyId(self.namespace, self.pod)

    @property
    def is_gateway(self) -> bool:
        return self.kind == "router"


_OWNER = re.compile(
    r"kubernetes://apis/(?P<api>.+)/namespaces/(?P<namespace>[^/]+)/(?P<kinds>[^/]+)/(?P<name>[^/]+)\Z"
)
_OWNER_KINDS = {
    "deployments": "Deployment",
    "statefulsets": "StatefulSet",
    "daemonsets": "DaemonSet",
    "replicasets": "ReplicaSet",
    "jobs": "Job",
    "cronjobs": "CronJob",
    "pods": "Pod",
}


def node_info(node: Node) -> NodeInfo | None:
    """Reads `sidecar~IP~POD.NS~NS.svc.DOMAIN` and the node's metadata; None where it isn't one of Istio's."""
    parts = node.id.split("~")
    if len(parts) != 4:
        return None
    kind, ip, pod_name, domain = parts
    pod, _, namespace = pod_name.rpartition(".")
    meta = node.metadata
    labels = _strings(meta.get("LABELS"))
    pod, namespace = _text(meta, "NAME") or pod, _text(meta, "NAMESPACE") or namespace
    return NodeInfo(
        kind=kind,
        pod=pod,
        namespace=namespace,
        ips=tuple(filter(None, _text(meta, "INSTANCE_IPS").split(","))) or tuple(filter(None, (ip,))),
        workload=_workload(meta, labels, namespace, pod),
        labels=labels,
        annotations=_strings(meta.get("ANNOTATIONS")),
        service_account=_text(meta, "SERVICE_ACCOUNT"),
        istio_version=_text(meta, "ISTIO_VERSION"),
        interception_mode=_text(meta, "INTERCEPTION_MODE"),
        trust_domain=_trust_domain(meta),
        mesh_id=_text(meta, "MESH_ID"),
        cluster_id=_text(meta, "CLUSTER_ID"),
        domain=domain.partition(".svc.")[2],
        container_ports=_ports(_text(meta, "POD_PORTS")),
    )


def _text(meta: dict[str, Any], key: str) -> str:
    value = meta.get(key)
    return value if isinstance(value, str) else ""


def _strings(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {key: found for key, found in value.items() if isinstance(key, str) and isinstance(found, str)}


def _workload(meta: dict[str, Any], labels: dict[str, str], namespace: str, pod: str) -> WorkloadId:
    """The owner where the node names it, else the workload's name, else the pod itself."""
    owner = _OWNER.match(_text(meta, "OWNER"))
    if owner:
        return WorkloadId(owner["namespace"], owner["name"], _OWNER_KINDS.get(owner["kinds"], "Deployment"))
    name = _text(meta, "WORKLOAD_NAME")
    if name:
        return WorkloadId(namespace, name, "Pod" if name == pod else "Deployment")
    return pod_workload(namespace, pod, labels)


def pod_workload(namespace: str, pod: str, labels: dict[str, str]) -> WorkloadId:
    """The workload that a pod's name and labels tell of where nothing names its owner."""
    template = labels.get("pod-template-hash", "")
    name, found, _ = pod.rpartition(f"-{template}-") if template else ("", "", "")
    return WorkloadId(namespace, name) if found and name else WorkloadId(namespace, pod, "Pod")


def _trust_domain(meta: dict[str, Any]) -> str:
    """Istio's MESH_ID is the trust domain unless it was set apart."""
    return _text(meta, "TRUST_DOMAIN") or _text(meta, "MESH_ID")


class _PodPort(Struct, frozen=True):
    containerPort: int = 0


def _ports(text: str) -> tuple[int, ...]:
    try:
        return tuple(port.containerPort for port in msgspec.json.decode(text, type=tuple[_PodPort, ...]))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ()
