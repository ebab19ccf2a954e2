"""The server's side of the walk after TLS: JWT, authorization, limits, inbound cluster, application.

Details of the hops: AUTHORIZATION has `decision` (RBAC's), `connection`, `policies` (names held), `mismatches`
(why each ALLOW policy didn't match), `any_token` (any valid token would have done), `intended` (read off Kubernetes
because the proxy wasn't read), `drift` (what Kubernetes says, where the proxy holds otherwise), `tcp`; for an
external authorizer `external`, `cluster`, `fail_open`. JWT has `verdict`. LIMITS has `kind` (local, global), `limit` in words,
`cluster`, `fail_closed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from meshscope.envoy import jwt
from meshscope.envoy.config_dump import FilterChain, HttpConnectionManager, TcpProxy, TypedExtension
from meshscope.envoy.rbac import (
    ConditionMismatch,
    Decision,
    HttpRbac,
    NetworkRbac,
    PolicyMismatch,
    RbacRules,
    evaluate,
    explain,
    matches_nothing,
)
from meshscope.envoy.request import Connection, HttpRequest
from meshscope.envoy.routes import normalized, route
from meshscope.facts.mesh import Mesh
from meshscope.facts.proxy import Proxy
from meshscope.istio import authorization, envoy_filters
from meshscope.istio.kubernetes import match_labels, selects
from meshscope.istio.names import SECURITY, policy_rule
from meshscope.istio.rbac import rbac_rules
from meshscope.model.findings import Evidence, Unavailable
from meshscope.model.kubernetes import KubernetesObject
from meshscope.model.names import ObjectRef
from meshscope.sources.source import Part
from meshscope.walk import upstream
from meshscope.walk.hops import Hop, Outcome, Stage
from meshscope.walk.upstream import Target

EXT_AUTHZ_SHADOW = "istio_ext_authz_"
"""The shadow rules by which Istio tells which requests an external authorizer is asked about."""
BAD_PROVIDER = "default-deny-all-due-to-bad-CUSTOM-action"
"""The policy that denies everything where a CUSTOM policy names a provider that isn't defined."""


def hops(
    mesh: Mesh, target: Target, chain: FilterChain, request: HttpRequest | None, connection: Connection
) -> Iterator[Hop]:
    """The hops behind the server's filter chain, in the filters' order."""
    server = target.server
    assert server is not None
    manager_filter = chain.network_filter("HttpConnectionManager")
    if manager_filter is None or request is None:
        passage = _Passage(mesh, target, server, None, connection)
        for network_filter in chain.filters:
            if network_filter.type_url.endswith("network.rbac.v3.RBAC"):
                rbac = network_filter.decode(NetworkRbac)
                yield from passage.rbac(rbac.rules, rbac.shadow_rules, "", network_filter.name)
        yield _tcp(server, chain)
        return
    manager = manager_filter.decode(HttpConnectionManager)
    passage = _Passage(mesh, target, server, normalized(manager, request, connection), connection)
    for http_filter in manager.http_filters:
        if not http_filter.disabled:
            yield from passage.http_filter(http_filter)
    yield from _inbound_route(server, manager, request, connection)


def _tcp(server: Proxy, chain: FilterChain) -> Hop:
    tcp = chain.network_filter("TcpProxy")
    cluster = tcp.decode(TcpProxy).cluster if tcp is not None else ""
    words = f"TCP to {cluster or 'the application'}"
    return Hop(Stage.INBOUND_CLUSTER, "pass", words, server.id, f"cluster {cluster}")


def _inbound_route(
    server: Proxy, manager: HttpConnectionManager, request: HttpRequest, connection: Connection
) -> Iterator[Hop]:
    if manager.route_config is None:
        return
    where = f"route {manager.route_config.name}"
    for outcome in route(manager.route_config, normalized(manager, request, connection), connection)[:1]:
        if outcome.kind == "cluster":
            words, where = f"to the application by {outcome.cluster}", f"cluster {outcome.cluster}"
            yield Hop(Stage.INBOUND_CLUSTER, "pass", words, server.id, where)
        elif outcome.kind.startswith("no_"):
            words = f"inbound route: {outcome.kind}"
            yield Hop(Stage.INBOUND_CLUSTER, "fail", words, server.id, where, cause="no-matching-route")
        else:
            yield Hop(Stage.INBOUND_CLUSTER, "unknown", f"inbound route: {outcome.kind}", server.id, where)


class _Passage:
    """A request's way through the server's filters: what earlier filters found out counts for later ones."""

    def __init__(
        self,
        mesh: Mesh,
        target: Target,
        server: Proxy,
        request: HttpRequest | None,
        connection: Connection,
    ) -> None:
        self._mesh, self._target, self._server = mesh, target, server
        self._request, self._connection = request, connection
        self._asks: Decision | None = None
        self._asks_for = ""

    def http_filter(self, http_filter: TypedExtension) -> Iterator[Hop]:
        kind = http_filter.type_url
        if kind.endswith("http.rbac.v3.RBAC"):
            rbac = http_filter.decode(HttpRbac)
            yield from self.rbac(
                rbac.rules, rbac.shadow_rules, rbac.shadow_rules_stat_prefix, http_filter.name
            )
        elif kind.endswith("jwt_authn.v3.JwtAuthentication"):
            yield self._jwt(http_filter)
        elif kind.endswith("ext_authz.v3.ExtAuthz"):
            yield from self._external(http_filter)
        elif kind.endswith("local_ratelimit.v3.LocalRateLimit"):
            yield _local_limit(
                http_filter.decode(dict[str, Any]),
                self._server,
                self._behind("LocalRateLimit"),
                http_filter.name,
            )
        elif kind.endswith("filters.http.ratelimit.v3.RateLimit"):
            yield from self._global_limit(http_filter)

    # --- RBAC

    def rbac(
        self, rules: RbacRules | None, shadow: RbacRules | None, shadow_prefix: str, name: str
    ) -> Iterator[Hop]:
        where = f"filter {name}"
        if shadow is not None and shadow_prefix.startswith(EXT_AUTHZ_SHADOW):
            self._asks = evaluate(shadow, self._request, self._connection)
            self._asks_for = self._asks.policy or next(
                (f.policy for f in explain(shadow, self._request, self._connection) if _undecided(f)), ""
            )
        elif shadow is not None:
            yield from _dry_run(shadow, self._request, self._connection, self._server, where)
        if rules is None:
            return
        hop = decided(rules, self._request, self._connection, self._server, where)
        yield self._with_drift(hop, rules)

    def _with_drift(self, hop: Hop, held: RbacRules) -> Hop:
        """Notes where the policies in Kubernetes would decide otherwise than the rules that the proxy holds."""
        decision: Decision = hop.detail["decision"]
        pod = self._target.pod
        if pod is None or decision.allowed is None or held.action not in ("ALLOW", "DENY"):
            return hop
        policies = enforced(self._mesh, pod)
        wanted = rbac_rules(
            policies, "ALLOW" if held.action == "ALLOW" else "DENY", tcp=self._request is None
        )
        intended = evaluate(wanted, self._request, self._connection) if wanted is not None else None
        allowed = intended.allowed if intended is not None else True
        if allowed is None or allowed == decision.allowed:
            return hop
        word = "let this through" if allowed else "refuse this"
        drift = f"the {held.action} policies in Kubernetes would {word}: the proxy holds other rules"
        return msgspec.structs.replace(hop, detail={**hop.detail, "drift": drift})

    # --- JWT

    def _jwt(self, http_filter: TypedExtension) -> Hop:
        assert self._request is not None
        config = http_filter.decode(jwt.JwtAuthentication)
        found = jwt.evaluate(config, self._request, self._mesh.captured_at)
        if self._request.partial:
            unknown = self._connection.unknown | {jwt.FILTER}
            self._connection = msgspec.structs.replace(self._connection, unknown=unknown)
        elif found.claims:
            key = next(
                (p.payload_in_metadata for p in config.providers.values() if p.payload_in_metadata), ""
            )
            metadata = {**self._connection.dynamic_metadata, jwt.FILTER: {key or "payload": found.claims}}
            self._connection = msgspec.structs.replace(self._connection, dynamic_metadata=metadata)
        outcome: Outcome = (
            "pass" if found.verdict == "allowed" else "unknown" if found.verdict == "unknown" else "fail"
        )
        cause = {"missing": "jwt-missing", "invalid": "jwt-invalid"}.get(found.verdict, "")
        behind = next(iter(request_authentications(self._mesh, self._target.pod)), None)
        issuers = sorted(p.issuer for p in config.providers.values() if p.issuer)
        return Hop(
            Stage.JWT,
            outcome,
            found.why,
            self._server.id,
            f"filter {http_filter.name}",
            behind.ref if behind is not None else None,
            cause,
            detail={"verdict": found.verdict, "issuers": issuers},
        )

    # --- those who are asked

    def _external(self, http_filter: TypedExtension) -> Iterator[Hop]:
        asks = self._asks
        where = f"filter {http_filter.name}"
        config = http_filter.decode(dict[str, Any])
        cluster = _asked_cluster(config)
        detail = {
            "external": True,
            "cluster": cluster,
            "fail_open": bool(config.get("failure_mode_allow")),
            "policy": self._asks_for,
        }
        if asks is not None and asks.allowed is not False and asks.allowed is not None:
            yield Hop(
                Stage.AUTHORIZATION,
                "pass",
                "no CUSTOM policy matches: the external authorizer isn't asked",
                self._server.id,
                where,
                detail=detail,
            )
            return
        behind = policy_object(self._asks_for)
        unreachable = self._no_way_to(cluster)
        if unreachable is not None and not detail["fail_open"]:
            yield Hop(
                Stage.AUTHORIZATION,
                "fail",
                f"the external authorizer {cluster} can't be reached: {unreachable.decision}",
                self._server.id,
                where,
                behind,
                "ext-authz-unreachable",
                unreachable.evidence,
                detail,
            )
            return
        words = f"the external authorizer {cluster} decides"
        yield Hop(Stage.AUTHORIZATION, "unknown", words, self._server.id, where, behind, detail=detail)

    def _no_way_to(self, cluster: str) -> Hop | None:
        """Why the server's own proxy can't reach a cluster, as far as its configuration and /clusters tell."""
        if not cluster or isinstance(self._server.config, Unavailable):
            return None
        found, hop = upstream.cluster(self._mesh, self._server, cluster)
        if found is not None:
            _, hop = upstream.targets(self._mesh, self._server, found)
        return hop if hop.outcome == "fail" else None

    def _global_limit(self, http_filter: TypedExtension) -> Iterator[Hop]:
        config = http_filter.decode(dict[str, Any])
        hop = _global_limit(config, self._server, self._behind("RateLimit"), http_filter.name)
        unreachable = self._no_way_to(hop.detail["cluster"])
        if unreachable is not None and hop.detail["fail_closed"]:
            words = f"the rate limit service {hop.detail['cluster']} can't be reached: {unreachable.decision}"
            hop = msgspec.structs.replace(
                hop,
                outcome="fail",
                decision=words,
                cause="rate-limit-service-down",
                evidence=unreachable.evidence,
            )
        yield hop

    def _behind(self, kind: str) -> ObjectRef | None:
        """The EnvoyFilter that inserts a filter of this kind into what the pod serves."""
        if self._target.pod is None:
            return None
        for found, value in envoy_filters.inbound_filters(self._mesh.objects, self._target.pod):
            if envoy_filters.filter_type(value).rpartition(".")[2] == kind:
                return found.ref
        return None


def _asked_cluster(config: dict[str, Any]) -> str:
    """The cluster that an ext_authz or rate limit filter asks; "" where it isn't one of Envoy's clusters."""
    http = _mapped(config.get("http_service"))
    grpc = _mapped(config.get("grpc_service")) or _mapped(
        _mapped(config.get("rate_limit_service")).get("grpc_service")
    )
    named = _mapped(http.get("server_uri")).get("cluster") or _mapped(grpc.get("envoy_grpc")).get(
        "cluster_name"
    )
    return str(named or "")


def _mapped(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


# --- RBAC ---------------------------------------------------------------------------------------------------


def _dry_run(
    shadow: RbacRules,
    request: HttpRequest | None,
    connection: Connection,
    server: Proxy | None,
    where: str,
    intended: bool = False,
) -> Iterator[Hop]:
    decision = evaluate(shadow, request, connection)
    if decision.allowed is False:
        first = next(iter(sorted(shadow.policies)), "")
        yield Hop(
            Stage.AUTHORIZATION,
            "pass",
            f"a dry-run policy would deny it: {decision.policy or 'no ALLOW policy in dry run matches'}",
            server.id if server is not None else None,
            where,
            policy_object(decision.policy or first),
            cause="dry-run",
            detail={"decision": decision, "shadow": True, "intended": intended},
        )


def decided(
    rules: RbacRules,
    request: HttpRequest | None,
    connection: Connection,
    server: Proxy | None,
    where: str,
) -> Hop:
    """What RBAC rules decide, and where they refuse, for which cause."""
    decision = evaluate(rules, request, connection)
    detail: dict[str, Any] = {
        "decision": decision,
        "connection": connection,
        "policies": sorted(rules.policies),
        "intended": server is None,
        "tcp": request is None,
    }
    cause, outcome, words = "", "pass", f"{decision.action}: {decision.policy or 'nothing denies it'}"
    if decision.allowed is None:
        outcome, words = "unknown", decision.why
    if decision.allowed is not True and decision.action == "ALLOW":
        mismatches = explain(rules, request, connection)
        cause = why_none_matches(rules, mismatches)
        detail |= {"mismatches": mismatches, "any_token": _any_token(mismatches)}
    if decision.allowed is None and decision.action == "DENY":
        perhaps = [found.policy for found in explain(rules, request, connection) if _undecided(found)]
        cause, detail["perhaps"] = "deny-policy", perhaps
    if decision.allowed is False:
        outcome = "fail"
        if decision.action == "ALLOW":
            words = "ALLOW policies exist and none matches"
        else:
            words = f"denied by {decision.policy}"
            cause = "ext-authz-unreachable" if decision.policy == BAD_PROVIDER else "deny-policy"
    evidence = (_source(server, where, decision),) if outcome == "fail" else ()
    return Hop(
        Stage.AUTHORIZATION,
        outcome,  # type: ignore[arg-type]
        words,
        server.id if server is not None else None,
        where,
        policy_object(decision.policy),
        cause,
        evidence,
        detail,
    )


def _source(server: Proxy | None, where: str, decision: Decision) -> Evidence:
    said = decision.policy or "[none]"
    if server is None:
        return Evidence("kubernetes", where, f"as istiod would translate it: {said}")
    return Evidence(f"proxy {server.id}", f"{server.path(Part.CONFIG_DUMP)}: {where}", said)


def why_none_matches(rules: RbacRules, mismatches: list[PolicyMismatch]) -> str:
    """The cause behind `[none]`: no policy could ever match, or what the nearest ones miss."""
    if matches_nothing(rules):
        return "allow-nothing"
    if not mismatches:
        return "implicit-deny-by-allow-policy"
    if all(any(map(_no_identity, found.conditions)) for found in mismatches):
        return "no-peer-identity-for-principal-policy"
    fewest = min(len({c.subject for c in found.conditions}) for found in mismatches)
    nearest = [found for found in mismatches if len({c.subject for c in found.conditions}) == fewest]
    if any(all(map(_no_identity, found.conditions)) for found in nearest):
        return "no-peer-identity-for-principal-policy"
    if any(all(map(_no_token, found.conditions)) for found in mismatches):
        return "jwt-missing"
    return "implicit-deny-by-allow-policy"


def _no_identity(condition: ConditionMismatch) -> bool:
    return condition.subject == "principal" and condition.actual.startswith("absent")


def _no_token(condition: ConditionMismatch) -> bool:
    return condition.subject.startswith(jwt.FILTER) and condition.actual in ("absent", "not known")


def _undecided(found: PolicyMismatch) -> bool:
    """Whether the policy matches if what isn't known is so."""
    return bool(found.conditions) and all(condition.undecided for condition in found.conditions)


def _any_token(mismatches: list[PolicyMismatch]) -> bool:
    """Whether a policy misses nothing but a token, whosever it is."""
    return any(
        all(_no_token(condition) and condition.wanted == "matching .+" for condition in found.conditions)
        for found in mismatches
    )


def policy_object(name: str) -> ObjectRef | None:
    rule = policy_rule(name)
    return rule.policy if rule is not None else None


# --- limits -------------------------------------------------------------------------------------------------


def _local_limit(config: dict[str, Any], server: Proxy | None, behind: ObjectRef | None, name: str) -> Hop:
    bucket = _mapped(config.get("token_bucket"))
    words = "a bucket that routes define"
    if bucket:
        fill = bucket.get("tokens_per_fill", 1)
        words = (
            f"{bucket.get('max_tokens')} requests at once, {fill} more every {bucket.get('fill_interval')}"
        )
    return Hop(
        Stage.LIMITS,
        "pass",
        f"subject to the proxy's own rate limit: {words}",
        server.id if server is not None else None,
        f"filter {name}",
        behind,
        "rate-limit-local",
        detail={"kind": "local", "limit": words, "intended": server is None},
    )


def _global_limit(config: dict[str, Any], server: Proxy | None, behind: ObjectRef | None, name: str) -> Hop:
    cluster = _asked_cluster(config)
    closed = bool(config.get("failure_mode_deny"))
    return Hop(
        Stage.LIMITS,
        "pass",
        f"the rate limit service {cluster} is asked, domain {config.get('domain', '')}",
        server.id if server is not None else None,
        f"filter {name}",
        behind,
        "rate-limit-global",
        detail={
            "kind": "global",
            "limit": f"domain {config.get('domain', '')}",
            "cluster": cluster,
            "fail_closed": closed,
            "intended": server is None,
        },
    )


# --- what Kubernetes says, where the server's proxy wasn't read ---------------------------------------------


def enforced(mesh: Mesh, pod: KubernetesObject) -> tuple[KubernetesObject, ...]:
    """The AuthorizationPolicies on a pod that aren't in dry run."""
    found = authorization.applying(mesh.objects, pod)
    return tuple(policy for policy in found if not authorization.is_dry_run(policy))


def request_authentications(mesh: Mesh, pod: KubernetesObject | None) -> tuple[KubernetesObject, ...]:
    """The RequestAuthentications that select a pod, of the root and of its own namespace."""
    if pod is None:
        return ()
    namespaces = dict.fromkeys((mesh.objects.root_namespace, pod.metadata.namespace))
    return tuple(
        found
        for namespace in namespaces
        for found in mesh.objects.of("RequestAuthentication", SECURITY, namespace)
        if not authorization.target_refs(found) and selects(match_labels(found.spec), pod.metadata.labels)
    )


def intended(
    mesh: Mesh, target: Target, request: HttpRequest | None, connection: Connection
) -> Iterator[Hop]:
    """The hops that the pod's policies ask for, in the order in which istiod puts their filters."""
    pod = target.pod
    if pod is None:
        return
    if request is not None:
        yield from _intended_limits(mesh, pod)
    tokens = request_authentications(mesh, pod)
    if tokens and request is not None:
        yield Hop(
            Stage.JWT,
            "unknown",
            f"{tokens[0].ref} refuses tokens that aren't valid",
            object=str(tokens[0].ref),
            kubernetes=tokens[0].ref,
            detail={"verdict": "unknown", "intended": True},
        )
        connection = msgspec.structs.replace(connection, unknown=connection.unknown | {jwt.FILTER})
    tcp = request is None
    policies = enforced(mesh, pod)
    dry = [policy for policy in authorization.applying(mesh.objects, pod) if authorization.is_dry_run(policy)]
    custom = rbac_rules(policies, "CUSTOM", tcp=tcp)
    if custom is not None and (asks := evaluate(custom, request, connection)).allowed is not True:
        yield _intended_external(mesh, policies, asks)
    for action in ("DENY", "ALLOW"):
        shadow = rbac_rules(dry, action, tcp=tcp)
        if shadow is not None:
            yield from _dry_run(shadow, request, connection, None, f"{action} policies in dry run", True)
        rules = rbac_rules(policies, action, tcp=tcp)
        if rules is not None:
            yield decided(rules, request, connection, None, _policies_in_words(rules))


def _policies_in_words(rules: RbacRules) -> str:
    names = dict.fromkeys(str(ref) for name in sorted(rules.policies) if (ref := policy_object(name)))
    return ", ".join(names)


def _intended_external(mesh: Mesh, policies: tuple[KubernetesObject, ...], asks: Decision) -> Hop:
    name = next((p for policy in policies if (p := authorization.provider(policy))), "")
    behind = policy_object(asks.policy)
    return Hop(
        Stage.AUTHORIZATION,
        "unknown",
        f"{behind or 'a CUSTOM policy'} has the external authorizer {name} asked",
        object=str(behind or ""),
        kubernetes=behind,
        detail={
            "external": True,
            "cluster": name,
            "policy": asks.policy,
            "intended": True,
            "fail_open": False,
        },
    )


def _intended_limits(mesh: Mesh, pod: KubernetesObject) -> Iterator[Hop]:
    for found, value in envoy_filters.inbound_filters(mesh.objects, pod):
        kind = envoy_filters.filter_type(value).rpartition(".")[2]
        config, name = envoy_filters.filter_config(value), str(value.get("name") or kind)
        if kind == "LocalRateLimit":
            yield _local_limit(config, None, found.ref, name)
        elif kind == "RateLimit":
            yield _global_limit(config, None, found.ref, name)
