"""What the JWT filter demands and refuses: trees of requirements, tokens by their claims, what a log line hides."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from meshscope.envoy.jwt import JwtAuthentication, evaluate, read_claims
from meshscope.envoy.request import HttpRequest

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ISSUER = "https://issuer.example"


def token(**claims: Any) -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'RS256'})}.{part({'iss': ISSUER, **claims})}.c2lnbmF0dXJl"


def config(requires: dict[str, Any] | None, **provider: Any) -> JwtAuthentication:
    rule: dict[str, Any] = {"match": {"prefix": "/"}}
    if requires is not None:
        rule["requires"] = requires
    providers = {"one": {"issuer": ISSUER, **provider}, "two": {"issuer": "other"}}
    return msgspec.convert({"providers": providers, "rules": [rule]}, JwtAuthentication)


def asked(value: str | None = None, *, partial: bool = False, path: str = "/") -> HttpRequest:
    headers = (("authorization", f"Bearer {value}"),) if value is not None else ()
    return HttpRequest("GET", "a", path, headers, partial=partial)


ONE = {"provider_name": "one"}
OPTIONAL = {"requires_any": {"requirements": [ONE, {"provider_name": "two"}, {"allow_missing": {}}]}}


@pytest.mark.parametrize(
    ("requires", "value", "verdict"),
    [
        (None, None, "allowed"),
        (ONE, None, "missing"),
        (ONE, token(), "unknown"),
        (OPTIONAL, None, "allowed"),
        (OPTIONAL, token(iss="third"), "invalid"),
        (OPTIONAL, token(iss="other"), "unknown"),
        ({"allow_missing": {}}, None, "allowed"),
        ({"allow_missing": {}}, token(exp=1), "invalid"),
        ({"allow_missing_or_failed": {}}, token(exp=1), "allowed"),
        ({"requires_any": {"requirements": [ONE, {"allow_missing_or_failed": {}}]}}, token(exp=1), "allowed"),
        ({"requires_all": {"requirements": [ONE, {"provider_name": "two"}]}}, token(), "invalid"),
        ({"requires_all": {"requirements": [ONE, {"provider_name": "two"}]}}, None, "missing"),
    ],
)
def test_a_tree_of_requirements_is_judged(
    requires: dict[str, Any] | None, value: str | None, verdict: str
) -> None:
    assert evaluate(config(requires), asked(value), NOW).verdict == verdict


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"exp": NOW.timestamp() - 61}, "Jwt is expired"),
        ({"nbf": NOW.timestamp() + 61}, "Jwt not yet valid"),
        ({"iss": "third"}, "Jwt issuer is not configured"),
    ],
)
def test_a_token_is_refused_for_its_claims(claims: dict[str, Any], why: str) -> None:
    decision = evaluate(config(ONE), asked(token(**claims)), NOW)
    assert (decision.verdict, decision.why) == ("invalid", why)


def test_clocks_may_differ_by_a_minute() -> None:
    assert evaluate(config(ONE), asked(token(exp=NOW.timestamp() - 59)), NOW).verdict == "unknown"


@pytest.mark.parametrize(
    ("audience", "verdict"), [("a", "unknown"), (["x", "a"], "unknown"), ("x", "invalid"), (None, "invalid")]
)
def test_audiences_of_the_requirement_come_before_the_provider_s(audience: Any, verdict: str) -> None:
    wanted = {"provider_and_audiences": {"provider_name": "one", "audiences": ["a"]}}
    claims = {} if audience is None else {"aud": audience}
    assert evaluate(config(wanted, audiences=["b"]), asked(token(**claims)), NOW).verdict == verdict


def test_tokens_are_looked_for_where_the_provider_says() -> None:
    places = config(ONE, from_headers=[{"name": "x-token", "value_prefix": ""}], from_params=["t"])
    assert evaluate(places, asked(token(exp=1)), NOW).verdict == "missing"
    assert evaluate(places, asked(path=f"/?t={token(exp=1)}"), NOW).verdict == "invalid"
    header = HttpRequest("GET", "a", "/", (("x-token", token(exp=1)),))
    assert evaluate(places, header, NOW).verdict == "invalid"


def test_a_log_line_doesn_t_show_whether_there_was_a_token() -> None:
    assert evaluate(config(ONE), asked(partial=True), NOW).verdict == "unknown"
    assert evaluate(config(OPTIONAL), asked(partial=True), NOW).verdict == "allowed"


def test_the_first_rule_that_matches_decides() -> None:
    rules = [{"match": {"path": "/open"}}, {"match": {"prefix": "/"}, "requires": ONE}]
    both = msgspec.convert({"providers": {"one": {"issuer": ISSUER}}, "rules": rules}, JwtAuthentication)
    assert evaluate(both, asked(path="/open"), NOW).verdict == "allowed"
    assert evaluate(both, asked(path="/other"), NOW).verdict == "missing"


def test_a_requirement_may_be_named() -> None:
    named = {"rules": [{"match": {"prefix": "/"}, "requirement_name": "r"}], "requirement_map": {"r": ONE}}
    both = msgspec.convert({"providers": {"one": {"issuer": ISSUER}}, **named}, JwtAuthentication)
    assert evaluate(both, asked(), NOW).verdict == "missing"


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c", "..", "a.é.c", "a.W10.c"])
def test_what_is_no_token_has_no_claims(text: str) -> None:
    assert read_claims(text) is None
