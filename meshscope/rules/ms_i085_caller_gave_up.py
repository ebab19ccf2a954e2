"""The calling application hangs up before the answer comes.

Symptom
    The caller reports a timeout of its own; its sidecar and the server's log `0 DC downstream_remote_disconnect`.

Why it fails
    The application's client library has a timeout shorter than the answer takes. No proxy refused anything: the first in
    the line to leave was the caller.

How meshscope knows
    `DC` is logged already at the caller's own sidecar, whose downstream is the application itself, and no proxy's timeout
    explains it.

Fix
    Raise the client library's timeout, or make the server faster. Retries in the application repeat the slow work.

References
    Envoy: response flags, response code details.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import Fix, Unknown
from meshscope.rules.claims import LIKELY, PREDICTED, Shown, claims, shown_by
from meshscope.rules.facts import EdgeFacts, Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I085",
    cause="caller-gave-up",
    title="The caller hangs up before the answer comes",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "counters"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        yield from _check(edge)


UNSEEN = "; only the server's side was seen, so the caller's proxy may have been the one to leave"


def _check(edge: EdgeFacts) -> Iterable[Claim | Unknown]:
    roots = {symptom.id for symptom in edge.root_symptoms}
    shown = shown_by(
        edge,
        client=lambda s: s.has("DC") and s.id in roots,
        server=lambda s: s.has("DC") and (s.id in roots or edge.client_seen),
        client_http_stats=("downstream_rq_rx_reset", "downstream_cx_destroy_remote_active_rq"),
    )
    if any(s.side == "client" for s in shown.symptoms):
        yield from _left(edge, shown)
    elif edge.client_log_missing:
        yield from _counted(edge, shown)
    elif shown and not edge.client_seen:
        yield from _left(edge, shown, at_most=LIKELY, seen=UNSEEN)
        yield Unknown(
            f"who ended the requests of {edge.edge}",
            "only the server's side was seen: its peer left, which may be the calling application, or the caller's proxy "
            "after one of its own time limits",
            f"read the proxy of {edge.edge.source}: its log says DC for the application, UT or SI for a limit of its own",
        )


def _counted(edge: EdgeFacts, shown: Shown) -> Iterable[Claim]:
    """Without the caller's log: its application left connections with requests, and so the edge's own were given up.

    A limit that ran out at the proxy, or the server, would have moved other counters; the edge's symptoms are those.
    """
    given_up = edge.client_moved("upstream_cx_destroy_local_with_active_rq", "upstream_rq_tx_reset")
    counted = tuple(s for s in edge.symptoms if s.stat is not None)
    other = any(s.stat is not None and s.stat[2] != "upstream_rq_tx_reset" for s in counted)
    left = any(hint.stat == "downstream_cx_destroy_remote_active_rq" for hint in shown.hints)
    if given_up and left and not other:
        seen = "; the caller's log is missing, so this is told by counters that count its other calls of the port too"
        yield from _left(
            edge, Shown(counted, given_up, blind=False, hints=shown.hints), at_most=PREDICTED, seen=seen
        )


def _left(edge: EdgeFacts, shown: Shown, *, at_most: float = 1.0, seen: str = "") -> Iterable[Claim]:
    took = [e.duration_ms for s in shown.symptoms for e in s.entries if e.duration_ms is not None]
    after = f" after about {sorted(took)[len(took) // 2]} ms" if took else ""
    yield from claims(
        RULE,
        edge,
        shown,
        telling=True,
        stage=Stage.CAPTURE,
        subject=edge.client_subject,
        discriminator=edge.host,
        title=f"{edge.edge}: the caller hangs up{after}",
        explanation=f"the application of {edge.edge.source} closes the connection{after}, before {edge.edge.destination} has "
        f"answered; no proxy's timeout ran out{seen}",
        fix=(
            Fix(
                "advice",
                f"raise the timeout of {edge.edge.source}'s HTTP client, or find out why {edge.edge.destination} is slow",
                "requests hold their connections longer",
            ),
        ),
        at_most=at_most,
    )
