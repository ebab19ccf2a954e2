"""How a rule turns a predicted decision and what was seen into a claim with an honest confidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from meshscope.facts.symptoms import Symptom
from meshscope.model.findings import CausedBy, Evidence, Fix, RuledOut
from meshscope.model.names import ObjectRef
from meshscope.rules.facts import EdgeFacts, Moved, Predicted, RouteFound, symptom_evidence
from meshscope.rules.rule import Claim, Rule
from meshscope.walk.hops import Hop, Stage

CERTAIN = 0.97
"""A decision read from the deciding proxy, together with its very effect now."""
SEEN = 0.9
"""Its effect now, told by the deciding proxy itself, without the configuration that explains it."""
COUNTED = 0.85
"""A decision read from the deciding proxy, and counters that moved as it would make them."""
PREDICTED = 0.6
"""The configuration makes it so; whether it happens couldn't be observed."""
LIKELY = 0.5
"""What was seen fits this cause and at least one other."""

Matches = Callable[[Symptom], bool]


def _none(_: Symptom) -> bool:
    return False


class Shown(msgspec.Struct, frozen=True):
    """What was seen of a cause's effect on one edge.

    `hints` are counters that moved and that count other edges too: they support a prediction, alone they show nothing.
    `blind`: nobody could have seen the effect (no log, no second sample, or no call was made at all).
    """

    symptoms: tuple[Symptom, ...]
    moved: tuple[Moved, ...]
    blind: bool
    hints: tuple[Moved, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.symptoms or self.moved)

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        return (
            *(symptom_evidence(s) for s in self.symptoms[:4]),
            *(m.evidence for m in (*self.moved[:3], *self.hints[:2])),
        )

    @property
    def explains(self) -> tuple[str, ...]:
        return tuple(symptom.id for symptom in self.symptoms)


def shown_by(
    edge: EdgeFacts,
    *,
    client: Matches = _none,
    server: Matches = _none,
    client_stats: tuple[str, ...] = (),
    client_http_stats: tuple[str, ...] = (),
    server_stats: tuple[tuple[str, str], ...] = (),
    cluster: str = "",
) -> Shown:
    """The symptoms and counters of this edge that a cause would produce.

    `client` and `server` say which log symptoms fit at which side; `client_stats` are counters of the client's
    cluster (they stand for log lines where the client's log is missing), `client_http_stats` counters of its outbound
    connection manager for the edge's port, `server_stats` are (scope, counter) at the server's proxy. `cluster`: only
    this one of the client's clusters (a subset's, say) is meant.
    """
    fitting = [
        symptom
        for symptom in edge.symptoms
        if (symptom.from_log and (client if symptom.side == "client" else server)(symptom))
        or (
            symptom.stat is not None
            and symptom.side == "client"
            and symptom.stat[2] in client_stats
            and cluster in {"", symptom.cluster}
        )
    ]
    moved = [found for found in edge.client_moved(*client_stats) if cluster in {"", found.name}]
    for scope, stat in server_stats:
        moved += edge.server_moved(scope, stat)
    proxies = (*edge.client_proxies, *edge.server_proxies)
    blind = edge.idle or (not edge.observable and all(p.moved is None for p in proxies))
    return Shown(tuple(fitting), tuple(moved), blind, edge.client_http_moved(*client_http_stats))


def decided(hop: Hop) -> tuple[Evidence, ...]:
    """The hop's own evidence, else where the decision stands in the proxy and what it is."""
    if hop.evidence or not hop.object:
        return hop.evidence
    return (Evidence(f"proxy {hop.proxy}" if hop.proxy else "kubernetes", hop.object, hop.decision),)


def confidence(shown: Shown, *, predicted: bool, telling: bool = False) -> float | None:
    """How sure: None means no claim at all, because it would have been seen and wasn't.

    `telling`: the counters have one meaning only, so that they need no prediction.
    """
    if any(symptom.from_log for symptom in shown.symptoms):
        return CERTAIN if predicted else SEEN
    if shown:
        return COUNTED if predicted or telling else LIKELY
    if shown.hints and predicted:
        return COUNTED
    return PREDICTED if predicted and shown.blind else None


def claims(
    rule: Rule,
    edge: EdgeFacts,
    shown: Shown,
    *,
    subject: ObjectRef,
    explanation: str,
    fix: tuple[Fix, ...],
    predicted: Predicted | RouteFound | None = None,
    stage: Stage | None = None,
    title: str = "",
    discriminator: str = "",
    caused_by: tuple[CausedBy, ...] = (),
    ruled_out: tuple[RuledOut, ...] = (),
    at_most: float = 1.0,
    held: Evidence | None = None,
    telling: bool = False,
) -> Iterator[Claim]:
    """The claim that `rule` is the cause on this edge, or nothing where its effect would have been seen and wasn't.

    Without `predicted` a `stage` is needed: the hop at which a cause of this kind decides. `held` is the
    deciding configuration as the proxy holds it, where no walk tells it. `telling`: the counters
    given to `shown_by` mean this cause and no other.
    """
    sure = confidence(shown, predicted=predicted is not None or held is not None, telling=telling)
    if sure is None:
        return
    evidence = (*shown.evidence, *(decided(predicted.hop) if predicted is not None else ()))
    evidence += (held,) if held is not None else ()
    where = predicted.hop.stage if predicted is not None else stage
    yield Claim(
        rule=rule,
        subject=subject,
        stage=where if where is not None else Stage.APPLICATION,
        explanation=explanation,
        evidence=evidence,
        fix=fix,
        confidence=min(sure, at_most),
        affected=(edge.edge,),
        explains=shown.explains,
        discriminator=discriminator,
        caused_by=caused_by,
        ruled_out=ruled_out,
        title=title,
    )
