"""Envoy's elementary matchers, corner by corner; each corner was seen on a real Envoy (docs/differential.md)."""

from __future__ import annotations

import pytest

from meshscope.envoy.config_dump import (
    CidrRange,
    CookieMatcher,
    HeaderMatcher,
    Int64Range,
    QueryParameterMatcher,
    RegexMatcher,
    StringMatcher,
)
from meshscope.envoy.matching import (
    Truth,
    Undecided,
    all_of,
    any_of,
    cookie_matches,
    cookies,
    header_matches,
    in_cidr,
    integer,
    inverted,
    query_parameter_matches,
    regex_matches,
    string_matches,
)
from meshscope.envoy.request import HttpRequest

UNDECIDED = Undecided("because")


def test_an_undecided_condition_counts_only_where_it_decides() -> None:
    assert all_of((UNDECIDED, False)) is False
    assert all_of((UNDECIDED, True)) is UNDECIDED
    assert any_of((UNDECIDED, True)) is True
    assert any_of((UNDECIDED, False)) is UNDECIDED
    assert inverted(UNDECIDED) is UNDECIDED
    assert all_of(()) is True
    assert any_of(()) is False


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("/reviews", "/reviews/0", False),
        ("/reviews/[0-9]+", "/reviews/17", True),
        ("a|ab", "ab", True),
        ("a.b", "a\nb", False),
        ("", "", True),
        ("(?i)test.*", "TESTER", True),
    ],
)
def test_a_regular_expression_must_match_the_whole_text(pattern: str, text: str, expected: bool) -> None:
    assert regex_matches(pattern, text) is expected


def test_a_regular_expression_that_re2_refuses_is_undecided() -> None:
    assert isinstance(regex_matches("(?=look)", "x"), Undecided)


def test_a_text_that_is_no_unicode_is_matched_all_the_same() -> None:
    assert regex_matches("a.*", "a\udcff") is True


@pytest.mark.parametrize(
    ("matcher", "text", "expected"),
    [
        (StringMatcher(exact="A", ignore_case=True), "a", True),
        (StringMatcher(exact=""), "", True),
        (StringMatcher(exact=""), "a", False),
        (StringMatcher(prefix="ab"), "abc", True),
        (StringMatcher(suffix="BC", ignore_case=True), "abc", True),
        (StringMatcher(contains="b"), "abc", True),
        (StringMatcher(exact="É", ignore_case=True), "é", False),
        (StringMatcher(safe_regex=RegexMatcher("A"), ignore_case=True), "a", False),
    ],
)
def test_strings(matcher: StringMatcher, text: str, expected: bool) -> None:
    assert string_matches(matcher, text) is expected


def test_a_custom_string_matcher_is_undecided() -> None:
    assert isinstance(string_matches(StringMatcher(custom={"name": "lua"}), "x"), Undecided)


SEVEN = StringMatcher(exact="7")


@pytest.mark.parametrize(
    ("matcher", "values", "expected"),
    [
        (HeaderMatcher("x"), (), False),
        (HeaderMatcher("x"), ("",), True),
        (HeaderMatcher("x", present_match=False), (), True),
        (HeaderMatcher("x", present_match=True, invert_match=True), (), True),
        (HeaderMatcher("x", present_match=False, treat_missing_header_as_empty=True), (), False),
        (HeaderMatcher("x", string_match=SEVEN), (), False),
        (HeaderMatcher("x", string_match=SEVEN, invert_match=True), (), False),
        (HeaderMatcher("x", string_match=SEVEN, invert_match=True), ("8",), True),
        (
            HeaderMatcher("x", string_match=SEVEN, invert_match=True, treat_missing_header_as_empty=True),
            (),
            True,
        ),
        # Each line of a header by itself; joined by a comma they are never seen.
        (HeaderMatcher("x", string_match=SEVEN), ("7", "8"), True),
        (HeaderMatcher("x", string_match=StringMatcher(exact="7,8")), ("7", "8"), False),
        (HeaderMatcher("x", string_match=SEVEN, invert_match=True), ("7", "8"), False),
        (HeaderMatcher("x", string_match=SEVEN, invert_match=True), ("8", "9"), True),
        (HeaderMatcher("X", exact_match=""), ("anything",), True),
        (HeaderMatcher("x", exact_match=""), (), False),
        (HeaderMatcher("x", prefix_match="7"), ("78",), True),
        (HeaderMatcher("x", range_match=Int64Range(0, 8)), ("7",), True),
        (HeaderMatcher("x", range_match=Int64Range(0, 8)), ("8",), False),
        (HeaderMatcher("x", range_match=Int64Range(0, 8)), ("+7",), True),
        (HeaderMatcher("x", range_match=Int64Range(0, 8), invert_match=True), ("7x",), True),
    ],
)
def test_headers(matcher: HeaderMatcher, values: tuple[str, ...], expected: bool) -> None:
    request = HttpRequest(headers=tuple(("x", value) for value in values))
    assert header_matches(matcher, request) is expected


def test_pseudo_headers_are_headers_and_host_is_the_authority() -> None:
    request = HttpRequest("POST", "reviews", "/a?b")
    for name, value in (
        (":method", "POST"),
        (":authority", "reviews"),
        ("host", "reviews"),
        (":path", "/a?b"),
    ):
        assert header_matches(HeaderMatcher(name, string_match=StringMatcher(exact=value)), request) is True


def test_a_tcp_connection_has_no_header() -> None:
    assert header_matches(HeaderMatcher(":method"), None) is False
    assert header_matches(HeaderMatcher(":method", present_match=False), None) is True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", 7),
        (" 7\t", 7),
        ("+7", 7),
        ("-7", -7),
        ("", None),
        ("7x", None),
        ("0x7", None),
        ("٧", None),
        (str(2**63), None),
    ],
)
def test_integers_are_read_as_envoy_reads_them(text: str, expected: int | None) -> None:
    assert integer(text) == expected


@pytest.mark.parametrize(
    ("matcher", "path", "expected"),
    [
        (QueryParameterMatcher("a"), "/x?a", True),
        (QueryParameterMatcher("a"), "/x", False),
        (QueryParameterMatcher("a"), "/x?A=1", False),
        (QueryParameterMatcher("a", present_match=False), "/x?a=1", False),
        (QueryParameterMatcher("a", present_match=False), "/x?b=1", True),
        (QueryParameterMatcher("a", string_match=StringMatcher(exact="1")), "/x?a=1&a=2", True),
        (QueryParameterMatcher("a", string_match=StringMatcher(exact="2")), "/x?a=1&a=2", False),
        (QueryParameterMatcher("a", string_match=StringMatcher(exact="é")), "/x?a=%C3%A9", False),
        (QueryParameterMatcher("v1"), "/x?v%31=1", False),
    ],
)
def test_query_parameters(matcher: QueryParameterMatcher, path: str, expected: bool) -> None:
    assert query_parameter_matches(matcher, path) is expected


def test_of_several_cookies_with_one_name_the_first_counts() -> None:
    request = HttpRequest(headers=(("cookie", 'v=3; user="tester";user=bob; flag'), ("cookie", "v=4; w=")))
    assert cookies(request) == {"v": "3", "user": "tester", "w": ""}


@pytest.mark.parametrize(
    ("value", "invert", "expected"), [("x", False, True), (None, False, False), (None, True, True)]
)
def test_cookies(value: str | None, invert: bool, expected: Truth) -> None:
    assert cookie_matches(CookieMatcher("a", StringMatcher(exact="x"), invert), value) is expected


@pytest.mark.parametrize(
    ("prefix", "length", "address", "expected"),
    [
        ("10.1.2.3", 8, "10.9.9.9", True),
        ("10.1.2.3", 0, "192.0.2.1", True),
        ("10.1.2.3", 99, "10.1.2.3", True),
        ("10.1.2.3", 8, "::1", False),
        ("fd00::", 8, "fd12::1", True),
    ],
)
def test_addresses(prefix: str, length: int, address: str, expected: bool) -> None:
    assert in_cidr(CidrRange(prefix, length), address) is expected


def test_an_address_that_is_not_known_is_undecided() -> None:
    assert isinstance(in_cidr(CidrRange("10.0.0.0", 8), ""), Undecided)
    assert isinstance(in_cidr(CidrRange("ten", 8), "10.0.0.1"), Undecided)
