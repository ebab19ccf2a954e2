"""Answers that a proxy couldn't take for HTTP: whose protocol was wrong, or whose headers were too big."""

from __future__ import annotations

import msgspec

from meshscope.envoy.local_replies import reset_bodies
from meshscope.envoy.protocols import HEADERS_LIMIT_KB, upstream_protocol
from meshscope.facts.symptoms import Symptom
from meshscope.rules.claims import LIKELY
from meshscope.rules.facts import EdgeFacts, Facts
from meshscope.rules.shared.application import (
    Met,
    at_application,
    caller_lines,
    inbound_clusters,
    inbound_moved,
    met,
    offers_tls,
    total,
)

ERRORS = "upstream_cx_protocol_error"
RECEIVED = "upstream_cx_rx_bytes_total"
REQUESTS = "upstream_rq_total"
MOSTLY = 0.5


class Nonsense(msgspec.Struct, frozen=True):
    """Answers that no HTTP codec took. `http2`: it was asked in HTTP/2. `big`: whether as many bytes came with them as
    headers must have to be too big; None where bytes weren't counted, or came with good answers too.
    """

    found: Met
    http2: bool
    big: bool | None

    @property
    def decided(self) -> bool:
        return self.big is not None and not self.found.guessed


def nonsense(facts: Facts, edge: EdgeFacts) -> Nonsense | None:
    """What the proxy next to the application says of answers that aren't HTTP, or that are too big."""
    found = _at_server(edge) or _at_caller(edge)
    if found is None:
        return None
    return Nonsense(found, _asked_in_http2(facts, edge, found), _big(facts, edge, found))


def _at_server(edge: EdgeFacts) -> Met | None:
    counted = not edge.server_seen and inbound_moved(edge, ERRORS)
    if counted and total(inbound_moved(edge, "upstream_rq_502")) == 0:
        return None
    return met(
        edge,
        lines=lambda s: at_application(s) and _rejected(s),
        counters=(ERRORS,),
        codes=(502, 503),
        bodies=reset_bodies("protocol error"),
    )


def _at_caller(edge: EdgeFacts) -> Met | None:
    """The caller's own line, where no sidecar stands before the application."""
    if offers_tls(edge):
        return None
    found = caller_lines(edge, _rejected, (ERRORS,))
    if found is not None and not edge.client_seen and not edge.client_moved("upstream_rq_502"):
        return None
    return found


def _rejected(symptom: Symptom) -> bool:
    """Envoy 1.40 says UPE with 502; before 1.30 it was UPE with 503."""
    if "upstream_reset_after_response_started" in symptom.details:
        return False
    return symptom.has("UPE") or "{protocol_error" in symptom.details


def _asked_in_http2(facts: Facts, edge: EdgeFacts, found: Met) -> bool:
    protocols = {upstream_protocol(cluster) for _, cluster in inbound_clusters(facts, edge, found)}
    if not protocols:
        clusters = [edge.client_cluster(name) for name in edge.clusters]
        protocols = {upstream_protocol(cluster) for cluster in clusters if cluster is not None}
    if "downstream" in protocols:
        entries = [e for s in found.symptoms if s.side == "server" for e in s.entries]
        return any(entry.protocol == "HTTP/2" for entry in entries)
    return "http2" in protocols


def _big(facts: Facts, edge: EdgeFacts, found: Met) -> bool | None:
    if found.guessed:
        return None
    at_server = any(s.side == "server" for s in found.symptoms) or bool(inbound_moved(edge, ERRORS))
    counted = inbound_moved if at_server else EdgeFacts.client_moved
    errors, received, requests = (total(counted(edge, stat)) for stat in (ERRORS, RECEIVED, REQUESTS))
    if not errors and at_server:
        errors, received, requests = (
            _since_start(facts, edge, stat) for stat in (ERRORS, RECEIVED, REQUESTS)
        )
    if not errors or not received:
        return None
    if received < errors * HEADERS_LIMIT_KB * 1024:
        return False
    return True if errors > MOSTLY * requests else None


def _since_start(facts: Facts, edge: EdgeFacts, stat: str) -> float:
    """Totals: no evidence that anything fails now, but what came with each failure of those that the log shows."""
    return sum(
        facts.gauge(proxy, "cluster", name, stat) or 0
        for proxy in edge.server_proxies
        for name in {s.cluster for s in edge.on("server") if at_application(s)}
    )


def sure(found: Nonsense) -> Met:
    """As sure as what was seen makes it: without the bytes, big headers and nonsense look the same."""
    if found.decided:
        return found.found
    return msgspec.structs.replace(found.found, confidence=min(found.found.confidence, LIKELY))
