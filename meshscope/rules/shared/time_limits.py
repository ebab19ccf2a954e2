"""What the rules about time limits share: a limit read from the caller's route, or presumed from what the server saw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median

from meshscope.envoy.config_dump import seconds
from meshscope.istio.time_limits import Intended, Limit, intended_limits
from meshscope.model.findings import Evidence, Fix
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import PREDICTED, Shown, claims, shown_by
from meshscope.rules.facts import EdgeFacts, Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.walk.hops import Stage

SLACK_MS = 50.0
"""The server's proxy gets a request some time after the caller's, and notices its end some time after it."""


def owner_of(facts: Facts, edge: EdgeFacts, limit: Limit, held: str) -> ObjectRef | None:
    """The object that sets a limit which the caller's proxy holds (in Envoy's spelling)."""
    found = intended_limits(facts.objects, edge.host, limit)
    return next((intended.owner for intended in found if intended.seconds == seconds(held)), None)


def presumed(
    rule: Rule, facts: Facts, edge: EdgeFacts, limit: Limit, fix: Callable[[ObjectRef | None, str], Fix]
) -> Iterator[Claim]:
    """The claim for an edge of which only the server's side was seen: its peer leaves after about the limit's time.

    The caller's application may leave after that time just as well: this is never more than a prediction.
    """
    if edge.client_seen or not edge.server_seen:
        return
    left = shown_by(edge, server=lambda s: s.has("DC"))
    for intended in intended_limits(facts.objects, edge.host, limit):
        if left and _fits(left, intended):
            yield from _claim(rule, edge, left, intended, fix)
            return


def _fits(left: Shown, intended: Intended) -> bool:
    took = [e.duration_ms for s in left.symptoms for e in s.entries if e.duration_ms is not None]
    return bool(took) and abs(median(took) - intended.seconds * 1000) <= SLACK_MS + 100 * intended.seconds


def _claim(
    rule: Rule, edge: EdgeFacts, left: Shown, intended: Intended, fix: Callable[[ObjectRef | None, str], Fix]
) -> Iterator[Claim]:
    for claim in claims(
        rule,
        edge,
        left,
        stage=Stage.ROUTE,
        subject=intended.owner,
        discriminator=edge.host,
        title=f"{edge.edge}: the caller's proxy seems to leave after the {intended.written} of {intended.owner}",
        explanation=f"the connection from {edge.edge.source} ends after about {intended.written} without an answer, which is what "
        f"{intended.owner} tells the caller's proxy to do; that proxy wasn't read, so its application may have left instead",
        fix=(fix(intended.owner, edge.host),),
        at_most=PREDICTED,
    ):
        where = Evidence("kubernetes", str(intended.owner), f"{intended.limit} {intended.written}")
        yield claim.also(where)
