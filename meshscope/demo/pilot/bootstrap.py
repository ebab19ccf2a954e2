"""The bootstrap of one proxy: node metadata, statistics, static clusters, where the resources come from."""

from __future__ import annotations

import json
from pathlib import Path

from meshscope.demo.pilot.envoy_json import HCM, address, config_source
from meshscope.demo.spec import CLUSTER_DOMAIN, ISTIO_VERSION, Json, MeshSpec, Pod, Workload

_EXTENSIONS = "type.googleapis.com/envoy.extensions"
INJECTION_STATUS = (
    '{"initContainers":["istio-init","istio-proxy"],"containers":null,"volumes":["workload-socket",'
    '"credential-socket","workload-certs","istio-envoy","istio-data","istio-podinfo","istio-token",'
    '"istiod-ca-cert","istio-ca-crl"],"imagePullSecrets":null,"revision":"default"}'
)
# Istio's tags and default inclusion: what turns stat names into labels, and what is kept at all.
_TAGS = {
    "cluster_name": r"^cluster(\.(.+);)",
    "http_conn_manager_prefix": r"^http\.(((?:[_.[:digit:]\w]*|[_\[\]aAbBcCdDeEfF[:digit:]\w\:]*));\.)",
    "thread_name": r"^server(\.(.+))\.watchdog",
    "tcp_prefix": r"^tcp\.((.*?)\.)\w+?$",
    "response_code": r"_rq(_(\d{3}))$",
    "response_code_class": r"_rq(_(\dxx))$",
    "http_conn_manager_listener_prefix": (
        r"^listener(?=\.).*?\.http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)"
    ),
    "listener_address": r"^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)",
    "mongo_prefix": r"^mongo\.(.+?)\.(collection|cmd|cx_|op_|delays_|decoding_)(.*?)$",
    "cache": r"(cache\.(.+?)\.)",
    "component": r"(component\.(.+?)\.)",
    "tag": r"(tag\.(.+?);\.)",
    "wasm_filter": r"(wasm_filter\.(.+?)\.)",
    "authz_enforce_result": r"rbac(\.(allowed|denied))",
    "authz_dry_run_action": r"(\.istio_dry_run_(allow|deny)_)",
    "authz_dry_run_result": r"(\.shadow_(allowed|denied))",
}
_PREFIXES = ("reporter=", "cluster_manager", "listener_manager", "server", "cluster.xds-grpc", "wasm")
_SUFFIXES = ("rbac.allowed", "rbac.denied", "shadow_allowed", "shadow_denied")


def node(spec: MeshSpec, workload: Workload, pod: Pod) -> Json:
    """The identity a proxy presents: what istiod and meshscope take its names from."""
    ip = spec.pod_ip(pod)
    containers = [{"containerPort": port.number, "protocol": "TCP"} for port in workload.ports]
    owner = f"kubernetes://apis/apps/v1/namespaces/{workload.namespace}/deployments/{workload.name}"
    labels = {key: value for key, value in workload.pod_labels(pod).items() if key != "pod-template-hash"}
    return {
        "id": f"sidecar~{ip}~{pod.name}.{workload.namespace}~{workload.namespace}.svc.{CLUSTER_DOMAIN}",
        "cluster": f"{workload.app}.{workload.namespace}",
        "metadata": {
            "CLUSTER_ID": "Kubernetes",
            "PILOT_SAN": ["istiod.istio-system.svc"],
            "PROXY_CONFIG": _proxy_config(spec),
            "OWNER": owner,
            "NAME": pod.name,
            "POD_PORTS": json.dumps(containers, separators=(",", ":")),
            "ENVOY_SKIP_DEPRECATED_LOGS": "true",
            "INTERCEPTION_MODE": "REDIRECT",
            "WORKLOAD_NAME": workload.name,
            "LABELS": labels,
            "ANNOTATIONS": pod_annotations(workload, pod),
            "APP_CONTAINERS": workload.app,
            "MESH_ID": CLUSTER_DOMAIN,
            "WORKLOAD_IDENTITY_SOCKET_FILE": "socket",
            "NAMESPACE": workload.namespace,
            "ISTIO_VERSION": ISTIO_VERSION,
            "NODE_NAME": "demo",
            "SERVICE_ACCOUNT": workload.service_account,
            "ENVOY_STATUS_PORT": 15021,
            "METADATA_DISCOVERY": "false",
            "ENVOY_PROMETHEUS_PORT": 15090,
            "INSTANCE_IPS": ip,
        },
        "locality": {},
    }


def pod_annotations(workload: Workload, pod: Pod) -> dict[str, str]:
    """The pod's annotations as the injector leaves them."""
    injected = {
        "istio.io/rev": "default",
        "kubectl.kubernetes.io/default-container": workload.app,
        "kubectl.kubernetes.io/default-logs-container": workload.app,
        "prometheus.io/path": "/stats/prometheus",
        "prometheus.io/port": "15020",
        "prometheus.io/scrape": "true",
        "sidecar.istio.io/status": INJECTION_STATUS,
    }
    return {**(injected if workload.sidecar else {}), **workload.annotations, **pod.annotations}


def bootstrap(spec: MeshSpec, workload: Workload, pod: Pod, sockets: Path) -> Json:
    """The whole bootstrap. Resources come over REST; the ADS stream carries none and shows the connection."""
    ip = spec.pod_ip(pod)
    grpc = {"envoy_grpc": {"cluster_name": "xds-grpc"}}
    return {
        "node": node(spec, workload, pod),
        "static_resources": {
            "listeners": _static_listeners(ip),
            "clusters": _static_clusters(ip, sockets),
        },
        "dynamic_resources": {
            "lds_config": config_source(),
            "cds_config": config_source(),
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "grpc_services": [grpc],
                "set_node_on_first_message_only": True,
                "transport_api_version": "V3",
            },
        },
        # The pod's own address, where on one host the kernel would take any.
        "cluster_manager": {"upstream_bind_config": {"source_address": {"address": ip, "port_value": 0}}},
        "admin": {
            "address": address(ip, 15000),
            "access_log": [
                {
                    "name": "envoy.access_loggers.file",
                    "typed_config": {
                        "@type": f"{_EXTENSIONS}.access_loggers.file.v3.FileAccessLog",
                        "path": "/dev/null",
                    },
                }
            ],
        },
        "stats_config": _stats(spec),
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{_EXTENSIONS}.resource_monitors.downstream_connections.v3"
                        ".DownstreamConnectionsConfig",
                        "max_active_downstream_connections": "2147483647",
                    },
                }
            ]
        },
        "layered_runtime": {
            "layers": [
                {
                    "name": "global config",
                    "static_layer": {
                        "re2.max_program_size.error_level": "32768",
                        "envoy.reloadable_features.http_reject_path_with_fragment": False,
                    },
                },
                {"name": "admin", "admin_layer": {}},
            ]
        },
        "application_log_config": {
            "log_format": {"text_format": "%Y-%m-%dT%T.%fZ\t%l\tenvoy %n %g:%#\t%v\tthread=%t"}
        },
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
    }


def _proxy_config(spec: MeshSpec) -> Json:
    config: Json = {
        "serviceCluster": "istio-proxy",
        "terminationDrainDuration": "5s",
        "discoveryAddress": "istiod.istio-system.svc:15012",
        "controlPlaneAuthPolicy": "MUTUAL_TLS",
        "proxyAdminPort": 15000,
        "concurrency": 1,
        "binaryPath": "/usr/local/bin/envoy",
        "statNameLength": 189,
        "drainDuration": "45s",
        "configPath": "./etc/istio/proxy",
        "statusPort": 15020,
    }
    if spec.stats == "all":
        config["proxyStatsMatcher"] = {"inclusionRegexps": [".*"]}
    return config


def _stats(spec: MeshSpec) -> Json:
    patterns: list[Json] = [{"prefix": prefix} for prefix in _PREFIXES]
    patterns += [{"suffix": suffix} for suffix in _SUFFIXES]
    if spec.stats == "all":
        patterns.append({"safe_regex": {"regex": ".*"}})
    patterns.append({"safe_regex": {"regex": r"vhost\..*\.route\..*"}})
    patterns += [{"prefix": "component"}, {"prefix": "istio"}]
    return {
        "stats_tags": [{"tag_name": name, "regex": regex} for name, regex in _TAGS.items()],
        "use_all_default_tags": False,
        "stats_matcher": {"inclusion_list": {"patterns": patterns}},
    }


def _static_listeners(ip: str) -> list[Json]:
    found = []
    for port, prefix, path, cluster in (
        (15090, "stats", "/stats/prometheus", "prometheus_stats"),
        (15021, "agent", "/healthz/ready", "agent"),
    ):
        route = {"match": {"prefix": path}, "route": {"cluster": cluster}}
        router = {
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": f"{_EXTENSIONS}.filters.http.router.v3.Router"},
        }
        manager = {
            "@type": HCM,
            "stat_prefix": prefix,
            "route_config": {"virtual_hosts": [{"name": "backend", "domains": ["*"], "routes": [route]}]},
            "http_filters": [router],
        }
        chain = {
            "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
        }
        found.append(
            {
                "name": f"0.0.0.0_{port}",
                "address": address(ip, port),
                "filter_chains": [chain],
                "ignore_global_conn_limit": True,
                "bypass_overload_manager": True,
            }
        )
    return found


def _static_clusters(ip: str, sockets: Path) -> list[Json]:
    http2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options = {
        http2: {
            "@type": f"type.googleapis.com/{http2}",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    limits = {"max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000}
    return [
        _static("prometheus_stats", "0.250s", address(ip, 15000)),
        _static("agent", "0.250s", address(ip, 15020)),
        {
            **_static("sds-grpc", "1s", {"pipe": {"path": str(sockets / "SDS")}}),
            "typed_extension_protocol_options": options,
        },
        {
            **_static("xds-grpc", "1s", {"pipe": {"path": str(sockets / "XDS")}}),
            "max_requests_per_connection": 1,
            "circuit_breakers": {"thresholds": [limits, {"priority": "HIGH", **limits}]},
            "upstream_connection_options": {"tcp_keepalive": {"keepalive_time": 300}},
            "typed_extension_protocol_options": options,
        },
        _static("xds-rest", "1s", {"pipe": {"path": str(sockets / "REST")}}),
    ]


def _static(name: str, timeout: str, where: Json) -> Json:
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": timeout,
        "alt_stat_name": f"{name};",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": where}}]}],
        },
    }
