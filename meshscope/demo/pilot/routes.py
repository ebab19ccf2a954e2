"""The route configurations of one proxy: a virtual host a service, VirtualServices translated."""

from __future__ import annotations

from typing import Any

from meshscope.demo.pilot.envoy_json import cluster_name
from meshscope.demo.pilot.registry import Registry, Service, ServicePort, http_like
from meshscope.demo.spec import Json, MeshSpec, Workload

_EXTENSIONS = "type.googleapis.com/envoy.extensions"
# Istio's default retries, where a VirtualService says nothing.
_RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"


def registry_only(spec: MeshSpec) -> bool:
    return bool(spec.mesh_config.get("outboundTrafficPolicy", {}).get("mode") == "REGISTRY_ONLY")


def route_configurations(registry: Registry, workload: Workload) -> dict[str, Json]:
    """Name → RouteConfiguration, for every HTTP or sniffed port a proxy can see."""
    hosts: dict[str, list[Json]] = {}
    for service in registry.visible(workload):
        for port in service.ports:
            if http_like(port):
                virtual_host = _virtual_host(registry, workload, service, port)
                hosts.setdefault(str(port.number), []).append(virtual_host)
            elif port.protocol == "auto":
                virtual_host = _virtual_host(registry, workload, service, port)
                hosts[f"{service.host}:{port.number}"] = [{**virtual_host, "domains": ["*"]}]
    return {name: _configuration(registry.spec, name, found) for name, found in sorted(hosts.items())}


def tcp_route(registry: Registry, workload: Workload, service: Service, port: ServicePort) -> str:
    """The cluster of a TCP port: a VirtualService's first tcp route, else the service's own."""
    virtual_service = _virtual_service(registry, workload, service)
    for rule in virtual_service["spec"].get("tcp", []) if virtual_service else []:
        matches = rule.get("match", [{}])
        if any(match.get("port", port.number) == port.number for match in matches):
            namespace = virtual_service["metadata"]["namespace"] if virtual_service else ""
            return _destination(registry, rule["route"][0]["destination"], namespace, port)
    return cluster_name(port.number, "", service.host)


def _configuration(spec: MeshSpec, name: str, hosts: list[Json]) -> Json:
    shared = ":" not in name
    if shared:
        hosts = sorted(hosts, key=lambda host: str(host["name"]))
        hosts.append(_fallback(spec))
    return {
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": name,
        "virtual_hosts": hosts,
        "validate_clusters": False,
        "max_direct_response_body_size_bytes": 1048576,
        "ignore_port_in_host_matching": True,
    }


def _fallback(spec: MeshSpec) -> Json:
    """What happens to a host nobody knows: out, or blocked."""
    if registry_only(spec):
        route: Json = {"match": {"prefix": "/"}, "direct_response": {"status": 502}, "name": "block_all"}
    else:
        action = {"cluster": "PassthroughCluster", "timeout": "0s", "max_grpc_timeout": "0s"}
        route = {"match": {"prefix": "/"}, "route": action, "name": "allow_any"}
    name = route["name"]
    return {"name": name, "domains": ["*"], "routes": [route], "include_request_attempt_count": True}


def _virtual_host(registry: Registry, workload: Workload, service: Service, port: ServicePort) -> Json:
    virtual_service = _virtual_service(registry, workload, service)
    rules = virtual_service["spec"].get("http") if virtual_service else None
    if virtual_service and rules:
        routes = [
            route
            for rule in rules
            for route in _translate(registry, workload, service, port, virtual_service, rule)
        ]
    else:
        routes = [_default_route(service, port)]
    return {
        "name": f"{service.host}:{port.number}",
        "domains": _domains(service, workload),
        "routes": routes,
        "include_request_attempt_count": True,
    }


def _domains(service: Service, workload: Workload) -> list[str]:
    domains = list(service.names)
    if not service.external:
        if service.namespace == workload.namespace:
            domains.append(service.name)
        domains += [f"{service.name}.{service.namespace}.svc", f"{service.name}.{service.namespace}"]
    if service.address not in ("None", "0.0.0.0"):
        domains.append(service.address)
    return domains


def _default_route(service: Service, port: ServicePort) -> Json:
    return {
        "match": {"prefix": "/"},
        "route": {
            "cluster": cluster_name(port.number, "", service.host),
            "timeout": "0s",
            "retry_policy": _retry_policy(None),
            "max_grpc_timeout": "0s",
        },
        "decorator": {"operation": f"{service.host}:{port.number}/*"},
        "name": "default",
    }


def _virtual_service(registry: Registry, workload: Workload, service: Service) -> Json | None:
    """The oldest VirtualService for the host: at the mesh level Istio takes one and drops the others."""
    for item in registry.virtual_services(workload):
        namespace = item["metadata"]["namespace"]
        if service.host in (registry.resolve(host, namespace) for host in item["spec"]["hosts"]):
            return item
    return None


def _translate(
    registry: Registry,
    workload: Workload,
    service: Service,
    port: ServicePort,
    virtual_service: Json,
    rule: Json,
) -> list[Json]:
    routes = []
    for match in rule.get("match") or [None]:
        if match and not _applies(workload, port, match):
            continue
        metadata = virtual_service["metadata"]
        config = (
            f"/apis/networking.istio.io/v1/namespaces/{metadata['namespace']}"
            f"/virtual-service/{metadata['name']}"
        )
        route: Json = {
            "match": _route_match(match or {}),
            **_action(registry, service, port, metadata["namespace"], rule),
            "metadata": {"filter_metadata": {"istio": {"config": config}}},
            "decorator": {"operation": f"{service.host}:{port.number}{_operation(match or {})}"},
        }
        name = ".".join(part for part in (rule.get("name"), (match or {}).get("name")) if part)
        if name:
            route["name"] = name
        if "fault" in rule:
            route["typed_per_filter_config"] = {"envoy.filters.http.fault": _fault(rule["fault"])}
        _headers(route, rule.get("headers", {}))
        routes.append(route)
    return routes


def _applies(workload: Workload, port: ServicePort, match: Json) -> bool:
    labels = {"app": workload.app, "version": workload.version, **workload.labels}
    return bool(
        match.get("sourceLabels", {}).items() <= labels.items()
        and match.get("port", port.number) == port.number
        and match.get("sourceNamespace", workload.namespace) == workload.namespace
    )


def _route_match(match: Json) -> Json:
    result: Json = _path(match.get("uri", {"prefix": "/"}))
    headers = [_header(name, value) for name, value in match.get("headers", {}).items()]
    for field, header in (("method", ":method"), ("authority", ":authority"), ("scheme", ":scheme")):
        if field in match:
            headers.append(_header(header, match[field]))
    for name, value in match.get("withoutHeaders", {}).items():
        headers.append({**_header(name, value), "invert_match": True})
    if headers:
        result["headers"] = headers
    if "queryParams" in match:
        result["query_parameters"] = [
            {"name": name, "string_match": _string(value)} for name, value in match["queryParams"].items()
        ]
    if match.get("ignoreUriCase"):
        result["case_sensitive"] = False
    return result


def _path(uri: Json) -> Json:
    if "exact" in uri:
        return {"path": uri["exact"]}
    if "regex" in uri:
        return {"safe_regex": {"regex": uri["regex"]}}
    prefix = uri["prefix"]
    if prefix != "/" and not prefix.endswith("/"):
        return {"path_separated_prefix": prefix}
    return {"prefix": prefix}


def _operation(match: Json) -> str:
    uri = match.get("uri", {"prefix": "/"})
    return str(uri.get("exact") or uri.get("regex") or f"{uri['prefix']}*")


def _header(name: str, value: Json) -> Json:
    return {"name": name, "string_match": _string(value)} if value else {"name": name, "present_match": True}


def _string(value: Json) -> Json:
    if "regex" in value:
        return {"safe_regex": {"regex": value["regex"]}}
    return dict(value)


def _action(registry: Registry, service: Service, port: ServicePort, namespace: str, rule: Json) -> Json:
    if "redirect" in rule:
        redirect = rule["redirect"]
        fields = {"path_redirect": redirect.get("uri"), "host_redirect": redirect.get("authority")}
        return {"redirect": {key: value for key, value in fields.items() if value}}
    if "directResponse" in rule:
        response: Json = {"status": rule["directResponse"]["status"]}
        if "string" in rule["directResponse"].get("body", {}):
            response["body"] = {"inline_string": rule["directResponse"]["body"]["string"]}
        return {"direct_response": response}
    timeout = rule.get("timeout", "0s")
    action: Json = {"timeout": timeout, "max_grpc_timeout": timeout}
    retry = _retry_policy(rule.get("retries"))
    if retry:
        action["retry_policy"] = retry
    targets = [
        (_destination(registry, target["destination"], namespace, port), target) for target in rule["route"]
    ]
    if len(targets) == 1:
        action["cluster"] = targets[0][0]
    else:
        weighted = [
            {"name": cluster, "weight": target.get("weight", 0)}
            for cluster, target in targets
            if target.get("weight", 0)
        ]
        total = sum(int(item["weight"]) for item in weighted)
        action["weighted_clusters"] = {"clusters": weighted, "total_weight": total}
    mirrors = [*rule.get("mirrors", [])]
    if "mirror" in rule:
        mirrors.append({"destination": rule["mirror"], "percentage": rule.get("mirrorPercentage")})
    if mirrors:
        action["request_mirror_policies"] = [_mirror(registry, mirror, namespace, port) for mirror in mirrors]
    if "rewrite" in rule:
        if "uri" in rule["rewrite"]:
            action["prefix_rewrite"] = rule["rewrite"]["uri"]
        if "authority" in rule["rewrite"]:
            action["host_rewrite_literal"] = rule["rewrite"]["authority"]
    return {"route": action}


def _mirror(registry: Registry, mirror: Json, namespace: str, port: ServicePort) -> Json:
    percent = (mirror.get("percentage") or {}).get("value", 100)
    return {
        "cluster": _destination(registry, mirror["destination"], namespace, port),
        "runtime_fraction": {"default_value": _percent(percent)},
    }


def _destination(registry: Registry, destination: Json, namespace: str, port: ServicePort) -> str:
    host = registry.resolve(destination["host"], namespace)
    number = destination.get("port", {}).get("number")
    if number is None:
        known = registry.by_host(host)
        only = known.ports[0].number if known and len(known.ports) == 1 else port.number
        number = only
    return cluster_name(number, destination.get("subset", ""), host)


def _retry_policy(retries: Json | None) -> Json:
    """Istio's retry policy; `attempts: 0` turns retries off."""
    if retries is not None and retries.get("attempts") == 0:
        return {}
    policy: Json = {
        "retry_on": (retries or {}).get("retryOn", _RETRY_ON),
        "num_retries": (retries or {}).get("attempts", 2),
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": f"{_EXTENSIONS}.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
        "host_selection_retry_max_attempts": "5",
    }
    words = str(policy["retry_on"]).split(",")
    codes = [int(word) for word in words if word.strip().isdigit()]
    if codes:
        kept = [word for word in words if not word.strip().isdigit()]
        policy["retry_on"] = ",".join(dict.fromkeys([*kept, "retriable-status-codes"]))
        policy["retriable_status_codes"] = codes
    if retries and "perTryTimeout" in retries:
        policy["per_try_timeout"] = retries["perTryTimeout"]
    return policy


def _fault(fault: Json) -> Json:
    result: Json = {"@type": f"{_EXTENSIONS}.filters.http.fault.v3.HTTPFault"}
    if "delay" in fault:
        delay = fault["delay"]
        result["delay"] = {
            "fixed_delay": delay["fixedDelay"],
            "percentage": _percent(delay.get("percentage", {}).get("value", 100)),
        }
    if "abort" in fault:
        abort = fault["abort"]
        result["abort"] = {
            "http_status": abort["httpStatus"],
            "percentage": _percent(abort.get("percentage", {}).get("value", 100)),
        }
    return result


def _percent(value: Any) -> Json:
    """A percentage as Istio writes it: millionths."""
    return {"numerator": round(float(value) * 10_000), "denominator": "MILLION"}


def _headers(route: Json, headers: Json) -> None:
    for side, prefix in (("request", "request"), ("response", "response")):
        change = headers.get(side, {})
        add = [
            {"header": {"key": key, "value": value}, "append_action": action}
            for field, action in (("set", "OVERWRITE_IF_EXISTS_OR_ADD"), ("add", "APPEND_IF_EXISTS_OR_ADD"))
            for key, value in change.get(field, {}).items()
        ]
        if add:
            route[f"{prefix}_headers_to_add"] = add
        if change.get("remove"):
            route[f"{prefix}_headers_to_remove"] = change["remove"]
