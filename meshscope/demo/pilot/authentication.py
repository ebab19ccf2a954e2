"""RequestAuthentications as Envoy's JWT filter."""

from __future__ import annotations

from meshscope.demo.pilot.registry import Registry
from meshscope.demo.spec import ROOT_NAMESPACE, Json, Workload

_KIND = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"


def http_filters(registry: Registry, workload: Workload) -> list[Json]:
    """One filter that accepts a token of any named issuer, and requests without a token."""
    rules = [rule for item in _applying(registry, workload) for rule in item["spec"].get("jwtRules", [])]
    if not rules:
        return []
    providers = {f"origins-{place}": _provider(rule) for place, rule in enumerate(rules)}
    allowed: list[Json] = [{"provider_name": name} for name in providers]
    requirement = {"requires_any": {"requirements": [*allowed, {"allow_missing": {}}]}}
    config = {
        "@type": _KIND,
        "providers": providers,
        "rules": [{"match": {"prefix": "/"}, "requires": requirement}],
        "bypass_cors_preflight": True,
    }
    return [{"name": "envoy.filters.http.jwt_authn", "typed_config": config}]


def _applying(registry: Registry, workload: Workload) -> list[Json]:
    labels = workload.pod_labels(workload.pods[0]) if workload.pods else {}
    return [
        item
        for item in registry.spec.of_kind("RequestAuthentication")
        if item["metadata"]["namespace"] in (workload.namespace, ROOT_NAMESPACE)
        and item["spec"].get("selector", {}).get("matchLabels", {}).items() <= labels.items()
    ]


def _provider(rule: Json) -> Json:
    provider: Json = {
        "issuer": rule["issuer"],
        "payload_in_metadata": "payload",
        "local_jwks": {"inline_string": rule.get("jwks", '{"keys":[]}')},
    }
    if "audiences" in rule:
        provider["audiences"] = rule["audiences"]
    if rule.get("forwardOriginalToken"):
        provider["forward"] = True
    return provider
