"""Writes a trace for a terminal: the request's way hop by hop, with all branches and their shares."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import takewhile

from meshscope.report.documents import Trace, TraceBranch, TraceHop, TraceWalk
from meshscope.report.safe import harmless
from meshscope.report.styled import Line, paint
from meshscope.walk.hops import Outcome

_MARKS = {"pass": ("✓", "green"), "fail": ("✗", "bold red"), "unknown": ("?", "bold yellow")}
_STAGE = 19


def render(trace: Trace, *, width: int = 80, color: bool = False) -> str:
    """A trace as text: how the request ends in the first line of each walk, then every hop."""
    return paint(_Trace(max(width, 40)).lines(harmless(trace)), color)


class _Trace:
    """Lays a harmless trace out in lines."""

    def __init__(self, width: int) -> None:
        self.width = width

    def lines(self, trace: Trace) -> Iterator[Line]:
        for position, walk in enumerate(trace.walks):
            if position:
                yield []
            yield from self._walk(walk)

    def _walk(self, walk: TraceWalk) -> Iterator[Line]:
        yield from _summary(walk.branches)
        request = f"{walk.method} {walk.url}".strip()
        yield [(f"{walk.source} → {request}", "bold")]
        for name, value in walk.headers:
            yield [(f"  {name}: {value}", "dim")]
        yield []
        if len(walk.branches) == 1:
            yield from self._hops(walk.branches[0].hops, "", "")
            return
        shared = _shared_hops(walk.branches)
        yield from self._hops(walk.branches[0].hops[:shared], "", "")
        last_proxy = walk.branches[0].hops[shared - 1].proxy if shared else ""
        for position, branch in enumerate(walk.branches):
            is_last = position == len(walk.branches) - 1
            yield [("└─ " if is_last else "├─ ", "dim"), (_percent(branch.share), "bold")]
            yield from self._hops(branch.hops[shared:], "   " if is_last else "│  ", last_proxy)

    def _hops(self, hops: Sequence[TraceHop], margin: str, proxy: str) -> Iterator[Line]:
        for hop in hops:
            if hop.proxy and hop.proxy != proxy:
                proxy = hop.proxy
                yield [(margin, "dim"), (f"at {proxy}", "bold")]
            yield from self._hop(hop, margin)

    def _hop(self, hop: TraceHop, margin: str) -> Iterator[Line]:
        mark, style = _MARKS[hop.outcome]
        decision = f"{hop.decision} ({hop.cause})" if hop.cause else hop.decision
        head: Line = [(f"  {mark} ", style), (f"{hop.stage.replace('_', ' '):<{_STAGE}}", "")]
        for line in _fill(decision, self.width - len(margin) - _STAGE - 4):
            yield [(margin, "dim"), *head, (line, "" if hop.outcome == "pass" else style)]
            head = [(" " * (_STAGE + 4), "")]
        margin_below: Line = [(margin, "dim"), (" " * (_STAGE + 4), "")]
        for by in (hop.object, f"← {hop.kubernetes}" if hop.kubernetes else ""):
            if by:
                yield [*margin_below, (by, "dim")]
        if hop.outcome != "pass":
            for item in hop.evidence:
                place = " · ".join(filter(None, (item.source, item.where)))
                yield [*margin_below, (f"{place}: {item.quote}", "italic")]


def _summary(branches: Sequence[TraceBranch]) -> Iterator[Line]:
    """How the request ends: a line for each way it can, with the share of the requests that do."""
    shares: dict[tuple[Outcome, str], float] = {}
    for branch in branches:
        ending = (branch.outcome, _ending(branch))
        shares[ending] = shares.get(ending, 0.0) + branch.share
    for (outcome, text), share in shares.items():
        mark, style = _MARKS[outcome]
        yield [(f"{mark} {text}" if len(shares) == 1 else f"{mark} {_percent(share)} {text}", style)]


def _ending(branch: TraceBranch) -> str:
    last = next((hop for hop in branch.hops if hop.outcome == branch.outcome), None)
    if branch.outcome == "pass" or last is None:
        return "reaches the application"
    verb = "fails" if branch.outcome == "fail" else "can't be followed"
    return f"{verb} at {last.stage.replace('_', ' ')}: {last.decision}"


def _shared_hops(branches: Sequence[TraceBranch]) -> int:
    """How many hops all branches begin with."""
    columns = zip(*(branch.hops for branch in branches), strict=False)
    return len(list(takewhile(lambda column: all(hop == column[0] for hop in column), columns)))


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _fill(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 30), break_long_words=False, break_on_hyphens=False) or [""]
