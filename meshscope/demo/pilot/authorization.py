"""AuthorizationPolicies as Envoy's RBAC and ext_authz filters, with Istio's names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from meshscope.demo.pilot.envoy_json import cluster_name
from meshscope.demo.pilot.registry import Registry
from meshscope.demo.spec import CLUSTER_DOMAIN, ROOT_NAMESPACE, Json, Workload

_EXTENSIONS = "type.googleapis.com/envoy.extensions.filters"
_NEVER: Json = {
    "permissions": [{"not_rule": {"any": True}}],
    "principals": [{"not_id": {"any": True}}],
}
_JWT = "envoy.filters.http.jwt_authn"


class _HttpOnlyError(Exception):
    """The condition exists only for HTTP."""


def http_filters(registry: Registry, workload: Workload) -> list[Json]:
    """The RBAC filters of an HTTP chain: CUSTOM first, then AUDIT, DENY, ALLOW."""
    kind = f"{_EXTENSIONS}.http.rbac.v3.RBAC"
    filters = list(_custom(registry, workload))
    for config in _rbac(registry, workload, tcp=False):
        filters.append({"name": "envoy.filters.http.rbac", "typed_config": {"@type": kind, **config}})
    return filters


def network_filters(registry: Registry, workload: Workload) -> list[Json]:
    """The same for a TCP chain, where conditions that only HTTP knows fall out."""
    kind = f"{_EXTENSIONS}.network.rbac.v3.RBAC"
    return [
        {
            "name": "envoy.filters.network.rbac",
            "typed_config": {"@type": kind, **config, "stat_prefix": "tcp."},
        }
        for config in _rbac(registry, workload, tcp=True)
    ]


def _policies(registry: Registry, workload: Workload, action: str) -> list[Json]:
    labels = workload.pod_labels(workload.pods[0]) if workload.pods else {}
    found = []
    for item in registry.spec.of_kind("AuthorizationPolicy"):
        body = item.get("spec") or {}
        selector = body.get("selector", {}).get("matchLabels", {})
        if (
            item["metadata"]["namespace"] in (workload.namespace, ROOT_NAMESPACE)
            and body.get("action", "ALLOW") == action
            and selector.items() <= labels.items()
        ):
            found.append(item)
    return sorted(found, key=lambda item: str(item["metadata"]["name"]))


def _rbac(registry: Registry, workload: Workload, *, tcp: bool) -> Iterator[Json]:
    for action, envoy_action in (("AUDIT", "LOG"), ("DENY", "DENY"), ("ALLOW", "ALLOW")):
        policies = _policies(registry, workload, action)
        if not policies:
            continue
        sets: dict[str, Json] = {}
        for policy in policies:
            dry = policy["metadata"].get("annotations", {}).get("istio.io/dry-run") == "true"
            rules = sets.setdefault("shadow_rules" if dry else "rules", {})
            rules.update(_rules(policy, action, tcp=tcp))
        config: Json = {
            field: {"action": envoy_action, "policies": rules} if action != "ALLOW" else {"policies": rules}
            for field, rules in sets.items()
        }
        prefix = (
            "istio_dry_run_deny_" if action == "DENY" and "shadow_rules" in sets else "istio_dry_run_allow_"
        )
        config["shadow_rules_stat_prefix"] = prefix
        yield config


def _rules(policy: Json, action: str, *, tcp: bool) -> Json:
    metadata, body = policy["metadata"], policy.get("spec") or {}
    name = f"ns[{metadata['namespace']}]-policy[{metadata['name']}]-rule"
    if not body.get("rules"):
        return {f"{name}[0]": _NEVER}
    found: Json = {}
    for place, rule in enumerate(body["rules"]):
        try:
            found[f"{name}[{place}]"] = _rule(
                rule or {}, metadata["namespace"], tcp=tcp, lenient=action != "ALLOW"
            )
        except _HttpOnlyError:
            continue
    return found


def _rule(rule: Json, namespace: str, *, tcp: bool, lenient: bool) -> Json:
    """One rule: its froms are OR-ed, its tos are OR-ed, its whens join both."""
    when = rule.get("when", [])
    principals = [
        _all(
            "and_ids",
            "ids",
            "not_id",
            [*_source(item.get("source", {})), *_when(when, _PRINCIPAL_KEYS)],
            tcp,
            lenient,
        )
        for item in rule.get("from", [{}])
    ]
    permissions = [
        _all(
            "and_rules",
            "rules",
            "not_rule",
            [*_operation(item.get("operation", {})), *_when(when, _PERMISSION_KEYS)],
            tcp,
            lenient,
        )
        for item in rule.get("to", [{}])
    ]
    return {"permissions": permissions, "principals": principals}


# A condition: the values, whether it is negated, how one value reads in Envoy, whether HTTP is needed.
_Condition = tuple[list[str], bool, Callable[[str], Json], bool]


def _all(
    joined: str, field: str, negation: str, conditions: list[_Condition], tcp: bool, lenient: bool
) -> Json:
    members: list[Json] = []
    for values, negated, convert, http_only in conditions:
        if http_only and tcp:
            if lenient:
                continue
            raise _HttpOnlyError
        either = {joined.replace("and", "or"): {field: [convert(value) for value in values]}}
        members.append({negation: either} if negated else either)
    return {joined: {field: members or [{"any": True}]}}


def _source(source: Json) -> list[_Condition]:
    table: list[tuple[str, Callable[[str], Json], bool]] = [
        ("principals", _principal, False),
        ("requestPrincipals", _request_principal, True),
        ("namespaces", _namespace, False),
        ("serviceAccounts", _service_account, False),
        ("remoteIpBlocks", lambda value: {"remote_ip": _cidr(value)}, False),
        ("ipBlocks", lambda value: {"direct_remote_ip": _cidr(value)}, False),
    ]
    return _conditions(source, table)


def _operation(operation: Json) -> list[_Condition]:
    table: list[tuple[str, Callable[[str], Json], bool]] = [
        ("hosts", lambda value: {"header": _header(":authority", value, ignore_case=True)}, True),
        ("methods", lambda value: {"header": _header(":method", value)}, True),
        ("paths", lambda value: {"url_path": {"path": _string(value)}}, True),
        ("ports", lambda value: {"destination_port": int(value)}, False),
    ]
    return _conditions(operation, table)


def _conditions(item: Json, table: list[tuple[str, Callable[[str], Json], bool]]) -> list[_Condition]:
    found: list[_Condition] = []
    for field, convert, http_only in table:
        for name, negated in ((field, False), (f"not{field[0].upper()}{field[1:]}", True)):
            if item.get(name):
                found.append((item[name], negated, convert, http_only))
    return found


def _when(conditions: list[Json], keys: dict[str, tuple[Any, bool]]) -> list[_Condition]:
    found: list[_Condition] = []
    for condition in conditions:
        key, _, argument = condition["key"].partition("[")
        if key not in keys:
            continue
        make, http_only = keys[key]
        convert = make(argument.rstrip("]")) if argument else make
        for field, negated in (("values", False), ("notValues", True)):
            if condition.get(field):
                found.append((condition[field], negated, convert, http_only))
    return found


def _principal(value: str) -> Json:
    if value == "*":
        return {"authenticated": {"principal_name": {"safe_regex": {"regex": ".+"}}}}
    if value.startswith("*"):
        return {"authenticated": {"principal_name": {"suffix": value[1:]}}}
    return {"authenticated": {"principal_name": _string(f"spiffe://{value}")}}


def _namespace(value: str) -> Json:
    pattern = re.escape(value).replace("\\*", ".*").replace("\\-", "-")
    return {"authenticated": {"principal_name": {"safe_regex": {"regex": f".*/ns/{pattern}/.*"}}}}


def _service_account(value: str) -> Json:
    namespace, _, name = value.rpartition("/")
    pattern = f"spiffe://[^/]+/ns/{namespace or '[^/]+'}/sa/{name}"
    return {"authenticated": {"principal_name": {"safe_regex": {"regex": pattern}}}}


def _request_principal(value: str) -> Json:
    """ISSUER/SUBJECT against the payload that the JWT filter leaves."""
    issuer, _, subject = value.rpartition("/")
    if value == "*":
        return {"and_ids": {"ids": [_claim("iss", "*"), _claim("sub", "*")]}}
    return {"and_ids": {"ids": [_claim("iss", issuer or "*"), _claim("sub", subject or "*")]}}


def _claim(name: str, value: str) -> Json:
    match = {"safe_regex": {"regex": ".+"}} if value == "*" else _string(value)
    return {
        "metadata": {
            "filter": _JWT,
            "path": [{"key": "payload"}, {"key": name}],
            "value": {"or_match": {"value_matchers": [{"string_match": match}, _in_list(match)]}},
        }
    }


def _in_list(match: Json) -> Json:
    return {"list_match": {"one_of": {"string_match": match}}}


def _header(name: str, value: str, *, ignore_case: bool = False) -> Json:
    if value == "*":
        return {"name": name, "present_match": True}
    match = _string(value)
    if ignore_case and "safe_regex" not in match:
        match["ignore_case"] = True
    return {"name": name, "string_match": match}


def _string(value: str) -> Json:
    if value == "*":
        return {"safe_regex": {"regex": ".+"}}
    if value.startswith("*"):
        return {"suffix": value[1:]}
    if value.endswith("*"):
        return {"prefix": value[:-1]}
    return {"exact": value}


def _cidr(value: str) -> Json:
    prefix, _, length = value.partition("/")
    return {"address_prefix": prefix, "prefix_len": int(length or 32)}


def _sni(value: str) -> Json:
    return {"requested_server_name": _string(value)}


_PRINCIPAL_KEYS: dict[str, tuple[Any, bool]] = {
    "source.ip": (lambda value: {"direct_remote_ip": _cidr(value)}, False),
    "remote.ip": (lambda value: {"remote_ip": _cidr(value)}, False),
    "source.namespace": (_namespace, False),
    "source.principal": (_principal, False),
    "request.auth.principal": (_request_principal, True),
    "request.auth.claims": (lambda name: lambda value: _claim(name, value), True),
    "request.headers": (lambda name: lambda value: {"header": _header(name, value)}, True),
}
_PERMISSION_KEYS: dict[str, tuple[Any, bool]] = {
    "destination.ip": (lambda value: {"destination_ip": _cidr(value)}, False),
    "destination.port": (lambda value: {"destination_port": int(value)}, False),
    "connection.sni": (_sni, False),
}


def _custom(registry: Registry, workload: Workload) -> Iterator[Json]:
    """CUSTOM: a shadow RBAC filter that says which requests to ask about, and the ext_authz filter."""
    policies = _policies(registry, workload, "CUSTOM")
    if not policies:
        return
    rules: Json = {}
    for policy in policies:
        for name, rule in _rules(policy, "CUSTOM", tcp=False).items():
            rules[f"istio-ext-authz-{policy['spec']['provider']['name']}-{name}"] = rule
    provider = policies[0]["spec"]["provider"]["name"]
    providers = {item["name"]: item for item in registry.spec.mesh_config.get("extensionProviders", [])}
    if provider not in providers:
        yield _http(
            "rbac",
            "rbac.v3.RBAC",
            {
                "rules": {
                    "action": "DENY",
                    "policies": {
                        "default-deny-all-due-to-bad-CUSTOM-action": {
                            "permissions": [{"any": True}],
                            "principals": [{"any": True}],
                        }
                    },
                }
            },
        )
        return
    shadow = {"action": "DENY", "policies": rules}
    yield _http(
        "rbac", "rbac.v3.RBAC", {"shadow_rules": shadow, "shadow_rules_stat_prefix": "istio_ext_authz_"}
    )
    yield _http("ext_authz", "ext_authz.v3.ExtAuthz", _ext_authz(providers[provider], provider))


def _ext_authz(provider: Json, name: str) -> Json:
    body = provider["envoyExtAuthzHttp"]
    host = body["service"]
    host = host if host.endswith(CLUSTER_DOMAIN) else f"{host}.svc.{CLUSTER_DOMAIN}"
    timeout = body.get("timeout", "600s")
    result: Json = {
        "http_service": {
            "server_uri": {
                "uri": f"http://{host}",
                "cluster": cluster_name(body["port"], "", host),
                "timeout": timeout,
            }
        },
        "filter_enabled_metadata": {
            "filter": "envoy.filters.http.rbac",
            "path": [{"key": "istio_ext_authz_shadow_effective_policy_id"}],
            "value": {"string_match": {"prefix": f"istio-ext-authz-{name}"}},
        },
        "transport_api_version": "V3",
    }
    if body.get("failOpen"):
        result["failure_mode_allow"] = True
    if body.get("statusOnError"):
        result["status_on_error"] = {"code": int(body["statusOnError"])}
    return result


def _http(name: str, kind: str, config: Json) -> Json:
    return {
        "name": f"envoy.filters.http.{name}",
        "typed_config": {"@type": f"{_EXTENSIONS}.http.{kind}", **config},
    }
