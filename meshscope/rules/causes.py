"""The causes that meshscope tells apart: public ids, the same in both meshes, whose meaning never changes."""

from __future__ import annotations

from typing import Literal

import msgspec

Side = Literal["client", "server", "endpoint", "application", "config", "control plane", "nobody", ""]


class Cause(msgspec.Struct, frozen=True):
    """What an id means; `who` is the side where the fix is, "" where that depends on the case."""

    title: str
    section: str
    who: Side


_TLS = "Identity and TLS"
_AUTHORIZATION = "Authorization"
_BREAKING = "Circuit breaking and outliers"
_ROUTING = "Routing"
_ENDPOINTS = "Endpoints and upstream"
_TIME = "Time, faults, limits, protocol"
_CONTROL = "Control plane and injection"
_UNKNOWN = "Not explained"

CAUSES: dict[str, Cause] = {
    "unexplained-failure": Cause("Requests fail, and no rule explains why", _UNKNOWN, ""),
    # Identity and TLS
    "client-plaintext-server-strict": Cause(
        "The caller's proxy is configured to send plaintext to a server that only takes mTLS", _TLS, "config"
    ),
    "client-without-sidecar-server-strict": Cause(
        "The caller has no proxy, and the server only takes mTLS", _TLS, "client"
    ),
    "auto-mtls-endpoint-not-labelled": Cause(
        "The endpoint has a proxy, but lacks the label by which callers know to use mTLS", _TLS, "endpoint"
    ),
    "client-mtls-server-disable": Cause(
        "The caller's proxy offers mTLS, and the server's policy switches it off", _TLS, "server"
    ),
    "client-mtls-server-without-sidecar": Cause(
        "The caller's proxy offers mTLS to a pod that has no proxy to take it", _TLS, "config"
    ),
    "client-sends-no-certificate": Cause(
        "The caller's proxy speaks TLS without a client certificate, and the server demands one",
        _TLS,
        "config",
    ),
    "tls-without-istio-alpn": Cause(
        "The caller's TLS doesn't announce itself as the mesh's, so no filter chain of the server takes it",
        _TLS,
        "config",
    ),
    "sni-matches-no-filter-chain": Cause(
        "The server name in the caller's mesh TLS matches no filter chain of the server", _TLS, "config"
    ),
    "tls-version-mismatch": Cause("The two proxies have no TLS version in common", _TLS, "config"),
    "client-cert-expired": Cause("The caller's certificate has expired", _TLS, "client"),
    "server-cert-expired": Cause("The server's certificate has expired", _TLS, "server"),
    "server-cert-not-yet-valid": Cause("The server's certificate isn't valid yet", _TLS, "server"),
    "root-ca-expired": Cause(
        "The root certificate that both sides rely on has expired", _TLS, "control plane"
    ),
    "client-cert-untrusted-by-server": Cause(
        "The caller's certificate comes from a root that the server doesn't trust", _TLS, "client"
    ),
    "server-cert-untrusted-by-client": Cause(
        "The server's certificate comes from a root that the caller doesn't trust", _TLS, "server"
    ),
    "server-root-bundle-outdated": Cause(
        "After a rotation the server's trust bundle lacks the root of the caller's certificate",
        _TLS,
        "server",
    ),
    "san-mismatch-service-account": Cause(
        "The server's certificate is valid, but for another service account than the caller expects",
        _TLS,
        "server",
    ),
    "san-mismatch-trust-domain": Cause(
        "The server's certificate is valid, but from another trust domain than the caller expects",
        _TLS,
        "config",
    ),
    "client-secret-not-delivered": Cause("The caller's proxy never received its certificate", _TLS, "client"),
    "server-secret-not-delivered": Cause("The server's proxy never received its certificate", _TLS, "server"),
    "plaintext-traffic-allowed": Cause(
        "Calls work, but without mTLS, and the policy in force permits it", _TLS, "config"
    ),
    "no-peer-identity-for-principal-policy": Cause(
        "A policy asks for the caller's identity, and the connection has none", _TLS, "client"
    ),
    "identity-not-issued": Cause(
        "Linkerd's identity service issued the proxy no certificate", _TLS, "control plane"
    ),
    "issuer-expired": Cause("Linkerd's issuer certificate has expired", _TLS, "control plane"),
    "trust-anchor-mismatch": Cause(
        "Linkerd's trust anchor isn't the one that its issuer comes from", _TLS, "control plane"
    ),
    # Authorization
    "deny-policy": Cause("A DENY policy matched the request", _AUTHORIZATION, "config"),
    "implicit-deny-by-allow-policy": Cause(
        "ALLOW policies select the server, and none matched the request", _AUTHORIZATION, "config"
    ),
    "allow-nothing": Cause("An ALLOW policy without rules lets nothing through", _AUTHORIZATION, "config"),
    "dry-run": Cause(
        "A policy in dry run would deny the request; nothing is refused", _AUTHORIZATION, "nobody"
    ),
    "jwt-invalid": Cause("The request's token was refused", _AUTHORIZATION, "client"),
    "jwt-missing": Cause("The request has no token, and a policy demands one", _AUTHORIZATION, "client"),
    "ext-authz-denied": Cause("The external authorizer refused the request", _AUTHORIZATION, "config"),
    "ext-authz-unreachable": Cause("The external authorizer doesn't answer", _AUTHORIZATION, "server"),
    "server-authorization-excludes-caller": Cause(
        "Linkerd: the Server's ServerAuthorizations leave this caller out", _AUTHORIZATION, "config"
    ),
    "authorization-policy-excludes-caller": Cause(
        "Linkerd: the Server's AuthorizationPolicies leave this caller out", _AUTHORIZATION, "config"
    ),
    "server-without-authorization": Cause(
        "Linkerd: a Server exists and nothing grants access to it", _AUTHORIZATION, "config"
    ),
    "default-inbound-policy-denies": Cause(
        "Linkerd: no Server covers the port, and the default policy denies this caller",
        _AUTHORIZATION,
        "config",
    ),
    "dangling-authorization-reference": Cause(
        "Linkerd: a policy refers to an authentication that doesn't exist, so it grants nothing",
        _AUTHORIZATION,
        "config",
    ),
    "network-authentication-mismatch": Cause(
        "Linkerd: the caller's address is in none of the networks that are let in", _AUTHORIZATION, "config"
    ),
    "probe-route-lost": Cause(
        "Linkerd: an HTTPRoute on a Server took the place of the route that let probes in",
        _AUTHORIZATION,
        "config",
    ),
    # Circuit breaking and outliers
    "max-pending": Cause("The limit of waiting requests is reached; more are refused", _BREAKING, "config"),
    "max-requests": Cause(
        "The limit of concurrent requests is reached; more are refused", _BREAKING, "config"
    ),
    "max-retries": Cause("The limit of concurrent retries is reached; more are refused", _BREAKING, "config"),
    "max-connections-tcp": Cause(
        "The limit of TCP connections is reached; more are closed", _BREAKING, "config"
    ),
    "max-connections-queueing": Cause(
        "The limit of connections makes requests wait; none is refused", _BREAKING, "config"
    ),
    "all-endpoints-ejected": Cause("Outlier detection has ejected every endpoint", _BREAKING, "server"),
    "one-endpoint-ejected": Cause(
        "Outlier detection has ejected some of the endpoints", _BREAKING, "endpoint"
    ),
    "panic-mode": Cause(
        "So few endpoints are healthy that the caller's proxy uses the unhealthy ones too",
        _BREAKING,
        "server",
    ),
    "ejection-prevented-by-max-ejection-percent": Cause(
        "Endpoints fail often enough to be ejected, and the ejection limit forbids it", _BREAKING, "config"
    ),
    "breaker-open": Cause("Linkerd: failure accrual took the endpoints out", _BREAKING, "server"),
    "retry-budget-exhausted": Cause("Linkerd: the retry budget has nothing left", _BREAKING, "config"),
    # Routing
    "no-vhost": Cause("The caller's proxy knows no such host", _ROUTING, "config"),
    "no-matching-route": Cause(
        "The host is known, and none of its routes matches the request", _ROUTING, "config"
    ),
    "registry-only": Cause(
        "The host isn't in the mesh's registry, and the outbound policy forbids others", _ROUTING, "config"
    ),
    "sidecar-egress-hides-host": Cause(
        "A Sidecar resource hides the host from this caller", _ROUTING, "config"
    ),
    "subset-not-defined": Cause("A route names a subset that no DestinationRule defines", _ROUTING, "config"),
    "route-to-unknown-host": Cause("A route names a host that doesn't exist", _ROUTING, "config"),
    "http-policy-on-tcp-port": Cause(
        "To the mesh the port is plain TCP, so HTTP routes and policies for it have no effect",
        _ROUTING,
        "config",
    ),
    "http-route-unmatched": Cause(
        "Linkerd: none of the Server's routes matches the request", _ROUTING, "config"
    ),
    "undefined-service-port": Cause("Linkerd: the Service has no such port", _ROUTING, "client"),
    "connect-to-proxy-port": Cause(
        "The request went straight to a port of the proxy itself", _ROUTING, "client"
    ),
    # Endpoints and upstream
    "service-selects-no-pods": Cause(
        "The Service's selector matches no workload's pods", _ENDPOINTS, "config"
    ),
    "subset-selects-no-pods": Cause("The subset's labels match no pod behind the host", _ENDPOINTS, "config"),
    "no-endpoints": Cause(
        "The Service selects a workload, and none of its pods is there and ready", _ENDPOINTS, "server"
    ),
    "endpoints-unhealthy": Cause("Health checks fail for every endpoint", _ENDPOINTS, "server"),
    "endpoints-draining": Cause("Every endpoint is draining", _ENDPOINTS, "server"),
    "dns-failure": Cause("The host's name doesn't resolve at the caller's proxy", _ENDPOINTS, "config"),
    "app-not-listening": Cause(
        "The server's proxy is there, and the application doesn't listen at the port it forwards to",
        _ENDPOINTS,
        "application",
    ),
    "nothing-listens-at-endpoint": Cause(
        "Neither a proxy nor an application listens at the endpoint", _ENDPOINTS, "server"
    ),
    "connect-timeout": Cause("Packets to the endpoint go nowhere", _ENDPOINTS, "server"),
    "app-closes-connection": Cause(
        "The application closes connections without an answer", _ENDPOINTS, "application"
    ),
    "app-dies-mid-response": Cause(
        "The application breaks off in the middle of an answer", _ENDPOINTS, "application"
    ),
    "application-answer": Cause(
        "The application itself answers with the error; the mesh carried it faithfully",
        _ENDPOINTS,
        "application",
    ),
    "app-overloaded-by-proxy-limit": Cause(
        "A limit of the server's proxy towards its application is reached", _ENDPOINTS, "server"
    ),
    "listener-connection-limit": Cause(
        "The server's listener takes no more connections", _ENDPOINTS, "server"
    ),
    "overload-manager": Cause("The server's proxy sheds load to protect itself", _ENDPOINTS, "server"),
    # Time, faults, limits, protocol
    "route-timeout": Cause("The route's timeout ran out before the answer came", _TIME, "config"),
    "per-try-timeout": Cause("Every try ran out of its own timeout", _TIME, "config"),
    "stream-idle-timeout": Cause("The request was idle for longer than the proxy allows", _TIME, "config"),
    "max-stream-duration": Cause("The request lasted longer than the proxy allows", _TIME, "config"),
    "caller-gave-up": Cause("The caller left before the answer came", _TIME, "client"),
    "retries-exhausted": Cause("Every retry failed like the first try", _TIME, "server"),
    "fault-abort": Cause("An injected fault aborts requests", _TIME, "config"),
    "fault-delay": Cause("An injected fault delays requests", _TIME, "config"),
    "rate-limit-local": Cause("The proxy's own rate limit refuses requests", _TIME, "config"),
    "rate-limit-global": Cause("The rate limit service refuses requests", _TIME, "config"),
    "rate-limit-service-down": Cause("The rate limit service doesn't answer", _TIME, "server"),
    "http2-to-http1-app": Cause(
        "The proxy speaks HTTP/2 to an application that only knows HTTP/1", _TIME, "config"
    ),
    "app-not-http": Cause("The port is declared HTTP, and the application doesn't speak it", _TIME, "config"),
    "caller-not-http": Cause("The port is declared HTTP, and the caller doesn't speak it", _TIME, "client"),
    "opaque-port-mismatch": Cause(
        "Linkerd: one side takes the port for opaque, the other for HTTP", _TIME, "config"
    ),
    "protocol-detection-timeout": Cause(
        "Linkerd: the proxy waits in vain for the caller's first bytes to tell the protocol", _TIME, "config"
    ),
    "request-headers-too-big": Cause(
        "The request's headers are bigger than the proxy takes", _TIME, "client"
    ),
    "response-headers-too-big": Cause(
        "The answer's headers are bigger than the proxy takes", _TIME, "application"
    ),
    # Control plane and injection
    "control-plane-down": Cause(
        "Istiod can't be reached: proxies live on what they last heard", _CONTROL, "control plane"
    ),
    "destination-down": Cause(
        "Linkerd's destination service can't be reached: proxies live on what they last heard",
        _CONTROL,
        "control plane",
    ),
    "policy-controller-down": Cause(
        "Linkerd's policy controller can't be reached", _CONTROL, "control plane"
    ),
    "identity-down": Cause("Linkerd's identity service can't be reached", _CONTROL, "control plane"),
    "proxy-config-stale": Cause(
        "The proxy hasn't acknowledged what was sent to it", _CONTROL, "control plane"
    ),
    "listener-rejected": Cause("The proxy rejected a listener", _CONTROL, "config"),
    "cluster-rejected": Cause("The proxy rejected a cluster", _CONTROL, "config"),
    "route-rejected": Cause("The proxy rejected a route configuration", _CONTROL, "config"),
    "proxy-endpoints-stale": Cause(
        "The proxy's endpoints or ports aren't those that the API server knows", _CONTROL, "control plane"
    ),
    "not-injected": Cause("A workload that should have a proxy has none", _CONTROL, "config"),
    "inbound-port-skipped": Cause("The port bypasses the server's proxy", _CONTROL, "config"),
}
