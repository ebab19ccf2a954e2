"""Where Envoy's router sends a request: virtual host, route, cluster, with the shares of chance.

Semantics of envoy.config.route.v3 as Envoy's router implements them; the order of things (one random number
a request, fraction before path, exact domain before wildcards) is the implementation's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import msgspec
from msgspec import Struct

from meshscope.envoy import matching, paths
from meshscope.envoy.config_dump import (
    HttpConnectionManager,
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    StringMatcher,
    VirtualHost,
    WeightedClusters,
)
from meshscope.envoy.matching import Truth, Undecided
from meshscope.envoy.request import Connection, HttpRequest
from meshscope.envoy.shares import RandomNumbers

Kind = Literal[
    "cluster",
    "redirect",
    "direct_response",
    "no_vhost",
    "no_route",
    "non_forwarding",
    "cluster_header",
    "unknown",
]


class RouteOutcome(Struct, frozen=True):
    """One way a request can go, and its share of such requests (0 to 1).

    `cluster` is "" where the request goes nowhere upstream; for `cluster_header` it is the header's value
    ("" where the request doesn't have it: Envoy answers as for a missing cluster). `status` is that of a
    redirect or direct response. `why` says, for `unknown`, which condition isn't understood.
    """

    kind: Kind
    share: float
    cluster: str = ""
    virtual_host: VirtualHost | None = None
    route: Route | None = None
    status: int = 0
    why: str = ""


def normalized(
    manager: HttpConnectionManager, request: HttpRequest, connection: Connection | None = None
) -> HttpRequest:
    """The request as the connection manager hands it to the filters: path, host and scheme.

    Without a connection the scheme stays as it is, and strip_matching_host_port without effect. Whether the
    manager answers by itself (400, 307) instead is told by `paths.sanitized`.
    """
    path = paths.sanitized(manager, request.path).path
    authority = _host(manager, request.authority, connection.destination_port if connection else 0)
    changed = msgspec.structs.replace(request, path=path, authority=authority)
    return _with_scheme(manager, changed, connection) if connection else changed


def _with_scheme(manager: HttpConnectionManager, request: HttpRequest, connection: Connection) -> HttpRequest:
    """x-forwarded-proto and :scheme as Envoy sets them: the caller's word, else the connection's."""
    own = "https" if connection.encrypted else "http"
    forwarded = "" if manager.use_remote_address else request.header("x-forwarded-proto")
    others = tuple((name, value) for name, value in request.headers if name.lower() != "x-forwarded-proto")
    return msgspec.structs.replace(
        request,
        scheme=forwarded if forwarded in ("http", "https") else own,
        headers=(*others, ("x-forwarded-proto", forwarded or own)),
    )


def _host(manager: HttpConnectionManager, authority: str, local_port: int) -> str:
    host, colon, port = _host_and_port(authority)
    if manager.strip_trailing_host_dot:
        host = host.removesuffix(".")
    number = matching.integer(port, 0, 2**32 - 1)
    if number is not None and (
        manager.strip_any_host_port or (manager.strip_matching_host_port and number == local_port)
    ):
        return host
    return host + colon + port


def _host_and_port(authority: str) -> tuple[str, str, str]:
    """Host, colon, port; an IPv6 address in brackets keeps its own colons."""
    host, colon, port = authority.rpartition(":")
    if not colon or "]" in port:
        return authority, "", ""
    return host, colon, port


def route(
    config: RouteConfiguration, request: HttpRequest, connection: Connection | None = None
) -> tuple[RouteOutcome, ...]:
    """Every way the (already normalized) request can go; the shares add up to 1.

    Runtime overrides of fractions and weights aren't read: the configured defaults hold.
    """
    host = virtual_host(config, request.authority)
    if host is None:
        return (RouteOutcome("no_vhost", 1.0),)
    redirect = _tls_redirect(host, request, connection or Connection())
    if redirect is not None:
        return (redirect,)
    if host.matcher is not None:
        return (RouteOutcome("unknown", 1.0, virtual_host=host, why="the virtual host has a match tree"),)
    return tuple(_outcomes(config, host, request, connection or Connection()))


def virtual_host(config: RouteConfiguration, authority: str) -> VirtualHost | None:
    """The virtual host for an authority: exact, then longest `*suffix`, longest `prefix*`, then `*`."""
    name = _host_and_port(authority)[0] if config.ignore_port_in_host_matching else authority
    name = matching.ascii_lower(name)
    best: tuple[int, int] = (0, 0)
    found: VirtualHost | None = None
    for host in config.virtual_hosts:
        for domain in host.domains:
            rank = _domain_rank(matching.ascii_lower(domain), name)
            if rank > best:
                best, found = rank, host
    return found


def _domain_rank(domain: str, name: str) -> tuple[int, int]:
    """How well a domain fits, comparable; (0, 0): not at all. A wildcard stands for one character or more."""
    if domain == "*":
        return (1, 0)
    if domain.startswith("*"):
        fits = len(name) > len(domain) - 1 and name.endswith(domain[1:])
        return (3, len(domain)) if fits else (0, 0)
    if domain.endswith("*"):
        fits = len(name) > len(domain) - 1 and name.startswith(domain[:-1])
        return (2, len(domain)) if fits else (0, 0)
    return (4, 0) if domain == name else (0, 0)


def _tls_redirect(host: VirtualHost, request: HttpRequest, connection: Connection) -> RouteOutcome | None:
    if host.require_tls == "NONE" or _forwarded_scheme(request, connection) == "https":
        return None
    if host.require_tls == "ALL":
        return RouteOutcome("redirect", 1.0, virtual_host=host, status=301)
    why = f"require_tls {host.require_tls} depends on whether the caller counts as internal"
    return RouteOutcome("unknown", 1.0, virtual_host=host, why=why)


def _forwarded_scheme(request: HttpRequest, connection: Connection) -> str:
    forwarded = request.header("x-forwarded-proto")
    return forwarded or ("https" if connection.encrypted else request.scheme)


def _outcomes(
    config: RouteConfiguration, host: VirtualHost, request: HttpRequest, connection: Connection
) -> Iterator[RouteOutcome]:
    rest = RandomNumbers()
    for candidate in host.routes:
        truth = matches(candidate.match, request, connection, config)
        if truth is False:
            continue
        here, rest = _fraction(candidate.match, rest)
        if here.share:
            if isinstance(truth, Undecided):
                yield RouteOutcome("unknown", here.share, "", host, candidate, why=truth.why)
            else:
                yield from _taken(host, candidate, request, here)
        if not rest.share:
            return
    yield RouteOutcome("no_route", rest.share, virtual_host=host)


def _fraction(match: RouteMatch, numbers: RandomNumbers) -> tuple[RandomNumbers, RandomNumbers]:
    """The random numbers with which the route matches, and those that go on down the list."""
    if match.runtime_fraction is None:
        return numbers, RandomNumbers(spans=())
    percent = match.runtime_fraction.default_value
    return numbers.split(_DENOMINATORS[percent.denominator], percent.numerator)


_DENOMINATORS = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}


# --- does a route match -----------------------------------------------------------------------------------


def matches(
    match: RouteMatch, request: HttpRequest, connection: Connection, config: RouteConfiguration
) -> Truth:
    """Whether a route's conditions hold, its runtime fraction aside."""
    return matching.all_of(_conditions(match, request, connection, config))


def _conditions(
    match: RouteMatch, request: HttpRequest, connection: Connection, config: RouteConfiguration
) -> Iterator[Truth]:
    yield _path_matches(match, request, config)
    if match.grpc is not None:
        yield _is_grpc(request)
    for header in match.headers:
        yield matching.header_matches(header, request)
    for parameter in match.query_parameters:
        yield matching.query_parameter_matches(parameter, request.path)
    if match.cookies:
        cookies = matching.cookies(request)
        for cookie in match.cookies:
            yield matching.cookie_matches(cookie, cookies.get(cookie.name))
    if match.tls_context is not None:
        # Istio's and our own proxies verify what they ask for: presented and validated are the same.
        for wanted in (match.tls_context.get("presented"), match.tls_context.get("validated")):
            yield wanted is None or wanted == connection.mtls
    for metadata in match.dynamic_metadata:
        yield matching.metadata_matches(metadata, connection.dynamic_metadata)
    if match.filter_state:
        yield Undecided("the route asks for filter state")


_SEGMENT_PARAMETERS = re.compile(";[^/]*")


def _path_matches(match: RouteMatch, request: HttpRequest, config: RouteConfiguration) -> Truth:
    if match.connect_matcher is not None:
        return request.method == "CONNECT"
    if not request.path:
        return False  # a CONNECT request has no path, and matches nothing but a connect_matcher
    path = request.path_without_query
    if config.ignore_path_parameters_in_path_matching:
        path = _SEGMENT_PARAMETERS.sub("", path)
    ignore_case = not match.case_sensitive
    if match.prefix is not None:
        return matching.string_matches(StringMatcher(prefix=match.prefix, ignore_case=ignore_case), path)
    if match.path is not None:
        return matching.string_matches(StringMatcher(exact=match.path, ignore_case=ignore_case), path)
    if match.safe_regex is not None:
        return matching.regex_matches(match.safe_regex.regex, path)
    if match.path_separated_prefix is not None:
        prefix = match.path_separated_prefix
        starts = matching.string_matches(StringMatcher(prefix=prefix, ignore_case=ignore_case), path)
        return matching.all_of((starts, path[len(prefix) : len(prefix) + 1] in ("", "/")))
    kind = match.path_match_policy.type_url if match.path_match_policy else ""
    return Undecided(f"the route matches its path by {kind or 'something'} that isn't understood here")


def _is_grpc(request: HttpRequest) -> bool:
    """By its content type; a CONNECT without a path is none in any case."""
    content_type = request.header("content-type") or ""
    by_type = content_type == "application/grpc" or content_type.startswith("application/grpc+")
    return by_type and bool(request.path)


# --- what a matched route does ----------------------------------------------------------------------------

_REDIRECT_STATUS = {
    "MOVED_PERMANENTLY": 301,
    "FOUND": 302,
    "SEE_OTHER": 303,
    "TEMPORARY_REDIRECT": 307,
    "PERMANENT_REDIRECT": 308,
}


def _taken(
    host: VirtualHost, taken: Route, request: HttpRequest, numbers: RandomNumbers
) -> Iterator[RouteOutcome]:
    share = numbers.share
    if taken.redirect is not None:
        status = _REDIRECT_STATUS.get(taken.redirect.response_code, 0)
        yield RouteOutcome("redirect", share, "", host, taken, status)
    elif taken.direct_response is not None:
        yield RouteOutcome("direct_response", share, "", host, taken, taken.direct_response.status)
    elif taken.non_forwarding_action is not None:
        yield RouteOutcome("non_forwarding", share, "", host, taken)
    elif taken.route is not None:
        for kind, cluster, part in _clusters(taken.route, request, numbers):
            why = "" if kind != "unknown" else "the route leaves its cluster to an extension"
            yield RouteOutcome(kind, part, cluster, host, taken, why=why)
    else:
        yield RouteOutcome("unknown", share, "", host, taken, why="the route's action isn't understood")


def _clusters(
    action: RouteAction, request: HttpRequest, numbers: RandomNumbers
) -> Iterator[tuple[Kind, str, float]]:
    if action.weighted_clusters is not None:
        yield from _weighted(action.weighted_clusters, request, numbers)
    elif action.cluster_header is not None:
        yield "cluster_header", _first_value(request, action.cluster_header), numbers.share
    elif action.cluster is not None:
        yield "cluster", action.cluster, numbers.share
    else:
        yield "unknown", "", numbers.share


def _weighted(
    weighted: WeightedClusters, request: HttpRequest, numbers: RandomNumbers
) -> Iterator[tuple[Kind, str, float]]:
    """Each cluster's part: Envoy takes the sum of the weights, not total_weight, which it ignores."""
    total = sum(cluster.weight for cluster in weighted.clusters)
    chosen = _chosen_number(weighted, request)
    start = 0
    for cluster in weighted.clusters:
        end = start + cluster.weight
        if chosen is not None:
            part = numbers.share if start <= chosen % total < end else 0.0
        else:
            part = numbers.within(total, start, end).share
        start = end
        if not part:
            continue
        if cluster.name:
            yield "cluster", cluster.name, part
        else:
            yield "cluster_header", _first_value(request, cluster.cluster_header), part


def _chosen_number(weighted: WeightedClusters, request: HttpRequest) -> int | None:
    """The number that the request itself brings along in place of the random one."""
    if not weighted.header_name:
        return None
    values = [value for name, value in request.headers if name.lower() == weighted.header_name.lower()]
    return matching.integer(values[0], 0, 2**64 - 1) if len(values) == 1 else None


def _first_value(request: HttpRequest, name: str) -> str:
    if name.startswith(":"):
        return request.header(name) or ""
    return next((value for key, value in request.headers if key.lower() == name.lower()), "")
