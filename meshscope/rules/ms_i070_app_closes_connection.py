"""The application closes connections without an answer.

Symptom
    The caller gets 503; the server's sidecar logs `UC` with `upstream_reset_before_response_started{connection_termination}`
    on its inbound cluster, the caller's sidecar `503 via_upstream`. Where the server has no sidecar, the caller's logs the `UC`.

Why it fails
    The application crashes on the request, closes idle connections sooner than the sidecar does (a keep-alive timeout
    shorter than Envoy's), or refuses what it was sent by hanging up.

How meshscope knows
    The server's sidecar says that its own application closed the connection. Three look-alikes are told apart:
    plaintext to a STRICT server and a rejected client certificate end at the server's sidecar, which the walk through
    both proxies' configuration predicts.

Fix
    Look into the application's log for a crash. If it only happens on idle connections, let the application keep them
    longer than its clients do.

References
    Envoy: response flags, response code details; Istio: "Common problems, 503 errors".
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.envoy.local_replies import reset_bodies
from meshscope.facts.symptoms import Symptom
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.rules.facts import EdgeFacts, Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.application import (
    Met,
    at_application,
    caller_lines,
    inbound_moved,
    met,
    offers_tls,
    tls_fails,
    told,
    unsure,
)

RULE = Rule(
    code="MS-I070",
    cause="app-closes-connection",
    title="The application closes connections without an answer",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)

CLOSED = ("upstream_cx_destroy_remote_with_active_rq",)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        found = _by_server(edge) or _by_caller(edge)
        if found is not None:
            yield from told(
                RULE,
                edge,
                found,
                title=f"{edge.edge}: the application closes the connection without an answer",
                explanation=f"the application behind {edge.edge.destination} reads the request and closes the connection",
                fix=(_fix(edge),),
                ruled_out=()
                if tls_fails(edge)
                else (
                    RuledOut(
                        "client-plaintext-server-strict", "the two proxies' configuration fits together"
                    ),
                    RuledOut("client-cert-expired", "the two proxies' certificates are good for each other"),
                ),
            )


def _by_server(edge: EdgeFacts) -> Met | None:
    counted = not edge.server_seen and inbound_moved(edge, *CLOSED)
    if counted and (
        inbound_moved(edge, "upstream_cx_protocol_error") or not inbound_moved(edge, "upstream_rq_503")
    ):
        return None  # an answer broke off that had begun, or that was none; or TCP, which ends in this way
    return met(
        edge,
        lines=lambda s: at_application(s) and _closed(s),
        counters=CLOSED,
        bodies=reset_bodies("connection termination"),
    )


def _by_caller(edge: EdgeFacts) -> Met | None:
    """The caller's own `UC`: the application's doing where no sidecar stands before it, else only one of the possible."""
    if tls_fails(edge) or any("filter_chain_not_found" in s.details for s in edge.on("server")):
        return None
    if edge.server_proxies and not edge.server_seen and _server_refuses(edge):
        return None
    found = caller_lines(edge, lambda s: _closed(s) and not s.failure_reason, CLOSED)
    if found is None:
        return None
    if not edge.client_seen and (
        edge.client_moved("upstream_cx_protocol_error") or not edge.client_moved("upstream_rq_503")
    ):
        return None
    return unsure(found) if offers_tls(edge) else found


def _server_refuses(edge: EdgeFacts) -> bool:
    """Whether the server's sidecar itself counts connections that it didn't take."""
    stats = (
        "no_filter_chain_match",
        "downstream_cx_overflow",
        "ssl_fail_verify_error",
        "ssl_connection_error",
    )
    return bool(edge.server_moved("listener", *stats))


def _closed(symptom: Symptom) -> bool:
    before = "upstream_reset_before_response_started" in symptom.details
    return before and (symptom.has("UC") or (symptom.has("UR") and "remote_reset" in symptom.details))


def _fix(edge: EdgeFacts) -> Fix:
    return Fix(
        "advice",
        f"look into the application's log of {edge.edge.destination} at the times of the quoted lines: does it crash, or "
        "does it close idle connections sooner than the sidecar does?",
    )
