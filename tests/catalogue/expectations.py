"""Where a verdict can't be certain under a condition: which causes must then be named, and why no more can be known."""

from __future__ import annotations

import msgspec


class Undecidable(msgspec.Struct, frozen=True):
    """`causes` must all be named with a confidence of at most 0.6; none: the report must say what is unknown.

    `true` are causes that do hold beside the fault (what led to it): they may be named with any confidence.
    """

    reason: str
    causes: frozenset[str] = frozenset()
    true: frozenset[str] = frozenset()


_REFUSED_CLIENT = Undecidable(
    "the server counts refused certificates and doesn't say whose, nor whether they were expired or of a foreign root; "
    "that is only in the secrets of the caller's proxy, which is the one that couldn't be read",
    frozenset({"client-cert-expired", "client-cert-untrusted-by-server"}),
)

_EXTERNAL_AUTHORIZER = Undecidable(
    "the caller gets a 403 either way, and who wrote it (the authorizer, or the server's proxy that got no answer from it) "
    "is only in that proxy's log and counters; all that speaks is the size of the body, and the policy in Kubernetes",
    frozenset({"ext-authz-denied", "ext-authz-unreachable"}),
)

_NOBODY_LEFT = Undecidable(
    "the caller has no proxy and the server's is the one that couldn't be read: nothing that is left saw the calls",
)

_ENDS_IN_THE_CALLER = Undecidable(
    "the request ends in the caller's own proxy, which is the one that couldn't be read: it never leaves, no other proxy "
    "sees it, and nothing in Kubernetes says that anybody makes this call",
)

_NOBODY_BEHIND = Undecidable(
    "the caller's cluster is empty; whether a selector, a subset's labels or unready pods make it so is only in the "
    "Kubernetes objects, which are what couldn't be read",
    frozenset({"no-endpoints"}),
)

_REFUSED_IN_THE_CALLER = Undecidable(
    "what the caller's proxy refuses or keeps waiting never leaves it, and it is the one that couldn't be read: the "
    "server's proxy sees the requests that went through, which are all well",
)


def _ended_by_the_peer(cause: str) -> Undecidable:
    return Undecidable(
        "the server's proxy sees that its peer hangs up, after about the time that an object in Kubernetes allows: the "
        "caller's proxy at its limit and an application with a timeout of that length look alike from there",
        frozenset({cause, "caller-gave-up"}),
    )


_UNREADABLE_ANSWER = Undecidable(
    "Envoy logs an answer that isn't HTTP and one whose headers are too big with the same words; only the bytes that the "
    "server's proxy counted at its application tell them apart, and these counters are what couldn't be read",
    frozenset({"app-not-http", "response-headers-too-big"}),
)

_NEVER_CONNECTED = Undecidable(
    "the connection never comes about, so the caller's proxy is the only one that sees the attempts, and it is the one "
    "that couldn't be read; the server has no proxy",
)


UNDECIDABLE: dict[tuple[str, str], Undecidable] = {
    **{
        (cause, condition): _UNREADABLE_ANSWER
        for cause in ("app-not-http", "response-headers-too-big")
        for condition in ("default-stats", "single-sample", "no-server-proxy")
    },
    ("nothing-listens-at-endpoint", "no-client-proxy"): _NEVER_CONNECTED,
    ("connect-timeout", "no-client-proxy"): _NEVER_CONNECTED,
    ("request-headers-too-big", "no-client-proxy"): _ENDS_IN_THE_CALLER,
    ("caller-not-http", "no-server-proxy"): _NOBODY_LEFT,
    **{
        (cause, "no-client-proxy"): _REFUSED_IN_THE_CALLER
        for cause in ("max-pending", "max-requests", "max-connections-queueing")
    },
    **{
        (cause, "no-client-proxy"): _ended_by_the_peer(cause)
        for cause in ("route-timeout", "per-try-timeout", "stream-idle-timeout", "max-stream-duration")
    },
    ("all-endpoints-ejected", "no-client-proxy"): Undecidable(
        "endpoints are ejected by and within the caller's proxy, which couldn't be read; the server's proxy has the "
        "application's last 5xx answers, after which nobody calls any more",
        true=frozenset({"application-answer"}),
    ),
    ("retries-exhausted", "no-client-proxy"): Undecidable(
        "how many tries a request had is the caller's proxy's business, which couldn't be read; that the application "
        "answers every one of them with an error is what the server's proxy sees",
        true=frozenset({"application-answer"}),
    ),
    ("caller-gave-up", "no-client-proxy"): Undecidable(
        "the server's proxy sees that its peer hangs up; whether the caller's application or its proxy did is only in the "
        "log of that proxy, which couldn't be read",
        frozenset({"caller-gave-up"}),
    ),
    **{
        (cause, "no-client-proxy"): _ENDS_IN_THE_CALLER
        for cause in (
            "no-vhost",
            "no-matching-route",
            "registry-only",
            "sidecar-egress-hides-host",
            "service-selects-no-pods",
            "subset-selects-no-pods",
            "no-endpoints",
            "endpoints-unhealthy",
            "endpoints-draining",
            "dns-failure",
        )
    },
    ("sidecar-egress-hides-host", "no-log"): Undecidable(
        "all that moves is the count of direct answers at the port; which host was asked for, one that the Sidecar hides or "
        "one that the mesh doesn't know, is only in the log",
        frozenset({"registry-only", "sidecar-egress-hides-host"}),
    ),
    ("http-policy-on-tcp-port", "no-kubernetes"): Undecidable(
        "a VirtualService's HTTP routes leave no trace in a TCP listener, so the proxies don't show that there are any",
    ),
    ("service-selects-no-pods", "no-kubernetes"): _NOBODY_BEHIND,
    ("subset-selects-no-pods", "no-kubernetes"): _NOBODY_BEHIND,
    ("proxy-endpoints-stale", "no-client-proxy"): Undecidable(
        "the stale endpoints are in the caller's proxy, which is the one that couldn't be read; requests go to an address "
        "where nobody is who could tell",
    ),
    ("client-without-sidecar-server-strict", "no-server-proxy"): _NOBODY_LEFT,
    ("plaintext-traffic-allowed", "no-server-proxy"): _NOBODY_LEFT,
    ("client-mtls-server-without-sidecar", "no-client-proxy"): Undecidable(
        "the server has no proxy and the client's is the one that couldn't be read: nothing that is left saw the calls",
    ),
    ("client-mtls-server-without-sidecar", "no-kubernetes"): Undecidable(
        "something answers the TLS hello in plaintext at an address of which neither a pod nor a proxy is known: no "
        "sidecar, or one that wasn't read and is told DISABLE, answers alike",
        frozenset({"client-mtls-server-without-sidecar", "client-mtls-server-disable"}),
    ),
    ("tls-version-mismatch", "no-client-proxy"): Undecidable(
        "the server's proxy counts a failed handshake (ssl.connection_error), as for any other reason, and logs nothing; "
        "the alert's name and the client's versions are in the proxy that couldn't be read",
    ),
    ("not-injected", "no-kubernetes"): Undecidable(
        "that a workload should have a sidecar is only in the labels of its namespace and pod; the server's proxy shows "
        "a caller without one, and the report says that no Kubernetes object could be read",
    ),
    ("client-cert-expired", "no-client-proxy"): _REFUSED_CLIENT,
    ("client-cert-untrusted-by-server", "no-client-proxy"): _REFUSED_CLIENT,
    ("client-secret-not-delivered", "no-client-proxy"): Undecidable(
        "without its certificate the client's proxy fails every request itself and opens no connection: nobody else "
        "sees anything, and that proxy is the one that couldn't be read",
    ),
    ("server-root-bundle-outdated", "no-server-proxy"): Undecidable(
        "the server closes after the handshake and only its own proxy knows why; the caller's certificate is good for "
        "everybody else, which makes the server's trust bundle the likeliest",
        frozenset({"server-root-bundle-outdated"}),
    ),
    ("server-secret-not-delivered", "no-server-proxy"): Undecidable(
        "a reset handshake is all that a caller sees of a server that has no certificate, of one that takes no mTLS and "
        "of a connection limit alike; what tells them apart is in the server's proxy, which couldn't be read",
        frozenset({"server-secret-not-delivered"}),
    ),
    ("ext-authz-denied", "no-server-proxy"): _EXTERNAL_AUTHORIZER,
    ("ext-authz-unreachable", "no-server-proxy"): _EXTERNAL_AUTHORIZER,
    ("jwt-invalid", "no-server-proxy"): Undecidable(
        "a 401 that was passed on is the server's JWT filter's or the application's; the reason and the author are only in "
        "the log of the server's proxy. A RequestAuthentication is there and the body has the size of one of Envoy's texts",
        frozenset({"jwt-invalid"}),
    ),
    ("rate-limit-service-down", "no-server-proxy"): Undecidable(
        "a 500 without body that was passed on may be the application's own; that the server's proxy asks a rate limit "
        "service and may not go without is known from the EnvoyFilter, that it got no answer only from that proxy",
        frozenset({"rate-limit-service-down"}),
    ),
    ("no-peer-identity-for-principal-policy", "no-server-proxy"): _NOBODY_LEFT,
}
"""By (cause, condition). A condition not listed here must give the cause first, as with everything there."""
