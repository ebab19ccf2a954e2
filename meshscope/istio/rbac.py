"""Translates AuthorizationPolicies into the RBAC rules that istiod makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from meshscope.envoy.jwt import FILTER as JWT_FILTER
from meshscope.envoy.rbac import RbacRules
from meshscope.istio.authorization import Action, rules
from meshscope.istio.authorization import action as action_of
from meshscope.istio.kubernetes import dicts
from meshscope.model.kubernetes import KubernetesObject

_Json = dict[str, Any]
_NEVER: _Json = {
    "permissions": [{"not_rule": {"any": True}}],
    "principals": [{"not_id": {"any": True}}],
}


class _HttpOnlyError(Exception):
    """The condition exists only for HTTP, or isn't one that istiod knows."""


class _Test(msgspec.Struct, frozen=True):
    """One field of a rule: its values, whether they are excluded, and how one value reads in Envoy.

    `together` makes one condition of all values, where Istio does so.
    """

    values: tuple[str, ...]
    excluded: bool
    convert: Callable[[str], _Json]
    http_only: bool = False
    together: Callable[[tuple[str, ...]], _Json] | None = None


def rbac_rules(policies: Iterable[KubernetesObject], action: Action, *, tcp: bool) -> RbacRules | None:
    """The RBAC rules of all `policies` of one action; None where there are none of it.

    On a TCP port an ALLOW rule with an HTTP condition is left out, and a DENY rule loses the condition. Trust
    domain aliases aren't expanded.
    """
    wanted = [policy for policy in policies if action_of(policy) == action]
    if not wanted:
        return None
    found: dict[str, _Json] = {}
    for policy in wanted:
        meta = policy.metadata
        name = f"ns[{meta.namespace}]-policy[{meta.name}]-rule"
        if not policy.spec.get("rules"):
            found[f"{name}[0]"] = _NEVER
        for place, rule in enumerate(rules(policy)):
            try:
                found[f"{name}[{place}]"] = _rule(rule, meta.namespace, tcp=tcp, strict=action == "ALLOW")
            except _HttpOnlyError:
                continue
    engine = {"ALLOW": "ALLOW", "AUDIT": "LOG"}.get(action, "DENY")
    return msgspec.convert({"action": engine, "policies": found}, RbacRules)


def _rule(rule: _Json, namespace: str, *, tcp: bool, strict: bool) -> _Json:
    """One rule: its froms are alternatives, its tos too, and the conditions of `when` belong to each."""
    who = [test for when in dicts(rule.get("when")) for test in _when(when, namespace, _IDENTITY_KEYS)]
    what = [test for when in dicts(rule.get("when")) for test in _when(when, namespace, _OPERATION_KEYS)]
    for when in dicts(rule.get("when")):
        if not _known(str(when.get("key") or "")):
            raise _HttpOnlyError
    sources = [_mapped(each.get("source")) for each in dicts(rule.get("from"))] or [{}]
    operations = [_mapped(each.get("operation")) for each in dicts(rule.get("to"))] or [{}]
    return {
        "principals": [
            {"and_ids": {"ids": list(_all([*_fields(each, _SOURCE, namespace), *who], False, tcp, strict))}}
            for each in sources
        ],
        "permissions": [
            {
                "and_rules": {
                    "rules": list(_all([*_fields(each, _OPERATION, namespace), *what], True, tcp, strict))
                }
            }
            for each in operations
        ],
    }


def _all(tests: list[_Test], permission: bool, tcp: bool, strict: bool) -> Iterator[_Json]:
    either, member, negation = (
        ("or_rules", "rules", "not_rule") if permission else ("or_ids", "ids", "not_id")
    )
    said = False
    for test in tests:
        if test.http_only and tcp:
            if strict:
                raise _HttpOnlyError
            continue
        conditions = [test.together(test.values)] if test.together else [test.convert(v) for v in test.values]
        joined = {either: {member: conditions}}
        yield {negation: joined} if test.excluded else joined
        said = True
    if not said:
        yield {"any": True}


_Field = tuple[str, Callable[[str], Callable[[str], _Json]], bool]


def _fields(item: _Json, table: tuple[_Field, ...], namespace: str) -> Iterator[_Test]:
    for field, make, http_only in table:
        for name, excluded in ((field, False), (f"not{field[0].upper()}{field[1:]}", True)):
            values = _texts(item.get(name))
            if values:
                yield _Test(values, excluded, make(namespace), http_only)


def _when(when: _Json, namespace: str, keys: dict[str, _Field]) -> Iterator[_Test]:
    key, _, argument = str(when.get("key") or "").partition("[")
    names = tuple(part for part in argument.rstrip("]").split("][") if part)
    for field, excluded in (("values", False), ("notValues", True)):
        values = _texts(when.get(field))
        if not values:
            continue
        if key in keys:
            _, make, http_only = keys[key]
            yield _Test(values, excluded, make(namespace), http_only)
        elif keys is _IDENTITY_KEYS and key in _CLAIMS:
            yield _Test(values, excluded, _string, http_only=True, together=_claims(_CLAIMS[key] or names))
        elif keys is _IDENTITY_KEYS and key == "request.headers" and names:
            yield _Test(values, excluded, _header(names[0]), http_only=True)
        elif keys is _OPERATION_KEYS and key.startswith("experimental."):
            yield _Test(values, excluded, lambda _: {})


def _known(key: str) -> bool:
    name = key.partition("[")[0]
    known = name in _IDENTITY_KEYS or name in _OPERATION_KEYS or name in _CLAIMS
    return known or name == "request.headers" or name.startswith("experimental.")


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(str(value) for value in values) if isinstance(values, list) else ()


def _mapped(value: Any) -> _Json:
    return value if isinstance(value, dict) else {}


# --- single values


def _string(value: str, prefix: str = "") -> _Json:
    if value == "*":
        return {"safe_regex": {"regex": ".+"}}
    if value.startswith("*"):
        return {"safe_regex": {"regex": f"{prefix}.*{value[1:]}"}} if prefix else {"suffix": value[1:]}
    if value.endswith("*"):
        return {"prefix": prefix + value[:-1]}
    return {"exact": prefix + value}


def _principal(value: str) -> _Json:
    return {"authenticated": {"principal_name": _string(value, "spiffe://")}}


def _identity_regex(regex: str) -> _Json:
    return {"authenticated": {"principal_name": {"safe_regex": {"regex": regex}}}}


def _namespace(value: str) -> _Json:
    return _identity_regex(f".*/ns/{value.replace('*', '.*')}/.*")


def _service_account(namespace: str) -> Callable[[str], _Json]:
    def convert(value: str) -> _Json:
        space, slash, name = value.partition("/")
        if not slash:
            space, name = namespace, value
        return _identity_regex(f"spiffe://.+/ns/{space}/(.+/|)sa/{name}(/.+)?")

    return convert


def _request_principal(value: str) -> _Json:
    """ISSUER/SUBJECT; a wildcard at either end stands for the half it is in."""
    if value == "*":
        issuer, subject = "*", "*"
    elif "/" in value:
        issuer, _, subject = value.rpartition("/")
    elif value.startswith("*"):
        issuer, subject = "*", value
    elif value.endswith("*"):
        issuer, subject = value, "*"
    else:
        issuer, subject = value, ""
    return {"and_ids": {"ids": [_claim(("iss",), _string(issuer)), _claim(("sub",), _string(subject))]}}


def _claim(path: tuple[str, ...], wanted: _Json) -> _Json:
    return _claim_value(path, {"string_match": wanted})


def _claim_value(path: tuple[str, ...], value: _Json) -> _Json:
    """A claim that is the value, or a list with it in it."""
    either = {"or_match": {"value_matchers": [value, {"list_match": {"one_of": value}}]}}
    keys = [{"key": "payload"}, *({"key": key} for key in path)]
    return {"metadata": {"filter": JWT_FILTER, "path": keys, "value": either}}


def _claims(path: tuple[str, ...]) -> Callable[[tuple[str, ...]], _Json]:
    def together(values: tuple[str, ...]) -> _Json:
        matchers = [{"string_match": _string(value)} for value in values]
        one = matchers[0] if len(matchers) == 1 else {"or_match": {"value_matchers": matchers}}
        return _claim_value(path, one)

    return together


def _header(name: str, *, ignore_case: bool = False) -> Callable[[str], _Json]:
    def convert(value: str) -> _Json:
        if value == "*":
            return {"header": {"name": name, "present_match": True}}
        match = _string(value)
        return {
            "header": {"name": name, "string_match": {**match, "ignore_case": True} if ignore_case else match}
        }

    return convert


def _path(value: str) -> _Json:
    if "{*}" in value or "{**}" in value:
        return {"uri_template": {}}
    return {"url_path": {"path": _string(value)}}


def _cidr(field: str) -> Callable[[str], _Json]:
    def convert(value: str) -> _Json:
        address, _, length = value.partition("/")
        whole = 128 if ":" in address else 32
        return {field: {"address_prefix": address, "prefix_len": int(length) if length.isdigit() else whole}}

    return convert


def _port(value: str) -> _Json:
    return {"destination_port": int(value) if value.isdigit() else 0}


def _always(convert: Callable[[str], _Json]) -> Callable[[str], Callable[[str], _Json]]:
    """A conversion that doesn't depend on the policy's own namespace."""
    return lambda _: convert


_SOURCE: tuple[_Field, ...] = (
    ("principals", _always(_principal), False),
    ("requestPrincipals", _always(_request_principal), True),
    ("serviceAccounts", _service_account, False),
    ("namespaces", _always(_namespace), False),
    ("remoteIpBlocks", _always(_cidr("remote_ip")), False),
    ("ipBlocks", _always(_cidr("direct_remote_ip")), False),
)
_OPERATION: tuple[_Field, ...] = (
    ("hosts", _always(_header(":authority", ignore_case=True)), True),
    ("methods", _always(_header(":method")), True),
    ("paths", _always(_path), True),
    ("ports", _always(_port), False),
)
_IDENTITY_KEYS: dict[str, _Field] = {
    "source.ip": ("", _always(_cidr("direct_remote_ip")), False),
    "remote.ip": ("", _always(_cidr("remote_ip")), False),
    "source.namespace": ("", _always(_namespace), False),
    "source.principal": ("", _always(_principal), False),
    "source.serviceAccount": ("", _service_account, False),
    "request.auth.principal": ("", _always(_request_principal), True),
}
_OPERATION_KEYS: dict[str, _Field] = {
    "destination.ip": ("", _always(_cidr("destination_ip")), False),
    "destination.port": ("", _always(_port), False),
    "connection.sni": ("", _always(lambda value: {"requested_server_name": _string(value)}), False),
}
_CLAIMS: dict[str, tuple[str, ...]] = {
    "request.auth.claims": (),
    "request.auth.audiences": ("aud",),
    "request.auth.presenter": ("azp",),
}
"""Conditions on a token's claim: where in it; () where the key itself says."""
