"""Requests that a proxy couldn't take for HTTP: it answers them itself before it knows what was asked for."""

from __future__ import annotations

from meshscope.envoy.protocols import HEADERS_LIMIT_KB
from meshscope.facts.symptoms import Symptom
from meshscope.rules.claims import COUNTED, SEEN, Matches
from meshscope.rules.facts import EdgeFacts, Moved
from meshscope.rules.shared.application import Met, total

ERRORS = "downstream_cx_protocol_error"
RECEIVED = "downstream_cx_rx_bytes_total"


def too_big(symptom: Symptom) -> bool:
    """`http1.headers_too_large`, `http2.…`, `request_headers_too_large`, and 431 passed on by the caller's proxy."""
    return "headers_too_large" in symptom.details or (symptom.code == 431 and bool(symptom.flags))


def not_http(symptom: Symptom) -> bool:
    return symptom.has("DPE") and not too_big(symptom)


def rejected_requests(edge: EdgeFacts, lines: Matches, *, big: bool) -> Met | None:
    """What a proxy refused of this edge's requests, and by which of the two sides' word.

    `big`: whether it is about headers that are too big. Where only counters are there, the bytes that came tell.
    """
    found = [s for s in edge.symptoms if s.from_log and lines(s)]
    if found:
        passed_on = [s for s in edge.on("client") if big and s.code == 431 and s not in found]
        return Met((*found, *passed_on), (), SEEN)
    for moved, bytes_, seen in _counted(edge):
        if moved and not seen:
            many = bool(bytes_) and total(bytes_) >= total(moved) * HEADERS_LIMIT_KB * 1024
            return Met((), moved, COUNTED) if many == big else None
    return None


def _counted(edge: EdgeFacts) -> list[tuple[tuple[Moved, ...], tuple[Moved, ...], bool]]:
    """Protocol errors and received bytes of both sides, and whether that side's log would have told."""
    return [
        (edge.client_http_moved(ERRORS), edge.client_http_moved(RECEIVED), edge.client_seen),
        (_inbound(edge, ERRORS), _inbound(edge, RECEIVED), edge.server_seen),
    ]


def _inbound(edge: EdgeFacts, stat: str) -> tuple[Moved, ...]:
    return tuple(m for m in edge.server_moved("http", stat) if m.name.startswith("inbound"))
