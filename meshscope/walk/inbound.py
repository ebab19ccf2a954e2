"""The server's side of the walk after TLS: JWT, authorization, limits, inbound cluster, application."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from meshscope.envoy.config_dump import FilterChain, HttpConnectionManager, TcpProxy, TypedExtension
from meshscope.envoy.rbac import Decision, HttpRbac, NetworkRbac, RbacRules, evaluate, explain
from meshscope.envoy.request import Connection, HttpRequest
from meshscope.envoy.routes import normalized, route
from meshscope.facts.mesh import Mesh
from meshscope.facts.proxy import Proxy
from meshscope.istio.names import policy_rule
from meshscope.model.findings import Evidence
from meshscope.model.names import ObjectRef
from meshscope.sources.source import Part
from meshscope.walk.hops import Hop, Stage
from meshscope.walk.upstream import Target


def hops(
    mesh: Mesh, target: Target, chain: FilterChain, request: HttpRequest | None, connection: Connection
) -> Iterator[Hop]:
    """The hops behind the server's filter chain, in the filters' order."""
    server = target.server
    assert server is not None
    manager_filter = chain.network_filter("HttpConnectionManager")
    for network_filter in chain.filters:
        if network_filter.type_url.endswith("network.rbac.v3.RBAC") and manager_filter is None:
            yield from _network_rbac(server, network_filter, connection)
    if manager_filter is None or request is None:
        tcp = chain.network_filter("TcpProxy")
        cluster = tcp.decode(TcpProxy).cluster if tcp is not None else ""
        yield Hop(
            Stage.INBOUND_CLUSTER,
            "pass",
            f"TCP to {cluster or 'the application'}",
            server.id,
            f"cluster {cluster}",
        )
        return
    manager = manager_filter.decode(HttpConnectionManager)
    request = normalized(manager, request)
    for http_filter in manager.http_filters:
        yield from _http_filter(mesh, server, http_filter, request, connection)
    if manager.route_config is not None:
        for outcome in route(manager.route_config, request, connection):
            if outcome.kind == "cluster":
                yield Hop(
                    Stage.INBOUND_CLUSTER,
                    "pass",
                    f"to the application by {outcome.cluster}",
                    server.id,
                    f"cluster {outcome.cluster}",
                )
                return
            yield Hop(
                Stage.INBOUND_CLUSTER,
                "fail" if outcome.kind.startswith("no_") else "unknown",
                f"inbound route: {outcome.kind}",
                server.id,
                f"route {manager.route_config.name}",
                cause="no-matching-route" if outcome.kind.startswith("no_") else "",
            )
            return


def _http_filter(
    mesh: Mesh, server: Proxy, http_filter: TypedExtension, request: HttpRequest, connection: Connection
) -> Iterator[Hop]:
    kind = http_filter.type_url
    if kind.endswith("http.rbac.v3.RBAC"):
        rbac = http_filter.decode(HttpRbac)
        yield from _rbac(server, rbac.rules, rbac.shadow_rules, request, connection, http_filter.name)
    elif kind.endswith("jwt_authn.v3.JwtAuthentication"):
        yield _jwt(server, http_filter, request)
    elif kind.endswith("ext_authz.v3.ExtAuthz"):
        yield Hop(
            Stage.AUTHORIZATION,
            "unknown",
            "an external authorizer decides",
            server.id,
            f"filter {http_filter.name}",
            detail={"external": True},
        )
    elif "ratelimit" in kind:
        yield Hop(
            Stage.LIMITS, "pass", f"subject to {http_filter.name}", server.id, f"filter {http_filter.name}"
        )


def _network_rbac(server: Proxy, network_filter: TypedExtension, connection: Connection) -> Iterator[Hop]:
    rbac = network_filter.decode(NetworkRbac)
    yield from _rbac(server, rbac.rules, rbac.shadow_rules, None, connection, network_filter.name)


def _rbac(
    server: Proxy,
    rules: RbacRules | None,
    shadow: RbacRules | None,
    request: HttpRequest | None,
    connection: Connection,
    name: str,
) -> Iterator[Hop]:
    where = f"filter {name}"
    if shadow is not None:
        decision = evaluate(shadow, request, connection)
        if decision.allowed is False:
            yield Hop(
                Stage.AUTHORIZATION,
                "pass",
                f"a dry-run policy would deny it: {decision.policy or 'no ALLOW matches'}",
                server.id,
                where,
                _policy_object(decision.policy),
                cause="dry-run",
                detail={"decision": decision, "shadow": True},
            )
    if rules is None:
        return
    decision = evaluate(rules, request, connection)
    yield _decided(server, rules, decision, request, connection, where)


def _decided(
    server: Proxy,
    rules: RbacRules,
    decision: Decision,
    request: HttpRequest | None,
    connection: Connection,
    where: str,
) -> Hop:
    behind = _policy_object(decision.policy)
    detail: dict[str, Any] = {
        "decision": decision,
        "connection": connection,
        "policies": sorted(rules.policies),
    }
    source = Evidence(
        f"proxy {server.id}", f"{server.path(Part.CONFIG_DUMP)}: {where}", decision.policy or "[none]"
    )
    if decision.allowed is None:
        return Hop(Stage.AUTHORIZATION, "unknown", decision.why, server.id, where, behind, detail=detail)
    if decision.allowed:
        return Hop(
            Stage.AUTHORIZATION,
            "pass",
            f"{decision.action}: {decision.policy or 'nothing denies it'}",
            server.id,
            where,
            behind,
            detail=detail,
        )
    if decision.action == "DENY":
        return Hop(
            Stage.AUTHORIZATION,
            "fail",
            f"denied by {decision.policy}",
            server.id,
            where,
            behind,
            "deny-policy",
            (source,),
            detail,
        )
    detail["mismatches"] = explain(rules, request, connection)
    if not rules.policies or all(
        not policy.principals and not policy.permissions for policy in rules.policies.values()
    ):
        cause = "allow-nothing"
    else:
        cause = "implicit-deny-by-allow-policy"
    return Hop(
        Stage.AUTHORIZATION,
        "fail",
        "ALLOW policies exist and none matches",
        server.id,
        where,
        behind,
        cause,
        (source,),
        detail,
    )


def _policy_object(name: str) -> ObjectRef | None:
    rule = policy_rule(name)
    return rule.policy if rule is not None else None


def _jwt(server: Proxy, http_filter: TypedExtension, request: HttpRequest) -> Hop:
    """Whether a token is demanded; what is in one can't be judged without the request's own token."""
    where = f"filter {http_filter.name}"
    config = http_filter.decode(dict[str, Any])
    rules = config.get("rules") or []
    token = request.header("authorization") is not None
    optional = any("allow_missing" in msgspec.json.encode(rule).decode() for rule in rules)
    if token:
        return Hop(Stage.JWT, "unknown", "the request's token can't be judged from outside", server.id, where)
    word = (
        "no token, none is demanded here" if optional or not rules else "no token, and the filter demands one"
    )
    return Hop(
        Stage.JWT,
        "pass" if optional or not rules else "fail",
        word,
        server.id,
        where,
        cause="" if optional or not rules else "jwt-missing",
    )
