"""Hops of a request walk: who decided what, through which object, and which Kubernetes object caused that."""

from __future__ import annotations

import enum
from typing import Any, Literal

import msgspec

from meshscope.envoy.request import HttpRequest
from meshscope.model.findings import Evidence
from meshscope.model.names import ObjectRef, ProxyId


class Stage(enum.IntEnum):
    """The hops in the order a request meets them."""

    CAPTURE = 1
    OUTBOUND_LISTENER = 2
    ROUTE = 3
    CLUSTER = 4
    ENDPOINT = 5
    TLS_OFFER = 6
    CONNECT = 7
    FILTER_CHAIN = 8
    TLS_ACCEPT = 9
    JWT = 10
    AUTHORIZATION = 11
    FAULT = 12
    LIMITS = 13
    INBOUND_CLUSTER = 14
    APPLICATION = 15


Outcome = Literal["pass", "fail", "unknown"]


class Hop(msgspec.Struct, frozen=True):
    """One decision. `cause` is the id of the cause where the outcome is `fail`."""

    stage: Stage
    outcome: Outcome
    decision: str
    proxy: ProxyId | None = None
    object: str = ""
    kubernetes: ObjectRef | None = None
    cause: str = ""
    evidence: tuple[Evidence, ...] = ()
    detail: dict[str, Any] = {}
    """Facts of the decision that rules quote, by name; each stage's module documents its own."""


class Branch(msgspec.Struct, frozen=True):
    """One way the request can go, with its share 0 to 1 of the requests."""

    share: float
    hops: tuple[Hop, ...]

    @property
    def outcome(self) -> Outcome:
        outcomes = {hop.outcome for hop in self.hops}
        return "fail" if "fail" in outcomes else "unknown" if "unknown" in outcomes else "pass"

    @property
    def failure(self) -> Hop | None:
        """The first hop that fails."""
        return next((hop for hop in self.hops if hop.outcome == "fail"), None)

    def at(self, stage: Stage) -> Hop | None:
        return next((hop for hop in self.hops if hop.stage is stage), None)


class Walk(msgspec.Struct, frozen=True):
    """A request and every way it can go; shares add up to 1."""

    source: str
    request: HttpRequest
    host: str
    port: int
    branches: tuple[Branch, ...]
