"""The outbound clusters of one proxy with their endpoints: DestinationRules, auto-mTLS, limits, ejection."""

from __future__ import annotations

from meshscope.demo.pilot.envoy_json import (
    address,
    cluster_name,
    config_source,
    http_protocol_options,
    mesh_client_context,
    raw_buffer,
    unlimited,
    upstream_tls,
)
from meshscope.demo.pilot.registry import Endpoint, Registry, Service, ServicePort
from meshscope.demo.spec import CLUSTER_DOMAIN, Json, Workload

_CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"


def fixed_clusters() -> list[Json]:
    """The three that every Istio proxy has."""
    options = {
        "common_http_protocol_options": {"idle_timeout": "300s"},
        "use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}},
    }
    passthrough: Json = {
        "@type": _CLUSTER,
        "type": "ORIGINAL_DST",
        "connect_timeout": "10s",
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": {"thresholds": [unlimited()]},
        # Istio gives both of them this one.
        "alt_stat_name": "PassthroughCluster;",
        "typed_extension_protocol_options": http_protocol_options(options),
    }
    inbound_source = {"source_address": {"address": "127.0.0.6", "port_value": 0}}
    black_hole = {
        "@type": _CLUSTER,
        "name": "BlackHoleCluster",
        "type": "STATIC",
        "connect_timeout": "10s",
        "alt_stat_name": "BlackHoleCluster;",
    }
    return [
        black_hole,
        {**passthrough, "name": "InboundPassthroughCluster", "upstream_bind_config": inbound_source},
        {**passthrough, "name": "PassthroughCluster"},
    ]


def outbound_clusters(registry: Registry, workload: Workload) -> tuple[list[Json], dict[str, Json]]:
    """The clusters for every visible service port and subset, and the assignments of the EDS ones."""
    clusters: list[Json] = []
    assignments: dict[str, Json] = {}
    for service in registry.visible(workload):
        rule = registry.destination_rule(service, workload)
        for port in service.ports:
            subsets: list[Json] = [{"name": "", "labels": {}}]
            subsets += rule["spec"].get("subsets", []) if rule else []
            for subset in subsets:
                cluster = _cluster(registry, service, port, rule, subset)
                clusters.append(cluster)
                if cluster["type"] == "EDS":
                    assignments[cluster["name"]] = _assignment(registry, service, port, subset)
    return clusters, assignments


def _cluster(
    registry: Registry,
    service: Service,
    port: ServicePort,
    rule: Json | None,
    subset: Json,
) -> Json:
    name = cluster_name(port.number, subset["name"], service.host)
    policy = _policy(rule, subset, port.number)
    istio: Json = {"services": [{"host": service.host, "name": service.name, "namespace": service.namespace}]}
    if rule:
        metadata = rule["metadata"]
        istio["config"] = (
            f"/apis/networking.istio.io/v1/namespaces/{metadata['namespace']}"
            f"/destination-rule/{metadata['name']}"
        )
    if subset["name"]:
        istio["subset"] = subset["name"]
    cluster: Json = {
        "@type": _CLUSTER,
        "name": name,
        "type": service.resolution,
        **_discovery(service, port, name),
        "connect_timeout": "10s",
        "lb_policy": _load_balancer(policy, service),
        "circuit_breakers": {"thresholds": [unlimited()]},
        "metadata": {"filter_metadata": {"istio": istio}},
        "common_lb_config": {"healthy_panic_threshold": {}},
        "alt_stat_name": f"{name};",
    }
    _apply_pool(cluster, policy.get("connectionPool", {}), port)
    _apply_outliers(cluster, policy.get("outlierDetection"))
    _apply_tls(registry, cluster, service, port, subset["name"], policy.get("tls"))
    return cluster


def _discovery(service: Service, port: ServicePort, name: str) -> Json:
    if service.resolution == "EDS":
        return {"eds_cluster_config": {"eds_config": config_source(), "service_name": name}}
    if service.resolution == "ORIGINAL_DST":
        return {}
    hosts = service.given or (service.host,)
    target = port.target if isinstance(port.target, int) else port.number
    endpoints = [{"endpoint": {"address": address(host, target)}} for host in hosts]
    return {
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        "dns_lookup_family": "V4_ONLY",
        "dns_refresh_rate": "5s",
        "respect_dns_ttl": True,
    }


def _policy(rule: Json | None, subset: Json, port: int) -> Json:
    """The traffic policy of a port and subset: the subset's fields over the rule's, a port's over both."""
    merged: Json = {}
    rule_policy = rule["spec"].get("trafficPolicy", {}) if rule else {}
    for policy in (rule_policy, subset.get("trafficPolicy", {})):
        merged.update({key: value for key, value in policy.items() if key != "portLevelSettings"})
        for settings in policy.get("portLevelSettings", []):
            if settings.get("port", {}).get("number") == port:
                merged.update({key: value for key, value in settings.items() if key != "port"})
    return merged


def _load_balancer(policy: Json, service: Service) -> str:
    if service.resolution == "ORIGINAL_DST":
        return "CLUSTER_PROVIDED"
    simple = policy.get("loadBalancer", {}).get("simple", "LEAST_REQUEST")
    return {"ROUND_ROBIN": "ROUND_ROBIN", "RANDOM": "RANDOM"}.get(simple, "LEAST_REQUEST")


def _apply_pool(cluster: Json, pool: Json, port: ServicePort) -> None:
    tcp, http = pool.get("tcp", {}), pool.get("http", {})
    thresholds = cluster["circuit_breakers"]["thresholds"][0]
    limits = {
        "max_connections": tcp.get("maxConnections"),
        "max_pending_requests": http.get("http1MaxPendingRequests"),
        "max_requests": http.get("http2MaxRequests"),
        "max_retries": http.get("maxRetries"),
    }
    thresholds.update({key: value for key, value in limits.items() if value})
    if "connectTimeout" in tcp:
        cluster["connect_timeout"] = tcp["connectTimeout"]
    common: Json = {}
    if http.get("maxRequestsPerConnection"):
        common["max_requests_per_connection"] = http["maxRequestsPerConnection"]
    if http.get("idleTimeout"):
        common["idle_timeout"] = http["idleTimeout"]
    http2 = port.protocol == "http2" or http.get("h2UpgradePolicy") == "UPGRADE"
    options: Json = {"common_http_protocol_options": common} if common else {}
    if http2:
        options["explicit_http_config"] = {"http2_protocol_options": {}}
    elif common:
        options["explicit_http_config"] = {"http_protocol_options": {}}
    if options:
        cluster["typed_extension_protocol_options"] = http_protocol_options(options)


def _apply_outliers(cluster: Json, outliers: Json | None) -> None:
    if outliers is None:
        return
    consecutive = outliers.get("consecutive5xxErrors")
    gateway = outliers.get("consecutiveGatewayErrors")
    detection: Json = {
        "interval": outliers.get("interval"),
        "base_ejection_time": outliers.get("baseEjectionTime"),
        "max_ejection_percent": outliers.get("maxEjectionPercent"),
        "enforcing_success_rate": 0,
    }
    if consecutive is not None:
        detection["consecutive_5xx"] = consecutive
        detection["enforcing_consecutive_5xx"] = 100 if consecutive else 0
    if gateway is not None:
        detection["consecutive_gateway_failure"] = gateway
        detection["enforcing_consecutive_gateway_failure"] = 100 if gateway else 0
    cluster["outlier_detection"] = {key: value for key, value in detection.items() if value is not None}
    if "minHealthPercent" in outliers:
        percent = outliers["minHealthPercent"]
        cluster["common_lb_config"]["healthy_panic_threshold"] = {"value": percent} if percent else {}


def _apply_tls(
    registry: Registry,
    cluster: Json,
    service: Service,
    port: ServicePort,
    subset: str,
    tls: Json | None,
) -> None:
    """An explicit DestinationRule decides; else auto-mTLS, endpoint by endpoint."""
    options = cluster.get("typed_extension_protocol_options", {})
    http2 = any("http2_protocol_options" in item.get("explicit_http_config", {}) for item in options.values())
    sni = f"outbound_.{port.number}_.{subset}_.{service.host}"
    if tls is None:
        if service.external or service.resolution == "ORIGINAL_DST" or _plaintext_service(registry, service):
            return
        sans = _identities(registry, service)
        socket = upstream_tls(mesh_client_context(sans, http2=http2), sni)
        cluster["transport_socket_matches"] = [
            {"name": "tlsMode-istio", "match": {"tlsMode": "istio"}, "transport_socket": socket},
            {"name": "tlsMode-disabled", "match": {}, "transport_socket": raw_buffer()},
        ]
        return
    mode = tls.get("mode", "DISABLE")
    if mode == "ISTIO_MUTUAL":
        sans = tls.get("subjectAltNames") or _identities(registry, service)
        common = mesh_client_context(sans, http2=http2)
        cluster["transport_socket"] = upstream_tls(common, tls.get("sni") or sni)
    elif mode == "SIMPLE":
        common = {"validation_context": {}} if tls.get("insecureSkipVerify") else _trust_mesh_root(tls)
        if http2:
            common["alpn_protocols"] = ["h2"]
        if not tls.get("sni"):
            _name_server_by_host(cluster, tls)
        cluster["transport_socket"] = upstream_tls(common, tls.get("sni", ""))


def _name_server_by_host(cluster: Json, tls: Json) -> None:
    """SIMPLE without an SNI takes the request's host, and checks the certificate against it unless told not to."""
    upstream: Json = {"auto_sni": True}
    if not tls.get("subjectAltNames") and not tls.get("insecureSkipVerify"):
        upstream["auto_san_validation"] = True
    options = cluster.setdefault("typed_extension_protocol_options", http_protocol_options({}))
    for option in options.values():
        option["upstream_http_protocol_options"] = upstream
        option.setdefault("explicit_http_config", {"http_protocol_options": {}})


def _trust_mesh_root(tls: Json) -> Json:
    """SIMPLE with caCertificates: the mesh's own root stands for the file that the rule names."""
    sans = [{"exact": san} for san in tls.get("subjectAltNames", [])]
    return {
        "combined_validation_context": {
            "default_validation_context": {"match_subject_alt_names": sans} if sans else {},
            "validation_context_sds_secret_config": {
                "name": "ROOTCA",
                "sds_config": config_source(),
            },
        }
    }


def _plaintext_service(registry: Registry, service: Service) -> bool:
    selected = registry.selected(service)
    return bool(selected) and all(registry.peer_mode(workload, None) == "DISABLE" for workload, _ in selected)


def _identities(registry: Registry, service: Service) -> list[str]:
    """The SPIFFE ids that the service's pods may show."""
    accounts = {(workload.namespace, workload.service_account) for workload, _ in registry.selected(service)}
    return sorted(f"spiffe://{CLUSTER_DOMAIN}/ns/{space}/sa/{name}" for space, name in accounts)


def _assignment(registry: Registry, service: Service, port: ServicePort, subset: Json) -> Json:
    wanted = subset.get("labels", {})
    found = [
        endpoint
        for endpoint in registry.endpoints(service, port)
        if endpoint.ready and wanted.items() <= endpoint.labels.items()
    ]
    endpoints = [_lb_endpoint(registry, endpoint) for endpoint in found]
    groups = [{"locality": {}, "lb_endpoints": endpoints, "load_balancing_weight": len(endpoints)}]
    return {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": cluster_name(port.number, subset["name"], service.host),
        "endpoints": groups if endpoints else [],
    }


def _lb_endpoint(registry: Registry, endpoint: Endpoint) -> Json:
    metadata: Json = {}
    workload, labels = endpoint.workload, endpoint.labels
    if workload:
        mode = registry.peer_mode(workload, endpoint.port) if workload.sidecar else "DISABLE"
        if labels.get("security.istio.io/tlsMode") == "istio" and mode != "DISABLE":
            metadata["envoy.transport_socket_match"] = {"tlsMode": "istio"}
        name = f"{workload.name};{workload.namespace};{workload.app};{workload.version};Kubernetes"
        metadata["istio"] = {"workload": name}
    result: Json = {
        "endpoint": {"address": address(endpoint.address, endpoint.port)},
        "load_balancing_weight": 1,
    }
    if metadata:
        result["metadata"] = {"filter_metadata": metadata}
    return result
