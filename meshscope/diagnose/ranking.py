"""Merges claims into findings, and decides between claims that explain the same symptoms."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable

import msgspec

from meshscope.model.findings import SEVERITIES, CausedBy, Edge, Evidence, Finding, RuledOut, Severity
from meshscope.rules.rule import Claim

CLEARLY_BETTER = 0.15
"""A claim gives way to another for the same symptoms when its confidence is lower by this much; nearer ones both stay."""


STALE_S = 60.0
"""A failure last seen longer ago than this gives way to one that goes on."""


class Candidate(msgspec.Struct, frozen=True):
    """All claims of one rule about one subject and discriminator: one possible root cause."""

    claims: tuple[Claim, ...]
    explains: frozenset[str]
    follows: frozenset[str]
    """Symptoms that follow from those it explains."""
    edges: tuple[Edge | str, ...]
    impact: int
    """How many failing requests it accounts for."""
    stale: bool
    """Whether all it explains was last seen a while ago: what fails at this moment goes first."""

    @property
    def best(self) -> Claim:
        return max(self.claims, key=lambda claim: (claim.confidence, len(claim.evidence)))

    @property
    def severity(self) -> Severity:
        return min((c.severity or c.rule.severity for c in self.claims), key=SEVERITIES.index)

    @property
    def confidence(self) -> float:
        return self.best.confidence


class Symptoms(msgspec.Struct, frozen=True):
    """What ranking needs to know of the symptoms: how many requests, how long ago the last, where, following from which."""

    counts: dict[str, int]
    ages_s: dict[str, float]
    edges: dict[str, Edge]
    consequences: dict[str, frozenset[str]]


def candidates(claims: Iterable[Claim], symptoms: Symptoms) -> list[Candidate]:
    """The possible root causes, each with everything that it accounts for."""
    groups: dict[tuple[str, str, str], list[Claim]] = defaultdict(list)
    for claim in claims:
        groups[(claim.rule.code, str(claim.subject), claim.discriminator)].append(claim)
    return [_candidate(tuple(group), symptoms) for group in groups.values()]


def _candidate(claims: tuple[Claim, ...], symptoms: Symptoms) -> Candidate:
    explains = frozenset(symptom for claim in claims for symptom in claim.explains)
    follows = _following(explains, symptoms.consequences)
    edges: dict[Edge | str, None] = {}
    for claim in claims:
        edges.update(dict.fromkeys(claim.affected))
    for symptom in sorted(explains | follows):
        if symptom in symptoms.edges:
            edges.setdefault(symptoms.edges[symptom])
    impact = sum(symptoms.counts.get(symptom, 0) for symptom in explains | follows)
    ages = [symptoms.ages_s[symptom] for symptom in explains if symptom in symptoms.ages_s]
    return Candidate(claims, explains, follows, tuple(edges), impact, bool(ages) and min(ages) > STALE_S)


def _following(explained: frozenset[str], consequences: dict[str, frozenset[str]]) -> frozenset[str]:
    """The symptoms all of whose own causes are explained, transitively."""
    found: set[str] = set()
    grew = True
    while grew:
        grew = False
        for symptom, sources in consequences.items():
            if symptom not in found and symptom not in explained and sources and sources <= explained | found:
                found.add(symptom)
                grew = True
    return frozenset(found)


def decide(found: list[Candidate]) -> tuple[list[Candidate], list[RuledOut]]:
    """The candidates that stand, ranked, and those that a better one makes unnecessary."""
    standing: list[Candidate] = []
    ruled_out: list[RuledOut] = []
    for candidate in sorted(found, key=_strength):
        rival = _better(candidate, standing)
        if rival is None:
            standing.append(candidate)
        else:
            why = f"{rival.best.rule.cause} explains the same requests, with better evidence: {rival.best.explanation}"
            ruled_out.append(RuledOut(candidate.best.rule.cause, why))
    return sorted(standing, key=_rank), ruled_out


def _strength(candidate: Candidate) -> tuple[float, int, int, str]:
    return (
        -round(candidate.confidence, 2),
        candidate.best.stage,
        -candidate.impact,
        candidate.best.rule.code,
    )


def _rank(candidate: Candidate) -> tuple[int, bool, float, int, int, str, str]:
    return (
        SEVERITIES.index(candidate.severity),
        candidate.stale,
        -round(candidate.confidence, 1),
        -candidate.impact,
        candidate.best.stage,
        candidate.best.rule.code,
        str(candidate.best.subject),
    )


def _better(candidate: Candidate, standing: list[Candidate]) -> Candidate | None:
    """A stronger candidate that leaves this one nothing to explain."""
    if not candidate.explains or candidate.severity == "info":
        return None
    accounted: set[str] = set()
    first: Candidate | None = None
    for rival in standing:
        if rival.severity == "info" or rival.confidence < candidate.confidence + CLEARLY_BETTER:
            continue
        shared = candidate.explains & (rival.explains | rival.follows)
        if shared:
            accounted |= shared
            first = first or rival
    return first if accounted >= candidate.explains else None


def finding(candidate: Candidate, cluster: str) -> Finding:
    """The candidate as it is told to people."""
    best = candidate.best
    rule = best.rule
    return Finding(
        code=rule.code,
        cause=rule.cause,
        severity=candidate.severity,
        confidence=round(candidate.confidence, 2),
        subject=str(best.subject),
        affected=candidate.edges,
        title=best.title or rule.title,
        explanation=best.explanation,
        caused_by=_caused_by(candidate.claims),
        evidence=_unique(candidate.claims),
        fix=tuple(dict.fromkeys(fix for claim in (best, *candidate.claims) for fix in claim.fix))[
            :MOST_FIXES
        ],
        also_known_as=rule.also_known_as,
        fingerprint=fingerprint(rule.code, cluster, str(best.subject), best.discriminator),
    )


MOST_EVIDENCE = 8
MOST_FIXES = 4


def _unique(claims: tuple[Claim, ...]) -> tuple[Evidence, ...]:
    ordered = sorted(claims, key=lambda claim: -claim.confidence)
    return tuple(dict.fromkeys(evidence for claim in ordered for evidence in claim.evidence))[:MOST_EVIDENCE]


def _caused_by(claims: tuple[Claim, ...]) -> tuple[CausedBy, ...]:
    """What made it come to the cause; told alike on several edges it is one, with the first edges' evidence."""
    merged: dict[tuple[str, str], CausedBy] = {}
    for claim in claims:
        for cause in claim.caused_by:
            key = (cause.cause, cause.explanation)
            known = merged.get(key, CausedBy(cause.cause, cause.explanation))
            evidence = tuple(dict.fromkeys((*known.evidence, *cause.evidence)))[:MOST_FIXES]
            merged[key] = CausedBy(cause.cause, cause.explanation, evidence)
    return tuple(merged.values())


def fingerprint(code: str, cluster: str, subject: str, discriminator: str) -> str:
    """What history, diffs and suppression hang on; never of message text."""
    text = "\0".join((code, cluster, subject, discriminator))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
