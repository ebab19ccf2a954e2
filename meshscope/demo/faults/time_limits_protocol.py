"""Faults of time, injected faults, limits and protocols."""

from __future__ import annotations

from meshscope.demo.faults.registry import fault
from meshscope.demo.spec import Behaviour, Json, MeshSpec, Port, Workload


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
    service = Workload("ratelimit", "bookinfo", "ratelimit", sidecar=False, behaviour=behaviour)
    service.ports = [Port(8081, "ratelimit")]
    spec.add_workload(service)
    spec.add("""
        apiVersion: v1
        kind: Service
        metadata: {name: ratelimit, namespace: bookinfo, labels: {app: ratelimit}}
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
                "envoy_grpc": {"cluster_name": "outbound|8081||ratelimit.bookinfo.svc.cluster.local"}
            },
            "transport_api_version": "V3",
        },
    }
    actions = [{"actions": [{"request_headers": {"header_name": ":path", "descriptor_key": "PATH"}}]}]
    _inbound_filter(spec, "ratings", "ratings-quota", "envoy.filters.http.ratelimit", limit, actions)


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
