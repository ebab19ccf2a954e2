"""Faults of time, injected faults, limits and protocols."""

from __future__ import annotations

from meshscope.demo.faults.registry import fault
from meshscope.demo.spec import Behaviour, Flow, Json, MeshSpec, Port, Workload


@fault("route-timeout", "details answers after a second, the route waits 300 ms")
def route_timeout(spec: MeshSpec) -> None:
    spec.workload("details-v1").behaviour = Behaviour(delay_ms=1000)
    spec.add("""
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: details, namespace: bookinfo}
        spec:
          hosts: [details]
          http:
          - timeout: 0.3s
            route: [{destination: {host: details}}]
    """)


@fault(
    "per-try-timeout", "details answers after a second, each of three tries may take 200 ms", settle_seconds=2
)
def per_try_timeout(spec: MeshSpec) -> None:
    spec.workload("details-v1").behaviour = Behaviour(delay_ms=1000)
    spec.add("""
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: details, namespace: bookinfo}
        spec:
          hosts: [details]
          http:
          - retries: {attempts: 2, perTryTimeout: 0.2s, retryOn: 5xx}
            route: [{destination: {host: details}}]
    """)


@fault(
    "stream-idle-timeout", "details sends headers and no body; an EnvoyFilter ends streams idle for 400 ms"
)
def stream_idle_timeout(spec: MeshSpec) -> None:
    spec.workload("details-v1").behaviour = Behaviour("stall-body")
    _outbound_route(spec, "details", "details-idle", {"idle_timeout": "0.4s"})


@fault("max-stream-duration", "details answers after a second; an EnvoyFilter lets streams live for 400 ms")
def max_stream_duration(spec: MeshSpec) -> None:
    spec.workload("details-v1").behaviour = Behaviour(delay_ms=1000)
    _outbound_route(
        spec, "details", "details-duration", {"max_stream_duration": {"max_stream_duration": "0.4s"}}
    )


@fault("caller-gave-up", "details answers after a second, the client's application leaves after 200 ms")
def caller_gave_up(spec: MeshSpec) -> None:
    url = "http://details:9080/details/0?delay_ms=1000"
    spec.flows.append(Flow("details-impatient", "bookinfo/client", url, rate=5, give_up_ms=200))


@fault("retries-exhausted", "details answers 503 to every try, and calls to it are tried three times")
def retries_exhausted(spec: MeshSpec) -> None:
    spec.workload("details-v1").behaviour = Behaviour(status=503)
    spec.add("""
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: details, namespace: bookinfo}
        spec:
          hosts: [details]
          http:
          - retries: {attempts: 2, retryOn: 5xx}
            route: [{destination: {host: details}}]
    """)


@fault("fault-abort", "a forgotten fault injection answers half of the calls to ratings with 500")
def fault_abort(spec: MeshSpec) -> None:
    spec.add("""
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: ratings, namespace: bookinfo}
        spec:
          hosts: [ratings]
          http:
          - fault: {abort: {httpStatus: 500, percentage: {value: 50}}}
            route: [{destination: {host: ratings}}]
    """)


@fault("http2-to-http1-app", "the port of details is named http2, and its application knows HTTP/1.1 only")
def http2_to_http1_app(spec: MeshSpec) -> None:
    spec.add("""
        apiVersion: v1
        kind: Service
        metadata: {name: details, namespace: bookinfo, labels: {app: details, service: details}}
        spec:
          selector: {app: details}
          ports: [{name: http2, port: 9080, targetPort: 9080, protocol: TCP}]
    """)


@fault("app-not-http", "the application of details answers requests with something that isn't HTTP")
def app_not_http(spec: MeshSpec) -> None:
    spec.workload("details-v1").behaviour = Behaviour("garbage")


@fault("caller-not-http", "a legacy client speaks a protocol of its own to the HTTP port of details")
def caller_not_http(spec: MeshSpec) -> None:
    spec.add("""
        apiVersion: security.istio.io/v1
        kind: PeerAuthentication
        metadata: {name: details, namespace: bookinfo}
        spec:
          selector: {matchLabels: {app: details}}
          mtls: {mode: PERMISSIVE}
    """)
    raw = "HELO details\r\nLOOKUP 0\r\n\r\n"
    spec.flows.append(Flow("helo", "legacy/legacy-client", "http://details.bookinfo:9080/", rate=3, raw=raw))


@fault(
    "request-headers-too-big",
    "the client sends a cookie of 80 KB to details, which is more than proxies take",
)
def request_headers_too_big(spec: MeshSpec) -> None:
    headers = {"cookie": "session=" + "x" * 80_000}
    url = "http://details:9080/details/0"
    spec.flows.append(Flow("big-cookie", "bookinfo/client", url, rate=3, headers=headers))


@fault("response-headers-too-big", "details answers with a header of 128 KB, which is more than proxies take")
def response_headers_too_big(spec: MeshSpec) -> None:
    spec.workload("details-v1").behaviour = Behaviour("huge-headers")


@fault("fault-delay", "a forgotten fault injection delays half of the calls to ratings by 300 ms")
def fault_delay(spec: MeshSpec) -> None:
    spec.add("""
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: ratings, namespace: bookinfo}
        spec:
          hosts: [ratings]
          http:
          - fault: {delay: {fixedDelay: 0.3s, percentage: {value: 50}}}
            route: [{destination: {host: ratings}}]
    """)


@fault("rate-limit-local", "an EnvoyFilter lets ratings take one request a second, the others get 429")
def rate_limit_local(spec: MeshSpec) -> None:
    limit: Json = {
        "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
        "type_url": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "value": {
            "stat_prefix": "http_local_rate_limiter",
            "token_bucket": {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "1s"},
            "filter_enabled": {"default_value": {"numerator": 100, "denominator": "HUNDRED"}},
            "filter_enforced": {"default_value": {"numerator": 100, "denominator": "HUNDRED"}},
        },
    }
    _inbound_filter(spec, "ratings", "ratings-limit", "envoy.filters.http.local_ratelimit", limit)


@fault("rate-limit-global", "the rate limit service that ratings asks says of every request it is too many")
def rate_limit_global(spec: MeshSpec) -> None:
    _rate_limit_service(spec, Behaviour())


@fault("rate-limit-service-down", "nothing listens at the rate limit service, and ratings may not go without")
def rate_limit_service_down(spec: MeshSpec) -> None:
    _rate_limit_service(spec, Behaviour("refuse"))


def _rate_limit_service(spec: MeshSpec, behaviour: Behaviour) -> None:
    spec.namespaces["platform"] = {}
    service = Workload("ratelimit", "platform", "ratelimit", sidecar=False, behaviour=behaviour)
    service.ports = [Port(8081, "ratelimit")]
    spec.add_workload(service)
    spec.add("""
        apiVersion: v1
        kind: Service
        metadata: {name: ratelimit, namespace: platform, labels: {app: ratelimit}}
        spec:
          selector: {app: ratelimit}
          ports: [{name: grpc, port: 8081, targetPort: 8081, protocol: TCP}]
    """)
    limit: Json = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
        "domain": "bookinfo",
        "failure_mode_deny": True,
        "timeout": "1s",
        "rate_limit_service": {
            "grpc_service": {
                "envoy_grpc": {"cluster_name": "outbound|8081||ratelimit.platform.svc.cluster.local"}
            },
            "transport_api_version": "V3",
        },
    }
    actions = [{"actions": [{"request_headers": {"header_name": ":path", "descriptor_key": "PATH"}}]}]
    _inbound_filter(spec, "ratings", "ratings-quota", "envoy.filters.http.ratelimit", limit, actions)


def _outbound_route(spec: MeshSpec, service: str, name: str, limits: Json) -> None:
    """An EnvoyFilter that merges limits into the callers' routes to a service, and what it comes to."""
    host = f"{service}.bookinfo.svc.cluster.local"
    spec.objects.append(
        {
            "apiVersion": "networking.istio.io/v1alpha3",
            "kind": "EnvoyFilter",
            "metadata": {"name": name, "namespace": "bookinfo"},
            "spec": {
                "configPatches": [
                    {
                        "applyTo": "HTTP_ROUTE",
                        "match": {
                            "context": "SIDECAR_OUTBOUND",
                            "routeConfiguration": {"vhost": {"name": f"{host}:9080"}},
                        },
                        "patch": {"operation": "MERGE", "value": {"route": limits}},
                    }
                ]
            },
        }
    )

    def change(config: Json) -> None:
        for virtual_host in config["virtual_hosts"]:
            if virtual_host["name"] == f"{host}:9080":
                for route in virtual_host["routes"]:
                    route["route"].update(limits)

    spec.patch("*", "route", "9080", change)


def _inbound_filter(
    spec: MeshSpec, app: str, name: str, filter_name: str, config: Json, rate_limits: list[Json] | None = None
) -> None:
    """An EnvoyFilter that puts an HTTP filter in front of an application, and what it comes to."""
    inserted = {"name": filter_name, "typed_config": config}
    patches: list[Json] = [
        {
            "applyTo": "HTTP_FILTER",
            "match": {
                "context": "SIDECAR_INBOUND",
                "listener": {
                    "filterChain": {"filter": {"name": "envoy.filters.network.http_connection_manager"}}
                },
            },
            "patch": {"operation": "INSERT_BEFORE", "value": inserted},
        }
    ]
    if rate_limits:
        patches.append(
            {
                "applyTo": "VIRTUAL_HOST",
                "match": {"context": "SIDECAR_INBOUND"},
                "patch": {"operation": "MERGE", "value": {"rate_limits": rate_limits}},
            }
        )
    spec.objects.append(
        {
            "apiVersion": "networking.istio.io/v1alpha3",
            "kind": "EnvoyFilter",
            "metadata": {"name": name, "namespace": "bookinfo"},
            "spec": {"workloadSelector": {"labels": {"app": app}}, "configPatches": patches},
        }
    )

    def change(listener: Json) -> None:
        for chain in listener["filter_chains"]:
            for network_filter in chain["filters"]:
                manager = network_filter["typed_config"]
                if "http_filters" in manager:
                    manager["http_filters"].insert(0, inserted)
                    for host in manager["route_config"]["virtual_hosts"] if rate_limits else ():
                        host["rate_limits"] = rate_limits

    spec.patch(f"bookinfo/{app}-v1", "listener", "virtualInbound", change)
