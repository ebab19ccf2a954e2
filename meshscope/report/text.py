"""Writes a report for a terminal, short enough to read at three in the morning."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import TypeVar

from meshscope.model.findings import CausedBy, Evidence, Finding, Fix, Report
from meshscope.report import words
from meshscope.report.safe import harmless, shorten
from meshscope.report.styled import Line, paint

T = TypeVar("T")

_LABEL = 11
_SEVERITY_STYLE = {"error": "bold red", "warning": "bold yellow", "info": "bold blue"}
_FEW = 5
_FEW_EVIDENCE = 4
_FEW_RULED_OUT = 6


def render(report: Report, *, width: int = 80, color: bool = False, verbose: bool = False) -> str:
    """A report as text: the verdict in the first line. `verbose` leaves nothing out and shortens no quote."""
    return paint(_Text(harmless(report), width, verbose).lines(), color)


class _Text:
    """Lays a harmless report out in lines."""

    def __init__(self, report: Report, width: int, verbose: bool) -> None:
        self.report = report
        self.width = max(width, 40)
        self.verbose = verbose

    def lines(self) -> Iterator[Line]:
        yield from self._verdict()
        for position, finding in enumerate(self.report.findings):
            yield []
            if finding.severity == "info" and not self.verbose:
                yield from self._notice(finding)
            else:
                yield from self._finding(finding, titled=position > 0 or finding.severity == "info")
        yield from self._ruled_out()
        yield from self._unknown()

    def _verdict(self) -> Iterator[Line]:
        verdict = words.verdict(self.report)
        failing = bool(self.report.findings) and self.report.findings[0].severity != "info"
        yield [(verdict, "bold red" if failing else "bold green")]
        summary = ", ".join(filter(None, (words.tally(self.report), f"as of {self.report.captured_at}")))
        yield [(summary, "dim")]
        if not failing and (scope := words.scope(self.report)):
            yield from self._labelled("looked at", scope)

    def _notice(self, finding: Finding) -> Iterator[Line]:
        yield [("info", _SEVERITY_STYLE["info"]), (f"  {finding.code} {finding.cause}", "bold")]
        yield from self._wrapped(finding.title)
        yield from self._affected(finding)

    def _finding(self, finding: Finding, *, titled: bool) -> Iterator[Line]:
        yield [
            (finding.severity, _SEVERITY_STYLE.get(finding.severity, "bold")),
            (f"  {finding.code} {finding.cause}", "bold"),
            (f" · {words.confidence(finding)}", ""),
        ]
        if titled:
            yield [(f"  {finding.title}", "bold")]
        yield from self._affected(finding)
        yield from self._labelled("subject", finding.subject)
        yield from self._labelled("why", finding.explanation)
        yield from self._evidence(finding.evidence)
        yield from self._fixes(finding.fix)
        for reason in finding.caused_by:
            yield from self._caused_by(reason)
        if finding.also_known_as:
            yield from self._labelled("known as", ", ".join(finding.also_known_as))

    def _affected(self, finding: Finding) -> Iterator[Line]:
        shown = finding.affected if self.verbose else finding.affected[:_FEW]
        more = words.remaining(len(finding.affected), len(shown))
        for label, text in _first_labelled("affects", [*map(str, shown), *filter(None, [more])]):
            yield [(f"  {label:<{_LABEL}}", "dim"), (text, "")]

    def _evidence(self, evidence: tuple[Evidence, ...]) -> Iterator[Line]:
        shown = evidence if self.verbose else evidence[:_FEW_EVIDENCE]
        for label, item in _first_labelled("evidence", shown):
            yield [(f"  {label:<{_LABEL}}", "dim"), (_place(item), "")]
            if item.quote:
                quote = item.quote if self.verbose else shorten(item.quote, 3 * (self.width - _LABEL - 4))
                yield from self._indented(quote, _LABEL + 4, "italic")
        if more := words.remaining(len(evidence), len(shown)):
            yield [(f"  {'':<{_LABEL}}", ""), (f"{more} (--verbose shows all)", "dim")]

    def _fixes(self, fixes: tuple[Fix, ...]) -> Iterator[Line]:
        for label, fix in _first_labelled("fix", fixes):
            if fix.kind == "advice":
                yield from self._labelled(label, fix.text)
            else:
                yield from self._pasteable(label, fix.text)
            if fix.effect:
                yield from self._indented(fix.effect, _LABEL + 4, "dim")

    def _pasteable(self, label: str, text: str) -> Iterator[Line]:
        """A command on one line; several lines at the margin, or a here-document would never end."""
        lines = text.rstrip("\n").split("\n")
        if len(lines) == 1:
            yield [(f"  {label:<{_LABEL}}", "dim"), (lines[0], "green")]
            return
        if label:
            yield [(f"  {label}", "dim")]
        yield from ([(line, "green")] for line in lines)

    def _caused_by(self, reason: CausedBy) -> Iterator[Line]:
        yield from self._labelled("caused by", f"{reason.cause}: {reason.explanation}")
        yield from self._evidence(reason.evidence)

    def _ruled_out(self) -> Iterator[Line]:
        everything = self.report.ruled_out
        if not everything:
            return
        yield []
        yield [("ruled out", "bold")]
        shown = everything if self.verbose else everything[:_FEW_RULED_OUT]
        for item in shown:
            yield from self._hanging(f"{item.cause}: {item.why}")
        if more := words.remaining(len(everything), len(shown)):
            yield [(f"  {more} (--verbose shows all)", "dim")]

    def _unknown(self) -> Iterator[Line]:
        everything = self.report.unknown
        if not everything:
            return
        yield []
        yield [("could not see", "bold")]
        shown = everything if self.verbose else everything[:_FEW]
        for item in shown:
            yield from self._hanging(f"{item.what}: {item.why}")
            if item.remedy:
                yield from self._indented(f"→ {item.remedy}", 4)
        if more := words.remaining(len(everything), len(shown)):
            yield [(f"  {more} (--verbose shows all)", "dim")]

    def _labelled(self, label: str, text: str) -> Iterator[Line]:
        lines = self._fill(text, self.width - _LABEL - 2)
        for name, line in _first_labelled(label, lines):
            yield [(f"  {name:<{_LABEL}}", "dim"), (line, "")]

    def _wrapped(self, text: str) -> Iterator[Line]:
        yield from self._indented(text, 2)

    def _hanging(self, text: str) -> Iterator[Line]:
        for position, line in enumerate(self._fill(text, self.width - 4)):
            yield [("  " if position == 0 else "    ", ""), (line, "")]

    def _indented(self, text: str, indent: int, style: str = "") -> Iterator[Line]:
        for line in self._fill(text, self.width - indent):
            yield [(" " * indent, ""), (line, style)]

    def _fill(self, text: str, width: int) -> list[str]:
        """Lines of at most `width`; a longer word stays whole, as names are there to be copied."""
        lines: list[str] = []
        for paragraph in text.split("\n"):
            lines += textwrap.wrap(paragraph, width, break_long_words=False, break_on_hyphens=False)
        return lines


def _place(item: Evidence) -> str:
    """Source and where in it; a path that names the proxy already says the source."""
    proxy = item.source.removeprefix("proxy ")
    if item.where.startswith(f"proxies/{proxy}/"):
        return item.where
    return " · ".join(filter(None, (item.source, item.where)))


def _first_labelled(label: str, items: Iterable[T]) -> Iterator[tuple[str, T]]:
    """Each item with the label for the first and an empty one for those below it."""
    for position, item in enumerate(items):
        yield (label if position == 0 else ""), item
