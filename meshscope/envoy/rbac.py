"""What Envoy's RBAC filters decide on a request or a connection, and what kept each policy from matching.

Semantics of envoy.config.rbac.v3: an engine of action ALLOW denies what no policy matches, DENY denies what
one matches, LOG never denies; policies are tried in the byte order of their names and the first counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

from msgspec import Struct

from meshscope.envoy import matching
from meshscope.envoy.config_dump import CidrRange, HeaderMatcher, MetadataMatcher, StringMatcher
from meshscope.envoy.matching import Truth, Undecided
from meshscope.envoy.request import Connection, HttpRequest

# --- configuration ----------------------------------------------------------------------------------------


class PathMatcher(Struct, frozen=True):
    path: StringMatcher | None = None


class PortRange(Struct, frozen=True):
    """Ports from `start` up to, not including, `end`."""

    start: int = 0
    end: int = 0


class SourcedMetadata(Struct, frozen=True):
    metadata_matcher: MetadataMatcher = MetadataMatcher()
    metadata_source: str = "DYNAMIC"


class PermissionSet(Struct, frozen=True):
    rules: tuple[Permission, ...] = ()


class Permission(Struct, frozen=True):
    """What is done; exactly one field is set, none where Envoy's kind isn't known here."""

    and_rules: PermissionSet | None = None
    or_rules: PermissionSet | None = None
    not_rule: Permission | None = None
    any: bool | None = None
    header: HeaderMatcher | None = None
    url_path: PathMatcher | None = None
    destination_ip: CidrRange | None = None
    destination_port: int | None = None
    destination_port_range: PortRange | None = None
    metadata: MetadataMatcher | None = None
    sourced_metadata: SourcedMetadata | None = None
    requested_server_name: StringMatcher | None = None
    matcher: dict[str, Any] | None = None
    uri_template: dict[str, Any] | None = None


class Authenticated(Struct, frozen=True):
    principal_name: StringMatcher | None = None


class PrincipalSet(Struct, frozen=True):
    ids: tuple[Principal, ...] = ()


class Principal(Struct, frozen=True):
    """Who does it; exactly one field is set, none where Envoy's kind isn't known here."""

    and_ids: PrincipalSet | None = None
    or_ids: PrincipalSet | None = None
    not_id: Principal | None = None
    any: bool | None = None
    authenticated: Authenticated | None = None
    source_ip: CidrRange | None = None
    direct_remote_ip: CidrRange | None = None
    remote_ip: CidrRange | None = None
    header: HeaderMatcher | None = None
    url_path: PathMatcher | None = None
    metadata: MetadataMatcher | None = None
    sourced_metadata: SourcedMetadata | None = None
    filter_state: dict[str, Any] | None = None
    custom: dict[str, Any] | None = None


class Policy(Struct, frozen=True):
    """One of the permissions and one of the principals must match, and the condition (CEL) hold."""

    permissions: tuple[Permission, ...] = ()
    principals: tuple[Principal, ...] = ()
    condition: dict[str, Any] | None = None
    checked_condition: dict[str, Any] | None = None


class RbacRules(Struct, frozen=True):
    action: str = "ALLOW"
    policies: dict[str, Policy] = {}


class HttpRbac(Struct, frozen=True):
    """envoy.extensions.filters.http.rbac.v3.RBAC; without rules and matcher everything is allowed."""

    rules: RbacRules | None = None
    rules_stat_prefix: str = ""
    shadow_rules: RbacRules | None = None
    shadow_rules_stat_prefix: str = ""
    matcher: dict[str, Any] | None = None
    shadow_matcher: dict[str, Any] | None = None


class NetworkRbac(Struct, frozen=True):
    """envoy.extensions.filters.network.rbac.v3.RBAC; without rules and matcher everything is allowed."""

    rules: RbacRules | None = None
    shadow_rules: RbacRules | None = None
    shadow_rules_stat_prefix: str = ""
    matcher: dict[str, Any] | None = None
    shadow_matcher: dict[str, Any] | None = None
    stat_prefix: str = ""
    enforcement_type: str = "ONE_TIME_ON_FIRST_BYTE"


# --- decision ---------------------------------------------------------------------------------------------


class Decision(Struct, frozen=True):
    """What an engine decides: `allowed` is None where that can't be told, and `why` says what is missing.

    `policy` is the name of the policy that matched, "" where none did.
    """

    allowed: bool | None
    policy: str
    action: str
    why: str


def evaluate(rules: RbacRules, request: HttpRequest | None, connection: Connection) -> Decision:
    """The engine's decision; a request of None is plain TCP, where no header and no path is present."""
    undecided: tuple[str, Undecided] | None = None
    for name in _in_order(rules):
        truth = _policy_condition(rules.policies[name], request, connection).truth
        if truth is True:
            return _matched(rules, name, undecided)
        if isinstance(truth, Undecided) and undecided is None:
            undecided = (name, truth)
    if undecided is not None:
        name, reason = undecided
        allowed = True if rules.action == "LOG" else None
        return Decision(allowed, "", rules.action, f"whether {name} matches can't be told: {reason.why}")
    return Decision(rules.action != "ALLOW", "", rules.action, f"no {rules.action} policy matches")


def _in_order(rules: RbacRules) -> list[str]:
    return sorted(rules.policies, key=lambda name: name.encode("utf-8", "surrogatepass"))


def _matched(rules: RbacRules, name: str, undecided: tuple[str, Undecided] | None) -> Decision:
    why = f"the {rules.action} policy {name} matches"
    if undecided is not None:
        why += f" (and before it perhaps {undecided[0]}: {undecided[1].why})"
    return Decision(rules.action != "DENY", name, rules.action, why)


# --- conditions -------------------------------------------------------------------------------------------


class _Leaf(Struct, frozen=True):
    """One elementary condition, judged: what it looks at, what is there, what was wanted."""

    truth: Truth
    subject: str
    actual: str
    wanted: Callable[[], str]


class _Node(Struct, frozen=True):
    """Conditions combined by `all`, `any` or `not`, judged."""

    kind: Literal["all", "any", "not"]
    truth: Truth
    children: tuple[_Condition, ...]


_Condition = _Leaf | _Node


def _all(children: Iterator[_Condition]) -> _Node:
    judged = tuple(children)
    return _Node("all", matching.all_of(child.truth for child in judged), judged)


def _any(children: Iterator[_Condition]) -> _Node:
    judged = tuple(children)
    return _Node("any", matching.any_of(child.truth for child in judged), judged)


def _not(child: _Condition) -> _Node:
    return _Node("not", matching.inverted(child.truth), (child,))


def _not_understood(what: str) -> _Leaf:
    why = f"{what} isn't understood here"
    return _Leaf(Undecided(why), what, "", lambda: "something")


def _policy_condition(policy: Policy, request: HttpRequest | None, connection: Connection) -> _Condition:
    def parts() -> Iterator[_Condition]:
        yield _any(_permission(each, request, connection) for each in policy.permissions)
        yield _any(_principal(each, request, connection) for each in policy.principals)
        if policy.condition is not None or policy.checked_condition is not None:
            yield _not_understood("a CEL condition")

    return _all(parts())


def _permission(rule: Permission, request: HttpRequest | None, connection: Connection) -> _Condition:
    if rule.and_rules is not None:
        return _all(_permission(each, request, connection) for each in rule.and_rules.rules)
    if rule.or_rules is not None:
        return _any(_permission(each, request, connection) for each in rule.or_rules.rules)
    if rule.not_rule is not None:
        return _not(_permission(rule.not_rule, request, connection))
    if rule.destination_ip is not None:
        return _address("destination address", rule.destination_ip, connection.destination_address)
    if rule.destination_port is not None:
        return _port(PortRange(rule.destination_port, rule.destination_port + 1), connection)
    if rule.destination_port_range is not None:
        return _port(rule.destination_port_range, connection)
    if rule.requested_server_name is not None:
        return _server_name(rule.requested_server_name, connection)
    return _either(rule, request, connection) or _not_understood("a permission of its kind")


def _principal(identity: Principal, request: HttpRequest | None, connection: Connection) -> _Condition:
    if identity.and_ids is not None:
        return _all(_principal(each, request, connection) for each in identity.and_ids.ids)
    if identity.or_ids is not None:
        return _any(_principal(each, request, connection) for each in identity.or_ids.ids)
    if identity.not_id is not None:
        return _not(_principal(identity.not_id, request, connection))
    if identity.authenticated is not None:
        return _authenticated(identity.authenticated, connection)
    for direct in (identity.source_ip, identity.direct_remote_ip):
        if direct is not None:
            return _address("source address", direct, connection.source_address)
    if identity.remote_ip is not None:
        if request is not None and request.header("x-forwarded-for") is not None:
            return _not_understood("the caller's address behind x-forwarded-for")
        return _address("remote address", identity.remote_ip, connection.source_address)
    if identity.filter_state is not None:
        return _not_understood("a principal from filter state")
    return _either(identity, request, connection) or _not_understood("a principal of its kind")


def _either(
    condition: Permission | Principal, request: HttpRequest | None, connection: Connection
) -> _Leaf | None:
    """The conditions that permissions and principals share; None where it is none of them."""
    if condition.any is not None:
        return _Leaf(condition.any, "anything", "", lambda: "anything")
    if condition.header is not None:
        return _header(condition.header, request)
    if condition.url_path is not None:
        return _url_path(condition.url_path, request)
    if condition.metadata is not None:
        return _metadata(condition.metadata, connection)
    if condition.sourced_metadata is not None:
        if condition.sourced_metadata.metadata_source != "DYNAMIC":
            return _not_understood("metadata of the route")
        return _metadata(condition.sourced_metadata.metadata_matcher, connection)
    return None


def _authenticated(wanted: Authenticated, connection: Connection) -> _Leaf:
    """True for any TLS where no name is asked for; else one of the peer's names must match."""
    actual = ", ".join(connection.peer_principals)
    if not actual:
        actual = "absent (no client certificate)" if connection.encrypted else "absent (plaintext)"
    name = wanted.principal_name
    if name is not None and connection.encrypted and "peer" in connection.unknown:
        return _Leaf(
            Undecided("the caller's identity isn't known"),
            "principal",
            "not known",
            lambda: string_words(name),
        )
    if name is None or not connection.encrypted:
        words = (lambda: "any") if name is None else (lambda: string_words(name))
        return _Leaf(connection.encrypted, "principal", actual, words)
    truth = matching.any_of(matching.string_matches(name, each) for each in _peer_names(connection))
    return _Leaf(truth, "principal", actual, lambda: string_words(name))


def _peer_names(connection: Connection) -> tuple[str, ...]:
    """The names that Envoy tries. The subject is always among them: empty where there is none in it."""
    names = connection.peer_principals
    has_subject = any("=" in name and "://" not in name for name in names)
    return names if has_subject else (*names, "")


def _address(subject: str, cidr: CidrRange, address: str) -> _Leaf:
    truth = matching.in_cidr(cidr, address)
    return _Leaf(truth, subject, address, lambda: f"{cidr.address_prefix}/{cidr.prefix_len}")


def _port(wanted: PortRange, connection: Connection) -> _Leaf:
    port = connection.destination_port
    truth: Truth = wanted.start <= port < wanted.end
    if not port:
        truth = Undecided("the destination port isn't known")
    last = wanted.end - 1
    words = str(wanted.start) if last == wanted.start else f"{wanted.start} to {last}"
    return _Leaf(truth, "destination port", str(port), lambda: words)


def _server_name(wanted: StringMatcher, connection: Connection) -> _Leaf:
    truth = matching.string_matches(wanted, connection.server_name)
    return _Leaf(truth, "server name (SNI)", connection.server_name or "absent", lambda: string_words(wanted))


_PSEUDO_HEADERS = {":method": "method", ":path": "path", ":authority": "host", ":scheme": "scheme"}


def _header(wanted: HeaderMatcher, request: HttpRequest | None) -> _Leaf:
    subject = _PSEUDO_HEADERS.get(wanted.name.lower(), f"header {wanted.name}")
    value = None if request is None else request.header(wanted.name)
    made_up = request is not None and request.guessed and wanted.name.lower() in (":method", ":path")
    if made_up or (value is None and request is not None and request.partial):
        return _Leaf(
            Undecided("a log line doesn't tell it"), subject, "not known", lambda: header_words(wanted)
        )
    actual = "absent" if value is None else value
    return _Leaf(matching.header_matches(wanted, request), subject, actual, lambda: header_words(wanted))


def _url_path(wanted: PathMatcher, request: HttpRequest | None) -> _Leaf:
    matcher = wanted.path
    if matcher is None:
        return _not_understood("a path matcher of its kind")
    if request is None or not request.path:
        return _Leaf(False, "path", "absent", lambda: string_words(matcher))
    if request.guessed:
        return _Leaf(Undecided("no request was seen"), "path", "not known", lambda: string_words(matcher))
    path = request.path_without_query
    return _Leaf(matching.string_matches(matcher, path), "path", path, lambda: string_words(matcher))


def _metadata(wanted: MetadataMatcher, connection: Connection) -> _Leaf:
    keys = ".".join(segment.key for segment in wanted.path)
    value: Any = connection.dynamic_metadata.get(wanted.filter)
    for segment in wanted.path:
        value = value.get(segment.key) if isinstance(value, dict) else None
    if value is None and wanted.filter in connection.unknown:
        why = Undecided(f"what {wanted.filter} found in the request isn't known")
        return _Leaf(why, f"{wanted.filter} {keys}", "not known", lambda: metadata_words(wanted))
    truth = matching.metadata_matches(wanted, connection.dynamic_metadata)
    actual = "absent" if value is None else str(value)
    return _Leaf(truth, f"{wanted.filter} {keys}", actual, lambda: metadata_words(wanted))


def matches_nothing(rules: RbacRules) -> bool:
    """Whether policies are there and none could match any request: Istio writes `spec: {}` as `not any`."""
    return bool(rules.policies) and all(_never(policy) for policy in rules.policies.values())


def _never(policy: Policy) -> bool:
    def impossible(condition: Permission | Principal) -> bool:
        inner = condition.not_rule if isinstance(condition, Permission) else condition.not_id
        return inner is not None and inner.any is True

    return all(map(impossible, policy.permissions)) or all(map(impossible, policy.principals))


# --- words ------------------------------------------------------------------------------------------------


def string_words(matcher: StringMatcher) -> str:
    """A string condition in words; `*` stands for any text."""
    if matcher.safe_regex is not None:
        return f"matching {matcher.safe_regex.regex}"
    for text, form in (
        (matcher.exact, "{}"),
        (matcher.prefix, "{}*"),
        (matcher.suffix, "*{}"),
        (matcher.contains, "*{}*"),
    ):
        if text is not None:
            return form.format(text) or "empty"
    return "something"


def header_words(matcher: HeaderMatcher) -> str:
    """A header condition in words."""
    older = StringMatcher(
        exact=matcher.exact_match,
        prefix=matcher.prefix_match,
        suffix=matcher.suffix_match,
        contains=matcher.contains_match,
        safe_regex=matcher.safe_regex_match,
    )
    if matcher.string_match is not None:
        words = string_words(matcher.string_match)
    elif matcher.range_match is not None:
        words = f"a number from {matcher.range_match.start} to {matcher.range_match.end - 1}"
    elif older != StringMatcher():
        words = string_words(older)
    else:
        words = "absent" if matcher.present_match is False else "present"
    return f"anything but {words}" if matcher.invert_match else words


def metadata_words(matcher: MetadataMatcher) -> str:
    """A metadata condition in words, as far as it is about strings (Istio's are)."""
    value = matcher.value
    if value.or_match is not None and value.or_match.value_matchers:
        value = value.or_match.value_matchers[0]
    if value.list_match is not None and value.list_match.one_of is not None:
        value = value.list_match.one_of
    words = string_words(value.string_match) if value.string_match is not None else "another value"
    if value.present_match:
        words = "present"
    return f"anything but {words}" if matcher.invert else words


# --- explanation ------------------------------------------------------------------------------------------


class ConditionMismatch(Struct, frozen=True):
    """A condition that failed: what it is about, what is there, what the policy wants.

    `undecided` says why it can't be told whether it failed; "" where it did.
    """

    subject: str
    actual: str
    wanted: str
    undecided: str = ""

    def __str__(self) -> str:
        if self.undecided:
            return f"{self.subject} can't be judged: {self.undecided}"
        return f"{self.subject} is {self.actual}, the policy wants {self.wanted}"


class PolicyMismatch(Struct, frozen=True):
    """Why a policy didn't match; of alternatives in it, those that came nearest."""

    policy: str
    conditions: tuple[ConditionMismatch, ...]

    def __str__(self) -> str:
        return "; ".join(str(condition) for condition in self.conditions)


def explain(rules: RbacRules, request: HttpRequest | None, connection: Connection) -> list[PolicyMismatch]:
    """For each policy that doesn't match, in the engine's order, what kept it from matching."""
    found: list[PolicyMismatch] = []
    for name in _in_order(rules):
        condition = _policy_condition(rules.policies[name], request, connection)
        if condition.truth is not True:
            found.append(PolicyMismatch(name, tuple(_mismatches(condition, wanted=True))))
    return found


def _mismatches(condition: _Condition, wanted: bool) -> list[ConditionMismatch]:
    """The conditions that keep `condition` from being `wanted`; empty where it is."""
    if condition.truth is wanted:
        return []
    if isinstance(condition, _Leaf):
        words = condition.wanted() if wanted else f"anything but {condition.wanted()}"
        undecided = condition.truth.why if isinstance(condition.truth, Undecided) else ""
        return [ConditionMismatch(condition.subject, condition.actual, words, undecided)]
    if condition.kind == "not":
        return _mismatches(condition.children[0], not wanted)
    each = [_mismatches(child, wanted) for child in condition.children]
    if (condition.kind == "all") is wanted:
        return [mismatch for mismatches in each for mismatch in mismatches]
    return _nearest(each)


def _nearest(alternatives: list[list[ConditionMismatch]]) -> list[ConditionMismatch]:
    """The alternatives with the fewest mismatches, those about the same thing drawn together."""
    if not alternatives:
        return [ConditionMismatch("anything", "", "nothing: the policy lists no alternative")]
    fewest = min(len(each) for each in alternatives)
    merged: dict[tuple[str, str, str], list[str]] = {}
    for mismatch in (mismatch for each in alternatives if len(each) == fewest for mismatch in each):
        wanted = merged.setdefault((mismatch.subject, mismatch.actual, mismatch.undecided), [])
        if mismatch.wanted not in wanted:
            wanted.append(mismatch.wanted)
    return [
        ConditionMismatch(subject, actual, " or ".join(wanted), undecided)
        for (subject, actual, undecided), wanted in merged.items()
    ]
