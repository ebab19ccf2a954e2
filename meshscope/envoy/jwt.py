"""What Envoy's JWT filter decides on a request: which tokens it demands, and which it would refuse.

Semantics of envoy.extensions.filters.http.jwt_authn.v3: the first rule that matches the request says what is
required; a request that no rule matches needs no token. Signatures aren't checked here, the rest is.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, Literal
from urllib.parse import unquote

import msgspec
from msgspec import Struct

from meshscope.envoy import matching, routes
from meshscope.envoy.config_dump import RouteConfiguration, RouteMatch, decode_json
from meshscope.envoy.request import Connection, HttpRequest

FILTER = "envoy.filters.http.jwt_authn"
CLOCK_SKEW_S = 60
"""By how much a token may be early or late where the provider doesn't say (clock_skew_seconds)."""


class JwtHeader(Struct, frozen=True):
    name: str = ""
    value_prefix: str = ""


class JwtProvider(Struct, frozen=True):
    """Whose tokens are taken, and where they are looked for; without places the usual ones."""

    issuer: str = ""
    audiences: tuple[str, ...] = ()
    from_headers: tuple[JwtHeader, ...] = ()
    from_params: tuple[str, ...] = ()
    from_cookies: tuple[str, ...] = ()
    clock_skew_seconds: int = CLOCK_SKEW_S
    payload_in_metadata: str = ""
    remote_jwks: dict[str, Any] | None = None
    local_jwks: dict[str, Any] | None = None


class ProviderWithAudiences(Struct, frozen=True):
    provider_name: str = ""
    audiences: tuple[str, ...] = ()


class JwtRequirements(Struct, frozen=True):
    requirements: tuple[JwtRequirement, ...] = ()


class JwtRequirement(Struct, frozen=True):
    """What is demanded; one field is set, none demands nothing."""

    provider_name: str = ""
    provider_and_audiences: ProviderWithAudiences | None = None
    requires_any: JwtRequirements | None = None
    requires_all: JwtRequirements | None = None
    allow_missing_or_failed: dict[str, Any] | None = None
    allow_missing: dict[str, Any] | None = None
    extract_only_without_validation: dict[str, Any] | None = None


class JwtRule(Struct, frozen=True):
    match: RouteMatch = RouteMatch()
    requires: JwtRequirement | None = None
    requirement_name: str = ""


class JwtAuthentication(Struct, frozen=True):
    providers: dict[str, JwtProvider] = {}
    rules: tuple[JwtRule, ...] = ()
    requirement_map: dict[str, JwtRequirement] = {}
    bypass_cors_preflight: bool = False


Verdict = Literal["allowed", "missing", "invalid", "unknown"]


class JwtDecision(Struct, frozen=True):
    """`allowed`, `missing` and `invalid` as Envoy answers; `unknown` where the request doesn't tell enough."""

    verdict: Verdict
    why: str
    claims: dict[str, Any] = {}


def evaluate(config: JwtAuthentication, request: HttpRequest, at: datetime) -> JwtDecision:
    """The filter's decision at a given time. A partial request may have had a token that its log line hides."""
    requirement = _required(config, request)
    if requirement is None:
        return JwtDecision("allowed", "no token is asked for")
    decision = _judged(config, requirement, request, at)
    if request.partial and decision.verdict == "missing":
        return JwtDecision("unknown", "a token is demanded; whether the request has one isn't known")
    if request.partial and decision.verdict == "allowed":
        return JwtDecision(
            "allowed", "no token is demanded; whether the one that may be there is valid isn't known"
        )
    return decision


def _required(config: JwtAuthentication, request: HttpRequest) -> JwtRequirement | None:
    if config.bypass_cors_preflight and _is_preflight(request):
        return None
    for rule in config.rules:
        if routes.matches(rule.match, request, Connection(), RouteConfiguration()) is True:
            return rule.requires or config.requirement_map.get(rule.requirement_name)
    return None


def _is_preflight(request: HttpRequest) -> bool:
    asked = request.header("origin") and request.header("access-control-request-method")
    return request.method == "OPTIONS" and bool(asked)


def _judged(
    config: JwtAuthentication, wanted: JwtRequirement, request: HttpRequest, at: datetime
) -> JwtDecision:
    if wanted.requires_any is not None:
        return _any(_judged(config, each, request, at) for each in wanted.requires_any.requirements)
    if wanted.requires_all is not None:
        return _all(_judged(config, each, request, at) for each in wanted.requires_all.requirements)
    if wanted.allow_missing_or_failed is not None or wanted.extract_only_without_validation is not None:
        return JwtDecision("allowed", "whatever token there is, or none, will do")
    if wanted.allow_missing is not None:
        tokens = {token for provider in config.providers.values() for token in _tokens(provider, request)}
        if not tokens:
            return JwtDecision("allowed", "no token, and none is demanded")
        return _any(_provider(provider, (), request, at) for provider in config.providers.values())
    both = wanted.provider_and_audiences
    name = both.provider_name if both is not None else wanted.provider_name
    provider = config.providers.get(name)
    if provider is None:
        return JwtDecision("allowed", "nothing is demanded")
    return _provider(provider, both.audiences if both is not None else (), request, at)


def _any(decisions: Iterable[JwtDecision]) -> JwtDecision:
    """One that is content is enough; else what is wrong with a token that is there comes before its absence."""
    found = list(decisions)
    for verdict in ("allowed", "unknown", "invalid", "missing"):
        for decision in found:
            if decision.verdict == verdict:
                return decision
    return JwtDecision("allowed", "nothing is demanded")


def _all(decisions: Iterable[JwtDecision]) -> JwtDecision:
    found = list(decisions)
    for verdict in ("missing", "invalid", "unknown"):
        for decision in found:
            if decision.verdict == verdict:
                return decision
    return found[0] if found else JwtDecision("allowed", "nothing is demanded")


def _provider(
    provider: JwtProvider, audiences: tuple[str, ...], request: HttpRequest, at: datetime
) -> JwtDecision:
    tokens = list(_tokens(provider, request))
    if not tokens:
        return JwtDecision("missing", "Jwt is missing")
    return _any(_token(token, provider, audiences or provider.audiences, at) for token in tokens)


def _tokens(provider: JwtProvider, request: HttpRequest) -> Iterator[str]:
    usual = not (provider.from_headers or provider.from_params or provider.from_cookies)
    headers = (JwtHeader("authorization", "Bearer "),) if usual else provider.from_headers
    for place in headers:
        value = request.header(place.name)
        if value is not None and place.value_prefix in value:
            yield value.partition(place.value_prefix)[2] if place.value_prefix else value
    wanted = ("access_token",) if usual else provider.from_params
    for name, value in matching.query_parameters(request.path):
        if name in wanted:
            yield unquote(value)
    for name, value in matching.cookies(request).items():
        if name in provider.from_cookies:
            yield value


def _token(token: str, provider: JwtProvider, audiences: tuple[str, ...], at: datetime) -> JwtDecision:
    claims = read_claims(token)
    if claims is None:
        return JwtDecision("invalid", "Jwt is not in the form of Header.Payload.Signature")
    if provider.issuer and claims.get("iss") != provider.issuer:
        return JwtDecision("invalid", "Jwt issuer is not configured")
    now, skew = at.timestamp(), provider.clock_skew_seconds or CLOCK_SKEW_S
    if isinstance(expires := claims.get("exp"), int | float) and now > expires + skew:
        return JwtDecision("invalid", "Jwt is expired")
    if isinstance(begins := claims.get("nbf"), int | float) and now + skew < begins:
        return JwtDecision("invalid", "Jwt not yet valid")
    if audiences and not set(audiences) & set(_listed(claims.get("aud"))):
        return JwtDecision("invalid", "Audiences in Jwt are not allowed")
    return JwtDecision(
        "unknown", "the token is in order but for its signature, which isn't checked here", claims
    )


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(v) for v in value] if isinstance(value, list) else []


def read_claims(token: str) -> dict[str, Any] | None:
    """A token's payload, unverified; None where it is no token."""
    parts = token.strip().split(".")
    if len(parts) != 3:
        return None
    try:
        raw = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return decode_json(raw, dict[str, Any])
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        return None
