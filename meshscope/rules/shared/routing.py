"""What rules of routing share: requests that end inside the caller's own proxy, seen in its log or only counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from meshscope.facts.proxy import Proxy
from meshscope.model.findings import Evidence, Fix, RuledOut, Unavailable
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import COUNTED, LIKELY, PREDICTED, SEEN, Matches, Shown, claims, shown_by
from meshscope.rules.facts import EdgeFacts, Facts, Moved, Predicted
from meshscope.rules.rule import Claim, Rule
from meshscope.sources.source import Part
from meshscope.walk.dead_ends import COUNTERS, DeadEnd
from meshscope.walk.hops import Stage


class Case(msgspec.Struct, frozen=True):
    """One dead end for a rule to put into words. `host` is "" where nobody could see which one was asked for."""

    caller: str
    host: str
    decision: str
    owner: ObjectRef | None = None
    cluster: str = ""
    port: int = 0
    detail: dict[str, str] = {}

    @property
    def called(self) -> str:
        return self.host or "a host"


class Words(msgspec.Struct, frozen=True):
    """What a rule says of a case."""

    title: str
    explanation: str
    fix: tuple[Fix, ...]
    ruled_out: tuple[RuledOut, ...] = ()


Say = Callable[[Case], Words]


def ended(rule: Rule, facts: Facts, fits: Matches, say: Say) -> Iterator[Claim]:
    """The claims for every edge whose requests end so, and for counters that moved where no log tells of edges."""
    for edge in facts.edges:
        shown = shown_by(edge, client=fits, client_http_stats=(COUNTERS[rule.cause],))
        yield from _on_edge(rule, facts, edge, shown, say)
    for proxy in facts.proxies:
        if isinstance(proxy.log, Unavailable):
            yield from _counted(rule, facts, proxy, say)


def _on_edge(rule: Rule, facts: Facts, edge: EdgeFacts, shown: Shown, say: Say) -> Iterator[Claim]:
    held = {found.hop.object: found for found in edge.predicted(rule.cause)}
    for found in held.values():
        owner = owner_of(found)
        case = Case(
            str(edge.client),
            edge.host,
            found.hop.decision,
            owner,
            missing(found),
            edge.port,
            _texts(found.hop.detail),
        )
        words = say(case)
        yield from claims(
            rule,
            edge,
            shown,
            predicted=found,
            subject=owner or edge.server_subject,
            discriminator=case.cluster or edge.host,
            title=words.title,
            explanation=words.explanation,
            fix=words.fix,
            ruled_out=words.ruled_out,
        )
    unread = not any(facts.config(proxy) for proxy in edge.client_proxies)
    if not held and shown.symptoms and (unread or _undecided(rule, edge)):
        decision = (
            "its configuration wasn't read" if unread else "no condition of its routes took the request"
        )
        words = say(Case(str(edge.client), edge.host, decision, port=edge.port))
        yield from claims(
            rule,
            edge,
            shown,
            stage=Stage.ROUTE,
            subject=edge.server_subject,
            discriminator=edge.host,
            title=words.title,
            explanation=words.explanation,
            fix=words.fix,
            at_most=LIKELY if unread else SEEN,
        )


def _undecided(rule: Rule, edge: EdgeFacts) -> bool:
    """Whether a host's routes ask what a log line doesn't tell (headers): that none matched, the log itself says."""
    hops = (branch.at(Stage.ROUTE) for one in edge.walks for branch in one.branches)
    return rule.cause == "no-matching-route" and any(
        hop is not None and hop.outcome == "unknown" for hop in hops
    )


def _counted(rule: Rule, facts: Facts, proxy: Proxy, say: Say) -> Iterator[Claim]:
    """What a counter tells that moved while no log was there: certain where one dead end alone can have moved it."""
    ends = [end for end in facts.dead_ends(proxy) if end.counter == COUNTERS[rule.cause]]
    for moved in facts.moved(proxy, "http", COUNTERS[rule.cause]).values():
        possible = [end for end in ends if moved.name.endswith((f"_{end.port}", f":{end.port}"))]
        several = len({(end.cause, end.host, end.owner) for end in possible}) > 1
        for end in possible:
            if end.cause == rule.cause:
                yield _of_counter(rule, facts, proxy, moved, end, say, LIKELY if several else COUNTED)


def _of_counter(
    rule: Rule, facts: Facts, proxy: Proxy, moved: Moved, end: DeadEnd, say: Say, sure: float
) -> Claim:
    caller = facts.workload(proxy)
    name = f"{caller.name}.{caller.namespace}"
    words = say(Case(name, end.host, end.decision, end.owner, end.cluster, end.port))
    return Claim(
        rule=rule,
        subject=end.owner or caller,
        stage=Stage.ROUTE,
        explanation=words.explanation,
        evidence=(moved.evidence, _held(proxy, end)),
        fix=words.fix,
        confidence=sure,
        affected=(f"{name} → {end.host or 'an unknown host'}:{end.port}",),
        discriminator=end.cluster or end.host,
        ruled_out=words.ruled_out,
        title=words.title,
    )


def unread_callers(rule: Rule, facts: Facts, say: Say) -> Iterator[Claim]:
    """Dead ends in routes that a VirtualService gives to every proxy, while sidecars that use them may be unread."""
    if not facts.unread_sidecars:
        return
    seen: set[tuple[ObjectRef, str]] = set()
    for proxy in facts.proxies:
        for end in facts.dead_ends(proxy):
            if end.cause != rule.cause or end.owner is None or (end.owner, end.cluster) in seen:
                continue
            seen.add((end.owner, end.cluster))
            words = say(Case("a caller", end.host, end.decision, end.owner, end.cluster, end.port))
            yield Claim(
                rule=rule,
                subject=end.owner,
                stage=Stage.CLUSTER,
                explanation=f"{words.explanation}; whether requests fail by it wasn't seen, "
                "as not every sidecar was read",
                evidence=(_held(proxy, end),),
                fix=words.fix,
                confidence=PREDICTED,
                affected=(str(end.owner),),
                discriminator=end.cluster,
                title=words.title,
                severity="warning",
            )


def _held(proxy: Proxy, end: DeadEnd) -> Evidence:
    return Evidence(f"proxy {proxy.id}", f"{proxy.path(Part.CONFIG_DUMP)}: {end.where}", end.decision)


def owner_of(found: Predicted) -> ObjectRef | None:
    """The object behind the hop that decided, else the VirtualService behind the route that led there."""
    route = found.branch.at(Stage.ROUTE)
    return found.hop.kubernetes or (route.kubernetes if route is not None else None)


def missing(found: Predicted) -> str:
    """The cluster that a failing hop at the stage of clusters names."""
    return found.hop.object.removeprefix("cluster ") if found.hop.stage is Stage.CLUSTER else ""


def _texts(detail: dict[str, object]) -> dict[str, str]:
    return {name: value for name, value in detail.items() if isinstance(value, str)}
