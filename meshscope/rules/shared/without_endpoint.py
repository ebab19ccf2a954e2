"""What the rules share whose symptom is `UH`: the caller's cluster has no endpoint that may be chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import msgspec

from meshscope.facts.symptoms import Symptom
from meshscope.model.findings import Evidence, Fix, RuledOut
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import claims, shown_by
from meshscope.rules.facts import EdgeFacts, Facts, Predicted
from meshscope.rules.rule import Claim, Rule
from meshscope.walk.hops import Stage

STATS = ("upstream_cx_none_healthy", "upstream_rq_5xx", "lb_healthy_panic")
"""Counters that move with `UH`; the panic's also where a cluster is merely empty."""


class Words(msgspec.Struct, frozen=True):
    """What a rule says of an edge without usable endpoints."""

    title: str
    explanation: str
    fix: tuple[Fix, ...]
    ruled_out: tuple[RuledOut, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    at_most: float = 1.0
    """The confidence where what was seen fits other causes, too."""


def without_endpoint(
    rule: Rule, facts: Facts, say: Callable[[EdgeFacts, Predicted], Words]
) -> Iterator[Claim]:
    """The claims for the edges whose walk ends at this rule's cause for want of an endpoint."""
    for edge in facts.edges:
        held = {found.hop.object: found for found in edge.predicted(rule.cause)}
        for found in held.values():
            cluster = found.hop.detail.get("cluster", "")
            shown = shown_by(edge, client=partial(_refused, cluster), client_stats=STATS)
            words = say(edge, found)
            for claim in claims(
                rule,
                edge,
                shown,
                predicted=found,
                subject=found.hop.kubernetes or edge.server_subject,
                discriminator=cluster,
                title=words.title,
                explanation=words.explanation,
                fix=words.fix,
                ruled_out=words.ruled_out,
                at_most=words.at_most,
            ):
                yield msgspec.structs.replace(claim, evidence=(*claim.evidence, *words.evidence))


def _refused(cluster: str, symptom: Symptom) -> bool:
    return symptom.has("UH") and symptom.cluster in {"", cluster}


def owner_of_route(found: Predicted) -> ObjectRef | None:
    """The VirtualService behind the route of a branch."""
    hop = found.branch.at(Stage.ROUTE)
    return hop.kubernetes if hop is not None else None
