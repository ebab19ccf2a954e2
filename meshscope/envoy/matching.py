"""Envoy's elementary matchers: strings, RE2, headers, query parameters, cookies, metadata, CIDR ranges.

What can't be decided here (a custom matcher, an address that isn't known) is neither true nor false but
`Undecided`, and only counts where it would change the outcome.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import re2
from msgspec import Struct

from meshscope.envoy.config_dump import (
    CidrRange,
    CookieMatcher,
    DoubleMatcher,
    HeaderMatcher,
    Int64Range,
    MetadataMatcher,
    QueryParameterMatcher,
    StringMatcher,
    ValueMatcher,
)
from meshscope.envoy.request import HttpRequest


class Undecided(Struct, frozen=True):
    """A condition that can't be judged from what is here, and why."""

    why: str


Truth = bool | Undecided


def all_of(truths: Iterable[Truth]) -> Truth:
    """False where one is false, whatever the undecided ones would say."""
    undecided: Undecided | None = None
    for truth in truths:
        if truth is False:
            return False
        if isinstance(truth, Undecided) and undecided is None:
            undecided = truth
    return undecided or True


def any_of(truths: Iterable[Truth]) -> Truth:
    """True where one is true, whatever the undecided ones would say."""
    undecided: Undecided | None = None
    for truth in truths:
        if truth is True:
            return True
        if isinstance(truth, Undecided) and undecided is None:
            undecided = truth
    return undecided or False


def inverted(truth: Truth, when: bool = True) -> Truth:
    """The opposite where `when` holds; what is undecided stays undecided."""
    if isinstance(truth, Undecided):
        return truth
    return truth != when


# --- regular expressions and strings ----------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern.encode("utf-8", "surrogatepass"), options)
    except re2.error:
        return None


def regex_matches(pattern: str, text: str) -> Truth:
    """Whether RE2 matches the whole of `text`, as Envoy asks it."""
    compiled = _compiled(pattern)
    if compiled is None:
        return Undecided(f"RE2 can't read the regular expression {pattern!r}")
    return compiled.fullmatch(text.encode("utf-8", "surrogatepass")) is not None


def string_matches(matcher: StringMatcher, text: str) -> Truth:
    """envoy.type.matcher.v3.StringMatcher; `ignore_case` has no effect on a regular expression."""
    if matcher.safe_regex is not None:
        return regex_matches(matcher.safe_regex.regex, text)
    value = ascii_lower(text) if matcher.ignore_case else text
    for wanted, compare in (
        (matcher.exact, str.__eq__),
        (matcher.prefix, str.startswith),
        (matcher.suffix, str.endswith),
        (matcher.contains, str.__contains__),
    ):
        if wanted is not None:
            return bool(compare(value, ascii_lower(wanted) if matcher.ignore_case else wanted))
    return Undecided("a string matcher of a kind that isn't known here")


_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def ascii_lower(text: str) -> str:
    """Lower case of A to Z alone, as Envoy folds case (absl::AsciiStrToLower)."""
    return text.translate(_ASCII_LOWER)


_INTEGER = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)[ \t\n\v\f\r]*", re.ASCII)


def integer(text: str, low: int = -(2**63), high: int = 2**63 - 1) -> int | None:
    """The integer in `text` as absl::SimpleAtoi reads it; None where it isn't one or doesn't fit."""
    found = _INTEGER.fullmatch(text)
    if found is None or len(found[1]) > 40:
        return None
    number = int(found[1])
    return number if low <= number <= high else None


def _in_range(wanted: Int64Range, text: str) -> bool:
    number = integer(text)
    return number is not None and wanted.start <= number < wanted.end


# --- requests ---------------------------------------------------------------------------------------------


def header_matches(matcher: HeaderMatcher, request: HttpRequest | None) -> Truth:
    """envoy.config.route.v3.HeaderMatcher; None is a connection without HTTP: no header is present.

    A missing header matches nothing but an inverted presence, whatever `invert_match` says, unless
    `treat_missing_header_as_empty`. Of several lines of one header each is looked at by itself, and one that
    matches is enough (measured on Envoy 1.40; older ones joined them by commas).
    """
    values = () if request is None else request.values(matcher.name)
    if not values and matcher.treat_missing_header_as_empty:
        values = ("",)
    if _asks_presence(matcher):
        present = bool(values) == (matcher.present_match is not False)
        return present != matcher.invert_match
    if not values:
        return False
    return inverted(any_of(_value_matches(matcher, value) for value in values), matcher.invert_match)


def _asks_presence(matcher: HeaderMatcher) -> bool:
    specifiers = (
        matcher.string_match,
        matcher.exact_match,
        matcher.prefix_match,
        matcher.suffix_match,
        matcher.contains_match,
        matcher.safe_regex_match,
        matcher.range_match,
    )
    return matcher.present_match is not None or all(specifier is None for specifier in specifiers)


def _value_matches(matcher: HeaderMatcher, value: str) -> Truth:
    if matcher.string_match is not None:
        return string_matches(matcher.string_match, value)
    if matcher.range_match is not None:
        return _in_range(matcher.range_match, value)
    if matcher.exact_match == "":
        # An empty value meant "any" before string_match came, and still does.
        return True
    older = StringMatcher(
        exact=matcher.exact_match,
        prefix=matcher.prefix_match,
        suffix=matcher.suffix_match,
        contains=matcher.contains_match,
        safe_regex=matcher.safe_regex_match,
    )
    return string_matches(older, value)


def query_parameters(path: str) -> Iterator[tuple[str, str]]:
    """Name and value of each parameter of a path's query, not percent-decoded, as Envoy compares them."""
    _, mark, query = path.partition("?")
    if not mark:
        return
    for parameter in query.partition("#")[0].split("&"):
        name, _, value = parameter.partition("=")
        yield name, value


def query_parameter_matches(matcher: QueryParameterMatcher, path: str) -> Truth:
    """envoy.config.route.v3.QueryParameterMatcher; of several values the first counts."""
    value = next((value for name, value in query_parameters(path) if name == matcher.name), None)
    if matcher.present_match is not None:
        return (value is not None) == matcher.present_match
    if value is None:
        return False
    return True if matcher.string_match is None else string_matches(matcher.string_match, value)


def cookies(request: HttpRequest) -> dict[str, str]:
    """The request's cookies; of several with one name the first counts."""
    found: dict[str, str] = {}
    for name, header in request.headers:
        if name.lower() != "cookie":
            continue
        for pair in header.split(";"):
            key, mark, value = pair.strip(" \t").partition("=")
            if mark:
                quoted = len(value) > 1 and value[0] == value[-1] == '"'
                found.setdefault(key, value[1:-1] if quoted else value)
    return found


def cookie_matches(matcher: CookieMatcher, value: str | None) -> Truth:
    """envoy.config.route.v3.CookieMatcher on one cookie's value; None: the request has no such cookie."""
    if matcher.string_match is None:
        return Undecided("a cookie matcher of a kind that isn't known here")
    matched = value is not None and string_matches(matcher.string_match, value)
    return inverted(matched, matcher.invert_match)


# --- metadata ---------------------------------------------------------------------------------------------

_ABSENT = object()


def metadata_matches(matcher: MetadataMatcher, metadata: Mapping[str, Any]) -> Truth:
    """envoy.type.matcher.v3.MetadataMatcher on filter metadata (a mapping of filter to struct)."""
    value: Any = metadata.get(matcher.filter, _ABSENT)
    for segment in matcher.path:
        value = value.get(segment.key, _ABSENT) if isinstance(value, Mapping) else _ABSENT
    return inverted(_metadata_value_matches(matcher.value, value), matcher.invert)


def _metadata_value_matches(matcher: ValueMatcher, value: Any) -> Truth:
    if matcher.present_match is not None:
        return matcher.present_match and value is not _ABSENT
    if matcher.or_match is not None:
        return any_of(_metadata_value_matches(one, value) for one in matcher.or_match.value_matchers)
    if matcher.list_match is not None:
        wanted = matcher.list_match.one_of
        if wanted is None:
            return Undecided("a list matcher of a kind that isn't known here")
        return isinstance(value, list) and any_of(_metadata_value_matches(wanted, item) for item in value)
    if matcher.null_match is not None:
        return value is None
    if matcher.bool_match is not None:
        return value is matcher.bool_match
    if matcher.string_match is not None:
        return isinstance(value, str) and string_matches(matcher.string_match, value)
    if matcher.double_match is not None:
        return _double_matches(matcher.double_match, value)
    return Undecided("a metadata value matcher of a kind that isn't known here")


def _double_matches(matcher: DoubleMatcher, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    if matcher.range is not None:
        return matcher.range.start <= value < matcher.range.end
    return matcher.exact == value


# --- addresses --------------------------------------------------------------------------------------------

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@lru_cache(maxsize=4096)
def network(cidr: CidrRange) -> Network | None:
    """The range with its host bits cleared, as Envoy does; None where the address can't be read."""
    try:
        address = ipaddress.ip_address(cidr.address_prefix)
        length = min(cidr.prefix_len, address.max_prefixlen)
        return ipaddress.ip_network(f"{address}/{length}", strict=False)
    except ValueError:
        return None


def in_cidr(cidr: CidrRange, address: str) -> Truth:
    """Whether `address` lies in the range; an address of the other IP version never does."""
    block = network(cidr)
    if block is None:
        return Undecided(f"{cidr.address_prefix!r} is no IP address")
    try:
        return ipaddress.ip_address(address) in block
    except ValueError:
        return Undecided(f"{address!r} is no IP address" if address else "the address isn't known")
