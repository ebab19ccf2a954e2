"""Random configuration and traffic for the differential test: small vocabularies, so that things often match."""

from __future__ import annotations

from ipaddress import ip_network
from itertools import product
from random import Random
from typing import Any

import msgspec

from meshscope.envoy.request import HttpRequest
from tests.differential.certificates import IDENTITIES

Json = dict[str, Any]

CLUSTERS = tuple(f"c{number}" for number in range(6))
ADDRESSES = ("127.0.0.1", "127.0.0.2", "127.0.5.9")
SOURCES = ("127.0.0.1", "127.0.0.2", "127.0.5.9", "127.9.0.4")

_HOSTS = (
    "reviews",
    "reviews.bookinfo",
    "reviews.bookinfo.svc.cluster.local",
    "Reviews.Bookinfo",
    "reviews:9080",
    "a.example.com",
    "b.example.com:8080",
    "x.y.example.com",
    "EXAMPLE.com",
    ".example.com",
    "api-v2.example.com",
    "10.0.0.1:80",
    "[::1]:80",
    "[::1]",
    "elsewhere.test.",
    "elsewhere.test.:9080",
)
_DOMAINS = (
    *(host for host in _HOSTS if host != ".example.com"),
    "*",
    "*.example.com",
    "*-v2.example.com",
    "*.com",
    "*example.com",
    "*.y.example.com",
    "*.example.com:8080",
    "reviews.*",
    "reviews*",
    "api*",
    "a.example.*",
)
_METHODS = ("GET", "GET", "GET", "POST", "PUT", "DELETE", "OPTIONS")
_SEGMENTS = ("reviews", "Reviews", "ratings", "api", "v1", "v2", "0", "17", "admin", "a;p=1", "a%20b", "%7Eu")
_QUERIES = (
    "",
    "",
    "",
    "?",
    "?version=v1",
    "?version=v2&debug",
    "?debug=&version=",
    "?a=1&a=2",
    "?A=1",
    "?v%31=x",
)
_PATHS = ("/reviews", "/reviews/", "/reviews/0", "/api/v1", "/api", "/Reviews", "/", "/ratings", "/admin")
_HEADER_VALUES: dict[str, tuple[str, ...]] = {
    "x-user": ("tester", "Tester", "alice", "", "tester2"),
    "x-env": ("prod", "PROD", "staging", "prod-eu", "eu-prod"),
    "x-n": ("0", "7", "10", "-3", "+7", "7x", "", "9223372036854775808", "0x10"),
    "user-agent": ("curl/8.1", "Mozilla/5.0 (X11)", "kube-probe/1.30"),
    "content-type": (
        "application/json",
        "application/grpc",
        "application/grpc+proto",
        "application/grpc-web",
    ),
    "cookie": ("user=tester; v=2", "user=alice", 'user="tester"', "v=3;user=tester;user=bob", "flag; user=x"),
    "x-cluster": ("c0", "c3", "nowhere"),
    "x-random": ("0", "5", "99", "abc", "18446744073709551615"),
    "x-forwarded-proto": ("https", "http", "ftp"),
    "x-claim": ("iss-1", "iss-2", ""),
}
_REGEXES = (
    ".*",
    ".+",
    "test.*",
    "(?i)test.*",
    "[a-z]+",
    "v[12]",
    "\\d+",
    "tester|alice",
    "^tester$",
    "prod(-.*)?",
    "",
)
_PATH_REGEXES = (
    "/reviews/[0-9]+",
    "/(reviews|ratings)(/.*)?",
    ".*",
    "/api/v\\d",
    "(?i)/REVIEWS.*",
    "/reviews$",
    "/[^/]*",
    "reviews",
    "/reviews\\?version=v1",
)


def maybe(rng: Random, share: float) -> bool:
    return rng.random() < share


# --- requests ---------------------------------------------------------------------------------------------


def http_request(rng: Random) -> HttpRequest:
    """A request that Envoy's codec accepts."""
    path = rng.choice(_PATHS)
    if maybe(rng, 0.6):
        path = "/" + "/".join(rng.choice(_SEGMENTS) for _ in range(rng.randint(0, 3)))
    headers: list[tuple[str, str]] = []
    for name, values in _HEADER_VALUES.items():
        if maybe(rng, 0.35):
            headers.append((name, rng.choice(values)))
            if name in ("x-user", "x-n", "x-random", "x-cluster") and maybe(rng, 0.15):
                headers.append((name, rng.choice(values)))
    authority = rng.choice(_HOSTS)
    if maybe(rng, 0.02):
        return HttpRequest("CONNECT", "reviews:9080", "", tuple(headers))
    return HttpRequest(rng.choice(_METHODS), authority, path + rng.choice(_QUERIES), tuple(headers))


def request_for(rng: Random, config: Json) -> HttpRequest:
    """A request that mostly finds a virtual host of the route configuration, and often a path of its routes."""
    request = http_request(rng)
    host = rng.choice(config["virtual_hosts"])
    if request.method == "CONNECT" or maybe(rng, 0.2):
        return request
    authority = rng.choice(host["domains"]).replace("*", rng.choice(("x", "b.example", "reviews.", "1")))
    authority = authority.upper() if maybe(rng, 0.1) else authority
    match = rng.choice(host["routes"])["match"]
    path = match.get("path") or match.get("prefix") or match.get("path_separated_prefix") or ""
    if not path.startswith("/") or maybe(rng, 0.4):
        return msgspec.structs.replace(request, authority=authority)
    path += rng.choice(("", "", "/", "x", "/0", ";p=1")) + rng.choice(_QUERIES)
    return msgspec.structs.replace(request, authority=authority, path=path)


_PATH_PIECES = (
    *("/", "/", "/", "//", ".", "..", "/.", "/..", "/./", "/../", "%2e", "%2E", "%2e%2E", ".%2e", "..."),
    *("%2f", "%2F", "%5c", "%5C", "\\", "a", "B", "reviews", "~", "%7e", "%7E", "%41", "%61", "%2D", "%5f"),
    *(";p=1", "%zz", "%", "%4", "%20", "%25", "%3f", "%23", "%00", "%c3%a9", "%C3%A9", "!", "$&'()*+,", ":@"),
    *("{", "}", "|", "^", "`", '"', "<", ">", "[", "]", "=", "%3B", "%7f", "%80", "%E2%82"),
)


def odd_path(rng: Random) -> str:
    """A path with dot segments, doubled and escaped slashes, escapes of all kinds."""
    path = "/" + "".join(rng.choice(_PATH_PIECES) for _ in range(rng.randint(0, 7)))
    return path + rng.choice(("", "", "", "?", "?a=/../%2f//", "?x?y"))


# --- matchers ---------------------------------------------------------------------------------------------


def string_matcher(rng: Random, values: tuple[str, ...], regexes: tuple[str, ...] = _REGEXES) -> Json:
    """A StringMatcher on texts like `values`."""
    value = rng.choice([value for value in values if value] or ["x"])
    kind = rng.choice(("exact", "exact", "prefix", "suffix", "contains", "safe_regex"))
    matcher: Json
    if kind == "safe_regex":
        return {"safe_regex": {"regex": rng.choice([regex for regex in regexes if regex])}}
    if kind == "exact":
        matcher = {"exact": "" if maybe(rng, 0.05) else value}
    else:
        cut = rng.randint(1, len(value))
        matcher = {kind: value[-cut:] if kind == "suffix" else value[:cut]}
    if maybe(rng, 0.3):
        matcher["ignore_case"] = True
    return matcher


def header_matcher(rng: Random) -> Json:
    """A HeaderMatcher of any spelling, on a header of the vocabulary, a pseudo header or an absent one."""
    name, values = rng.choice([*_HEADER_VALUES.items(), (":method", _METHODS), (":authority", _HOSTS)])
    name, values = (":path", _PATHS) if maybe(rng, 0.1) else (name, values)
    name = "host" if name == ":authority" and maybe(rng, 0.3) else name
    matcher: Json = {"name": name.upper() if maybe(rng, 0.1) and name[0] != ":" else name}
    kind = rng.choice(("string_match", "string_match", "older", "range", "present", "none"))
    if name == "x-n" and maybe(rng, 0.7):
        kind = "range"
    if kind == "string_match":
        matcher["string_match"] = string_matcher(rng, values)
    elif kind == "older":
        matcher.update(_older_spelling(rng, values))
    elif kind == "range":
        start = rng.choice((-5, 0, 7))
        matcher["range_match"] = {"start": start, "end": start + rng.choice((1, 4, 100))}
    elif kind == "present":
        matcher["present_match"] = maybe(rng, 0.6)
    if maybe(rng, 0.25):
        matcher["invert_match"] = True
    if maybe(rng, 0.25):
        matcher["treat_missing_header_as_empty"] = True
    return matcher


def _older_spelling(rng: Random, values: tuple[str, ...]) -> Json:
    matcher = string_matcher(rng, values)
    kind = next(key for key in matcher if key != "ignore_case")
    return {f"{kind}_match": matcher[kind]}


def _query_matcher(rng: Random) -> Json:
    matcher: Json = {"name": rng.choice(("version", "debug", "a", "A", "v1", "v%31"))}
    kind = rng.choice(("string_match", "present", "none"))
    if kind == "string_match":
        matcher["string_match"] = string_matcher(rng, ("v1", "v2", "1", "2"))
    elif kind == "present":
        matcher["present_match"] = maybe(rng, 0.6)
    return matcher


def _cookie_matcher(rng: Random) -> Json:
    matcher: Json = {"name": rng.choice(("user", "v", "flag"))}
    matcher["string_match"] = string_matcher(rng, ("tester", "alice", "2"))
    if maybe(rng, 0.3):
        matcher["invert_match"] = True
    return matcher


# --- routes -----------------------------------------------------------------------------------------------


def manager_options(rng: Random) -> Json:
    """Options of the connection manager that change the request before anything is matched."""
    options: Json = {}
    for name in ("normalize_path", "merge_slashes", "strip_trailing_host_dot", "use_remote_address"):
        if maybe(rng, 0.4):
            options[name] = True
    if maybe(rng, 0.3):
        options[rng.choice(("strip_any_host_port", "strip_matching_host_port"))] = True
    if maybe(rng, 0.5):
        actions = ("KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD")
        options["path_with_escaped_slashes_action"] = rng.choice(actions)
    return options


def route_configuration(rng: Random) -> Json:
    domains = rng.sample(sorted({domain.lower() for domain in _DOMAINS}), rng.randint(2, 12))
    domains = [domain.upper() if maybe(rng, 0.1) else domain for domain in domains]
    hosts: list[Json] = []
    while domains:
        taken = [domains.pop() for _ in range(min(len(domains), rng.randint(1, 3)))]
        hosts.append(_virtual_host(rng, f"v{len(hosts)}", taken))
    if maybe(rng, 0.5) and not any("*" in host["domains"] for host in hosts):
        hosts.append(_virtual_host(rng, f"v{len(hosts)}", ["*"]))
    config: Json = {"name": "routes", "virtual_hosts": hosts}
    for option in ("ignore_port_in_host_matching", "ignore_path_parameters_in_path_matching"):
        if maybe(rng, 0.3):
            config[option] = True
    return config


def _virtual_host(rng: Random, name: str, domains: list[str]) -> Json:
    routes = [_route(rng, f"{name}r{number}") for number in range(rng.randint(1, 7))]
    if maybe(rng, 0.5):
        routes.append({"name": f"{name}last", "match": {"prefix": "/"}, **_route_action(rng)})
    host: Json = {"name": name, "domains": domains, "routes": routes}
    if maybe(rng, 0.07):
        host["require_tls"] = "ALL"
    return host


def _route(rng: Random, name: str) -> Json:
    return {"name": name, "match": _route_match(rng), **_route_action(rng)}


def _route_match(rng: Random) -> Json:
    match = _path_specifier(rng)
    if maybe(rng, 0.25):
        match["case_sensitive"] = maybe(rng, 0.2)
    if maybe(rng, 0.4):
        match["headers"] = [header_matcher(rng) for _ in range(rng.randint(1, 2))]
    if maybe(rng, 0.2):
        match["query_parameters"] = [_query_matcher(rng) for _ in range(rng.randint(1, 2))]
    if maybe(rng, 0.1):
        match["cookies"] = [_cookie_matcher(rng)]
    if maybe(rng, 0.05):
        match["grpc"] = {}
    if maybe(rng, 0.05):
        match["tls_context"] = {rng.choice(("presented", "validated")): maybe(rng, 0.5)}
    if maybe(rng, 0.2):
        match["runtime_fraction"] = {"default_value": fraction(rng), "runtime_key": "none"}
    return match


def fraction(rng: Random) -> Json:
    denominator, whole = rng.choice((("HUNDRED", 100), ("TEN_THOUSAND", 10_000), ("MILLION", 1_000_000)))
    numerator = rng.choice((0, whole // 10, whole // 3, whole // 2, whole))
    return {"numerator": numerator, "denominator": denominator}


def _path_specifier(rng: Random) -> Json:
    kind = rng.choice(
        ("prefix", "prefix", "prefix", "path", "safe_regex", "path_separated_prefix", "connect")
    )
    if kind == "safe_regex":
        return {"safe_regex": {"regex": rng.choice(_PATH_REGEXES)}}
    if kind == "path_separated_prefix":
        return {kind: rng.choice(("/reviews", "/api", "/api/v1", "/reviews/0"))}
    if kind == "connect":
        return {"connect_matcher": {}} if maybe(rng, 0.3) else {"prefix": "/"}
    path = rng.choice(_PATHS)
    return {kind: path[: rng.randint(1, len(path))] if kind == "prefix" and maybe(rng, 0.4) else path}


def _route_action(rng: Random) -> Json:
    kind = rng.choice(("cluster", "cluster", "weighted", "header", "redirect", "direct", "non_forwarding"))
    if kind == "cluster":
        return {"route": {"cluster": rng.choice((*CLUSTERS, "nowhere"))}}
    if kind == "weighted":
        return {"route": {"weighted_clusters": weighted_clusters(rng)}}
    if kind == "header":
        return {"route": {"cluster_header": rng.choice(("x-cluster", "x-user", ":authority"))}}
    if kind == "redirect":
        codes = ("MOVED_PERMANENTLY", "FOUND", "SEE_OTHER", "TEMPORARY_REDIRECT", "PERMANENT_REDIRECT")
        return {"redirect": {"host_redirect": "other.test", "response_code": rng.choice(codes)}}
    if kind == "direct":
        return {"direct_response": {"status": rng.choice((200, 404, 418, 503))}}
    return {"non_forwarding_action": {}}


def weighted_clusters(rng: Random) -> Json:
    entries: list[Json] = []
    for name in rng.sample(CLUSTERS, rng.randint(1, 4)):
        entries.append({"name": name, "weight": rng.choice((0, 1, 3, 10, 50))})
    if maybe(rng, 0.1):
        entries.append({"cluster_header": "x-cluster", "weight": 10})
    if not any(entry["weight"] for entry in entries):
        entries[0]["weight"] = 1
    weighted: Json = {"clusters": entries}
    if maybe(rng, 0.2):
        weighted["header_name"] = "x-random"
    if maybe(rng, 0.1):
        weighted["total_weight"] = 77
    return weighted


def chancy_routes(rng: Random) -> Json:
    """Routes that all match, by fractions and weights alone: for comparing shares."""
    routes: list[Json] = []
    for number in range(rng.randint(1, 4)):
        match: Json = {
            "prefix": "/",
            "runtime_fraction": {"default_value": fraction(rng), "runtime_key": "none"},
        }
        weighted = {"weighted_clusters": weighted_clusters(rng)}
        weighted["weighted_clusters"].pop("header_name", None)
        action = {"route": weighted if maybe(rng, 0.6) else {"cluster": rng.choice(CLUSTERS)}}
        routes.append({"name": f"r{number}", "match": match, **action})
    if maybe(rng, 0.6):
        routes.append({"name": "last", "match": {"prefix": "/"}, "direct_response": {"status": 200}})
    return {"name": "routes", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]}


# --- RBAC -------------------------------------------------------------------------------------------------

_NAMES = tuple(name for identity in IDENTITIES for name in identity.principals)
SERVER_NAMES = ("", "a.example.com", "outbound_.9080_._.ratings.bookinfo.svc.cluster.local", "A.Example.com")
METADATA: Json = {
    "issuer": "https://issuer.test",
    "groups": ["admins", "users", 7, True],
    "level": 3,
    "verified": True,
    "nothing": None,
    "nested": {"team": "shop", "deep": {"x": "y"}},
}
"""What the generated listeners put into the dynamic metadata `test.static`."""


def rbac_rules(rng: Random, port: int, http: bool) -> Json:
    """RBAC rules; without `http` no condition that the network filter refuses."""
    names = rng.sample(
        ("b", "a", "B", "ns[x]-policy[p]-rule[0]", "ns[x]-policy[p]-rule[1]", "é", "z", "0"), 4
    )
    policies: Json = {}
    for name in names[: rng.randint(0, 4)]:
        policies[name] = {
            "permissions": [permission(rng, port, http, 2) for _ in range(rng.randint(1, 2))],
            "principals": [principal(rng, http, 2) for _ in range(rng.randint(1, 2))],
        }
    return {"action": rng.choice(("ALLOW", "ALLOW", "DENY", "DENY", "LOG")), "policies": policies}


def permission(rng: Random, port: int, http: bool, depth: int) -> Json:
    if depth and maybe(rng, 0.45):
        below = [permission(rng, port, http, depth - 1) for _ in range(rng.randint(1, 3))]
        kind = rng.choice(("and_rules", "or_rules", "not_rule"))
        return {kind: below[0]} if kind == "not_rule" else {kind: {"rules": below}}
    kinds = ["any", "destination_ip", "destination_port", "range", "server_name"]
    kind = rng.choice([*kinds, "header", "url_path", "metadata"] if http else kinds)
    if kind == "any":
        return {"any": True}
    if kind == "destination_ip":
        return {"destination_ip": cidr(rng, ADDRESSES)}
    if kind == "destination_port":
        return {"destination_port": port if maybe(rng, 0.6) else rng.choice((0, 80, port + 1))}
    if kind == "range":
        start = rng.choice((0, port - 1, port, port + 1))
        return {"destination_port_range": {"start": start, "end": start + rng.choice((1, 2, 3))}}
    if kind == "server_name":
        return {"requested_server_name": string_matcher(rng, SERVER_NAMES)}
    return _shared_condition(rng, kind)


def principal(rng: Random, http: bool, depth: int) -> Json:
    if depth and maybe(rng, 0.4):
        below = [principal(rng, http, depth - 1) for _ in range(rng.randint(1, 3))]
        kind = rng.choice(("and_ids", "or_ids", "not_id"))
        return {kind: below[0]} if kind == "not_id" else {kind: {"ids": below}}
    kinds = ["any", *["authenticated"] * 4, "source_ip", "direct_remote_ip", "remote_ip"]
    kind = rng.choice([*kinds, "header", "url_path", "metadata"] if http else kinds)
    if kind == "any":
        return {"any": True}
    if kind == "authenticated":
        return {"authenticated": {} if maybe(rng, 0.15) else {"principal_name": _principal_name(rng)}}
    if kind in ("source_ip", "direct_remote_ip", "remote_ip"):
        return {kind: cidr(rng, SOURCES)}
    return _shared_condition(rng, kind)


def _principal_name(rng: Random) -> Json:
    regexes = (".+", ".*", "spiffe://.*/ns/bookinfo/.*", "[^/]*", ".*sa/(default|cart)")
    return string_matcher(rng, _NAMES, regexes)


def _shared_condition(rng: Random, kind: str) -> Json:
    if kind == "header":
        return {"header": header_matcher(rng)}
    if kind == "url_path":
        return {"url_path": {"path": string_matcher(rng, _PATHS, _PATH_REGEXES)}}
    matcher = _metadata_matcher(rng)
    if maybe(rng, 0.3):
        return {"sourced_metadata": {"metadata_matcher": matcher}}
    return {"metadata": matcher}


_METADATA_PATHS = (
    *("issuer", "groups", "level", "verified", "nothing"),
    *("nested", "nested.team", "nested.deep.x", "absent", "issuer.x"),
)


def _metadata_matcher(rng: Random) -> Json:
    path = rng.choice(_METADATA_PATHS).split(".")
    matcher: Json = {"filter": "test.static", "path": [{"key": key} for key in path]}
    if maybe(rng, 0.3):
        matcher = {"filter": "test.header", "path": [{"key": "claim"}]}
    matcher["value"] = _metadata_value(rng, 2)
    if maybe(rng, 0.2):
        matcher["invert"] = True
    return matcher


def _metadata_value(rng: Random, depth: int) -> Json:
    kinds = ["string", "string", "double", "bool", "null", "present"]
    kind = rng.choice([*kinds, "list", "or"] if depth else kinds)
    if kind == "list":
        return {"list_match": {"one_of": _metadata_value(rng, 0)}}
    if kind == "or":
        return {"or_match": {"value_matchers": [_metadata_value(rng, 0) for _ in range(2)]}}
    if kind == "double":
        return {"double_match": rng.choice(({"exact": 3}, {"range": {"start": 1, "end": 8}}, {"exact": 7}))}
    if kind == "bool":
        return {"bool_match": maybe(rng, 0.5)}
    if kind == "null":
        return {"null_match": {}}
    if kind == "present":
        return {"present_match": maybe(rng, 0.6)}
    values = ("https://issuer.test", "admins", "users", "shop", "y", "iss-1", "iss-2")
    return {"string_match": string_matcher(rng, values)}


def cidr(rng: Random, addresses: tuple[str, ...]) -> Json:
    return {"address_prefix": rng.choice(addresses), "prefix_len": rng.choice((8, 16, 24, 29, 32, 32))}


# --- filter chains ----------------------------------------------------------------------------------------

_SERVER_NAME_MATCHES = (
    "a.example.com",
    "*.example.com",
    "*.com",
    "*.b.example.com",
    "A.example.com",
    "outbound_.9080_._.ratings.bookinfo.svc.cluster.local",
)
CHAIN_SERVER_NAMES = (
    "",
    "a.example.com",
    "x.b.example.com",
    "b.example.com",
    "example.com",
    "com",
    "A.EXAMPLE.COM",
)
PROTOCOLS = ("istio", "istio-peer-exchange", "istio-http/1.1", "h2", "http/1.1")


def filter_chain_match(rng: Random, ports: list[int]) -> Json:
    match: Json = {}
    if maybe(rng, 0.4):
        match["destination_port"] = rng.choice((*ports, ports[0], 9080))
    if maybe(rng, 0.25):
        match["prefix_ranges"] = _some_ranges(rng, ADDRESSES)
    if maybe(rng, 0.35):
        match["server_names"] = rng.sample(_SERVER_NAME_MATCHES, rng.randint(1, 2))
    if maybe(rng, 0.5):
        match["transport_protocol"] = rng.choice(("tls", "tls", "raw_buffer"))
    if maybe(rng, 0.4):
        match["application_protocols"] = rng.sample((*PROTOCOLS, "http/1.0", "h2c"), rng.randint(1, 3))
    if maybe(rng, 0.15):
        match["direct_source_prefix_ranges"] = _some_ranges(rng, SOURCES)
    if maybe(rng, 0.2):
        match["source_type"] = rng.choice(("SAME_IP_OR_LOOPBACK", "EXTERNAL"))
    if maybe(rng, 0.2):
        match["source_prefix_ranges"] = _some_ranges(rng, SOURCES)
    return match


def _some_ranges(rng: Random, addresses: tuple[str, ...]) -> list[Json]:
    return [cidr(rng, addresses) for _ in range(rng.randint(1, 2))]


def filter_chain_matches(rng: Random, ports: list[int]) -> list[Json]:
    """Matches of several chains, none of which Envoy refuses for overlapping another."""
    matches: list[Json] = []
    taken: set[tuple[Any, ...]] = set()
    for _ in range(rng.randint(2, 9)):
        match = filter_chain_match(rng, ports)
        keys = _combinations(match)
        if len(keys) == len(set(keys)) and taken.isdisjoint(keys):
            taken.update(keys)
            matches.append(match)
    return matches


def _combinations(match: Json) -> list[tuple[Any, ...]]:
    names = [name.lower() for name in match.get("server_names", [])]
    ranges = (match.get(f"{kind}prefix_ranges", []) for kind in ("", "direct_source_", "source_"))
    lists = [
        [ip_network(f"{r['address_prefix']}/{r['prefix_len']}", strict=False) for r in rs] for rs in ranges
    ]
    values = [*lists, names, match.get("application_protocols", [])]
    single = [match.get(key) for key in ("destination_port", "transport_protocol", "source_type")]
    return list(product(*(each or [None] for each in values), *([value] for value in single)))
