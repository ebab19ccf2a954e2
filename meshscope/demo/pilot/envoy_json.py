"""The pieces of Envoy configuration that listeners and clusters share, in Istio's shape."""

from __future__ import annotations

from meshscope.demo.spec import CLUSTER_DOMAIN, Json, MeshSpec, Workload

_EXTENSIONS = "type.googleapis.com/envoy.extensions"
HCM = f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager"
TCP_PROXY = f"{_EXTENSIONS}.filters.network.tcp_proxy.v3.TcpProxy"
MAX = 4294967295
MTLS_HTTP_ALPN = ["istio-http/1.0", "istio-http/1.1", "istio-h2"]
MTLS_TCP_ALPN = ["istio-peer-exchange", "istio"]
ALL_MTLS_ALPN = ["istio", "istio-peer-exchange", *MTLS_HTTP_ALPN]
PLAIN_HTTP_ALPN = ["http/1.1", "h2c"]

# Istio's default access log format, one line a request or connection.
TEXT_LOG = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% '
    "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "
    '"%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% '
    '%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" '
    '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% '
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% "
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)
JSON_LOG = {
    "authority": "%REQ(:AUTHORITY)%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
    "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "duration": "%DURATION%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "requested_server_name": "%REQUESTED_SERVER_NAME%",
    "response_code": "%RESPONSE_CODE%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "response_flags": "%RESPONSE_FLAGS%",
    "route_name": "%ROUTE_NAME%",
    "start_time": "%START_TIME%",
    "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
    "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "user_agent": "%REQ(USER-AGENT)%",
    "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
}


def config_source() -> Json:
    """Where every resource comes from: REST discovery at one socket (see stage/control_plane.py)."""
    return {
        "api_config_source": {
            "api_type": "REST",
            "transport_api_version": "V3",
            "cluster_names": ["xds-rest"],
            "refresh_delay": "0.05s",
            "request_timeout": "60s",
        },
        "initial_fetch_timeout": "0s",
        "resource_api_version": "V3",
    }


def cluster_name(port: int, subset: str, host: str) -> str:
    """An outbound cluster's name."""
    return f"outbound|{port}|{subset}|{host}"


def unlimited() -> Json:
    """Istio's thresholds where no DestinationRule says otherwise."""
    return {
        "max_connections": MAX,
        "max_pending_requests": MAX,
        "max_requests": MAX,
        "max_retries": MAX,
    }


def address(host: str, port: int) -> Json:
    return {"socket_address": {"address": host, "port_value": port}}


def access_log(spec: MeshSpec) -> Json:
    """Istio's file access log in the mesh's encoding, to the proxy's standard output."""
    log_format: Json = (
        {"json_format": JSON_LOG, "json_format_options": {}}
        if spec.access_log == "json"
        else {"text_format_source": {"inline_string": TEXT_LOG}}
    )
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{_EXTENSIONS}.access_loggers.file.v3.FileAccessLog",
            "path": "/dev/stdout",
            "log_format": log_format,
        },
    }


def listener_access_log(spec: MeshSpec) -> Json:
    """The listener's own log: connections that no filter chain takes."""
    return {**access_log(spec), "filter": {"response_flag_filter": {"flags": ["NR"]}}}


def tcp_proxy(spec: MeshSpec, cluster: str, stat_prefix: str | None = None, *, logged: bool = True) -> Json:
    config: Json = {"@type": TCP_PROXY, "stat_prefix": stat_prefix or cluster, "cluster": cluster}
    if logged:
        config["access_log"] = [access_log(spec)]
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": config}


def http_filters(extra: list[Json] | None = None) -> list[Json]:
    """Security filters first, then the ones every Istio listener has, the router last."""
    grpc_stats = {"emit_filter_state": True, "stats_for_all_methods": False}
    return [
        *(extra or []),
        http_filter("grpc_stats", "grpc_stats.v3.FilterConfig", grpc_stats),
        http_filter("fault", "fault.v3.HTTPFault"),
        http_filter("cors", "cors.v3.Cors"),
        http_filter("router", "router.v3.Router"),
    ]


def http_filter(name: str, kind: str, config: Json | None = None) -> Json:
    return {
        "name": f"envoy.filters.http.{name}",
        "typed_config": {"@type": f"{_EXTENSIONS}.filters.http.{kind}", **(config or {})},
    }


def listener_filter(name: str, kind: str, config: Json | None = None) -> Json:
    return {
        "name": f"envoy.filters.listener.{name}",
        "typed_config": {"@type": f"{_EXTENSIONS}.filters.listener.{kind}", **(config or {})},
    }


def connection_manager(
    spec: MeshSpec, workload: Workload, stat_prefix: str, routes: Json, filters: list[Json], *, inbound: bool
) -> Json:
    """An HTTP connection manager; `routes` is {"rds": …} or {"route_config": …}."""
    config: Json = {
        "@type": HCM,
        "stat_prefix": stat_prefix,
        **routes,
        "http_filters": filters,
        "tracing": _tracing(workload),
        "access_log": [access_log(spec)],
        "use_remote_address": False,
        "proxy_100_continue": True,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "stream_idle_timeout": "0s",
        "normalize_path": True,
        "request_id_extension": {
            "typed_config": {
                "@type": f"{_EXTENSIONS}.request_id.uuid.v3.UuidRequestIdConfig",
                "use_request_id_for_trace_sampling": True,
            }
        },
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
    }
    if inbound:
        config["server_name"] = "istio-envoy"
        config["forward_client_cert_details"] = "APPEND_FORWARD"
        config["set_current_client_cert_details"] = {"subject": True, "dns": True, "uri": True}
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def _tracing(workload: Workload) -> Json:
    tags: list[Json] = []
    for action in ("allow", "deny"):
        for tag, key in (("name", "effective_policy_id"), ("result", "engine_result")):
            path = [{"key": f"istio_dry_run_{action}_shadow_{key}"}]
            tags.append(
                {
                    "tag": f"istio.authorization.dry_run.{action}_policy.{tag}",
                    "metadata": {
                        "kind": {"request": {}},
                        "metadata_key": {"key": "envoy.filters.http.rbac", "path": path},
                    },
                }
            )
    literals = {
        "istio.canonical_revision": workload.version,
        "istio.canonical_service": workload.app,
        "istio.cluster_id": "Kubernetes",
        "istio.mesh_id": CLUSTER_DOMAIN,
        "istio.namespace": workload.namespace,
    }
    tags += [{"tag": tag, "literal": {"value": value}} for tag, value in literals.items()]
    return {
        "client_sampling": {"value": 100},
        "random_sampling": {"value": 1},
        "overall_sampling": {"value": 100},
        "custom_tags": tags,
    }


def _secrets(sans: list[Json]) -> Json:
    return {
        "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": config_source()}],
        "combined_validation_context": {
            "default_validation_context": {"match_subject_alt_names": sans},
            "validation_context_sds_secret_config": {
                "name": "ROOTCA",
                "sds_config": config_source(),
            },
        },
    }


def downstream_tls() -> Json:
    """Mesh TLS as a server: a client certificate of the trust domain is required."""
    ciphers = [
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "AES256-GCM-SHA384",
        "AES128-GCM-SHA256",
    ]
    context = {
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_2",
            "tls_maximum_protocol_version": "TLSv1_3",
            "cipher_suites": ciphers,
        },
        "alpn_protocols": ["h2", "http/1.1"],
        **_secrets([{"prefix": f"spiffe://{CLUSTER_DOMAIN}/"}]),
    }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_EXTENSIONS}.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": context,
            "require_client_certificate": True,
        },
    }


def upstream_tls(common: Json, sni: str) -> Json:
    """TLS as a client; `common` is what the common context holds besides the versions."""
    params = {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_EXTENSIONS}.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {"tls_params": params, **common},
            "sni": sni,
        },
    }


def mesh_client_context(sans: list[str], *, http2: bool) -> Json:
    """What ISTIO_MUTUAL puts into the common context."""
    alpn = ["istio", "h2"] if http2 else ["istio"]
    return {"alpn_protocols": alpn, **_secrets([{"exact": san} for san in sans])}


def raw_buffer() -> Json:
    return {
        "name": "envoy.transport_sockets.raw_buffer",
        "typed_config": {"@type": f"{_EXTENSIONS}.transport_sockets.raw_buffer.v3.RawBuffer"},
    }


def http_protocol_options(options: Json) -> Json:
    """The typed_extension_protocol_options entry of a cluster."""
    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {kind: {"@type": f"type.googleapis.com/{kind}", **options}}
