"""Requests fail, and no rule explains them.

Symptom
    A proxy's log or counters show failing requests.

Why it fails
    That isn't known: what could be read fits none of the causes that meshscope knows, or what would tell them apart
    couldn't be read.

How meshscope knows
    It only knows that they fail. Any rule that explains the same requests takes this one's place.

Fix
    Look at the quoted line, at what else couldn't be seen, and at the other side's proxy; capture a bundle with both
    proxies' logs and two samples of their statistics, and report the case.

References
    Envoy: access log response flags and response code details.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.facts.symptoms import Symptom
from meshscope.model.findings import Fix, Unknown
from meshscope.rules.facts import EdgeFacts, Facts, symptom_evidence
from meshscope.rules.rule import Claim, Rule
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-C001",
    cause="unexplained-failure",
    title="Requests fail for a reason that meshscope doesn't know",
    severity="error",
    mesh="common",
    inputs=("symptoms",),
    since="0.1.0",
    verified_on=("Envoy 1.40", "Istio 1.32"),
)

CONFIDENCE = 0.2
"""Low enough that any rule with an explanation, even a guess, takes its place."""


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        for symptom in edge.root_symptoms:
            if not (symptom.passed_on_client_error and edge.server_seen):
                yield _unexplained(edge, symptom)


def _unexplained(edge: EdgeFacts, symptom: Symptom) -> Claim:
    return Claim(
        rule=RULE,
        subject=edge.client_subject,
        stage=Stage.APPLICATION,
        discriminator=str(edge.edge),
        title=f"{edge.edge}: requests fail ({in_words(symptom)}), and no rule explains why",
        explanation=f"{symptom.count} of {symptom.of or 'an unknown number of'} requests fail: {in_words(symptom)}",
        evidence=(symptom_evidence(symptom),),
        fix=(
            Fix(
                "command",
                "meshscope capture -o failing.tar.zst",
                "writes what can be read now, with two samples of statistics",
            ),
        ),
        confidence=CONFIDENCE,
        affected=(edge.edge,),
        explains=(symptom.id,),
    )


def in_words(symptom: Symptom) -> str:
    """How it fails, shortly: status, flags, details; or the counter."""
    if symptom.stat is not None:
        return f"{symptom.stat[2]} +{symptom.count}"
    parts = (str(symptom.code), ",".join(sorted(symptom.flags)), symptom.details, symptom.termination)
    return " ".join(part for part in parts if part)
