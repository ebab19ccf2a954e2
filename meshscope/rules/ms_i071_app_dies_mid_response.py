"""The application breaks off in the middle of an answer.

Symptom
    The caller sees status 200 and a body that ends too early. Both sidecars log the status with `UPE` (HTTP/1.1), `UR`
    or `UC` and `upstream_reset_after_response_started`.

Why it fails
    The application crashes or is killed (out of memory, a deadline) after it has sent the headers, or promises a longer
    `content-length` than it sends.

How meshscope knows
    The server's sidecar says that its application broke off after the response had started. A retry can't help: the
    headers were sent on already.

Fix
    Look into the application's log and its restarts.

References
    Envoy: response flags, response code details.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.facts.symptoms import Symptom
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.rules.claims import PREDICTED
from meshscope.rules.facts import EdgeFacts, Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.application import (
    Met,
    at_application,
    caller_lines,
    inbound_moved,
    met,
    offers_tls,
    told,
    total,
    unsure,
)

RULE = Rule(
    code="MS-I071",
    cause="app-dies-mid-response",
    title="The application breaks off in the middle of an answer",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)

BROKEN_OFF = ("upstream_cx_destroy_remote_with_active_rq",)
"""Together with upstream_cx_protocol_error: the body was shorter than promised."""


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        found = _seen(edge)
        if found is not None:
            yield from told(
                RULE,
                edge,
                found,
                title=f"{edge.edge}: the application breaks off in the middle of an answer",
                explanation=f"the application behind {edge.edge.destination} sends headers and part of the body, then "
                "the connection ends"
                + ("; the server's proxy wasn't read: it may have died itself" if found.guessed else ""),
                fix=(
                    Fix(
                        "advice",
                        f"look into the application's log of {edge.edge.destination} and for restarts "
                        "(kubectl get pods: RESTARTS, OOMKilled)",
                    ),
                ),
                ruled_out=(RuledOut("app-closes-connection", "the answer had begun"),),
            )


def _seen(edge: EdgeFacts) -> Met | None:
    theirs = caller_lines(edge, _broken_off)
    ours = met(edge, lines=lambda s: at_application(s) and _broken_off(s), counters=())
    if ours is not None:
        return Met((*ours.symptoms, *(theirs.symptoms if theirs else ())), ours.moved, ours.confidence)
    if not edge.server_seen and (moved := _counted(edge)) is not None:
        return moved
    if theirs is None or edge.server_seen:
        return None
    return unsure(theirs, at_most=PREDICTED) if offers_tls(edge) else theirs


def _counted(edge: EdgeFacts) -> Met | None:
    """Counters only: connections that ended while an answer was under way, with the answer's status counted as good."""
    if edge.client_seen:
        return None
    at_server = inbound_moved(edge, "upstream_cx_protocol_error", *BROKEN_OFF)
    moved = at_server or edge.client_moved("upstream_cx_protocol_error", *BROKEN_OFF)
    if len({m.stat for m in moved}) < 2:
        return None
    failed = inbound_moved(edge, "upstream_rq_502") or edge.client_moved("upstream_rq_502", "upstream_rq_503")
    if total(failed) >= total(m for m in moved if m.stat in BROKEN_OFF):
        return None
    stats = {"upstream_cx_protocol_error", *BROKEN_OFF, "upstream_rq_rx_reset", "upstream_rq_tx_reset"}
    counted = tuple(s for s in edge.on("client") if s.stat is not None and s.stat[2] in stats)
    return Met(counted, moved, 0.85 if at_server or not offers_tls(edge) else PREDICTED)


def _broken_off(symptom: Symptom) -> bool:
    return "upstream_reset_after_response_started" in symptom.details and not symptom.has("DC")
