"""Writes a report as Markdown, to be pasted into an incident's channel or ticket."""

from __future__ import annotations

import re
from collections.abc import Iterator

from meshscope.model.findings import Evidence, Finding, Fix, Report
from meshscope.report import words
from meshscope.report.safe import harmless

_FEW = 10

# What starts markup within a line: brackets for links and images; an underscore inside a word is none.
_MARKUP = re.compile(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])")
# What starts markup at the beginning of a line: headings, lists, quotes, rules.
_LEADING = re.compile(r"^(\d{1,9})?([#+\-=>.)])")
_LINK = re.compile(r"(?i)(https?|ftp)://|\b(www)\.")


def render(report: Report) -> str:
    """A report as Markdown (CommonMark); nothing in it links, embeds or is HTML."""
    return "\n".join(_lines(harmless(report))).rstrip("\n") + "\n"


def prose(text: str) -> str:
    """Text that Markdown shows as it stands."""
    return "\n".join(map(_prose_line, text.split("\n")))


def code(text: str) -> str:
    """Text as code within a line, whatever backticks it holds."""
    fence = "`" * (_longest_run(text) + 1)
    padding = " " if text.startswith(("`", " ")) or text.endswith(("`", " ")) or not text else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def fenced(text: str, language: str = "") -> str:
    """Text as a block of code, whatever fences it holds."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _prose_line(line: str) -> str:
    escaped = _MARKUP.sub(lambda found: f"\\{found[0]}", line.strip())
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;")
    escaped = _LINK.sub(lambda found: f"{found[1]}:\\//" if found[1] else f"{found[2]}\\.", escaped)
    return _LEADING.sub(lambda found: f"{found[1] or ''}\\{found[2]}", escaped)


def _lines(report: Report) -> Iterator[str]:
    yield f"## {prose(words.verdict(report))}"
    yield ""
    yield prose(", ".join(filter(None, (words.tally(report), f"as of {report.captured_at}"))))
    if not report.findings and (scope := words.scope(report)):
        yield ""
        yield f"Looked at: {prose(scope)}"
    for position, finding in enumerate(report.findings):
        yield ""
        yield from _finding(finding, titled=position > 0 or finding.severity == "info")
    yield from _list("Ruled out", [f"{code(item.cause)}: {prose(item.why)}" for item in report.ruled_out])
    unknown = [
        f"{prose(item.what)}: {prose(item.why)}{f' → {prose(item.remedy)}' if item.remedy else ''}"
        for item in report.unknown
    ]
    yield from _list("Could not see", unknown)


def _finding(finding: Finding, *, titled: bool) -> Iterator[str]:
    if titled:
        yield f"### {prose(finding.title)}"
        yield ""
    yield (
        f"**{prose(finding.severity)}** {code(finding.cause)} ({prose(finding.code)}),"
        f" {words.confidence(finding)}. Subject: {code(finding.subject)}"
    )
    shown = [code(str(affected)) for affected in finding.affected[:_FEW]]
    more = words.remaining(len(finding.affected), len(shown))
    yield from _list("Affects", [*shown, *filter(None, [more])])
    yield ""
    yield prose(finding.explanation)
    yield from _list("Evidence", _evidence_items(finding.evidence))
    for reason in finding.caused_by:
        yield ""
        yield f"**Caused by** {code(reason.cause)}: {prose(reason.explanation)}"
        yield from _list("", _evidence_items(reason.evidence))
    if finding.fix:
        yield from _fixes(finding.fix)
    if finding.also_known_as:
        yield ""
        yield f"Also known as {', '.join(map(prose, finding.also_known_as))}"


def _evidence_items(evidence: tuple[Evidence, ...]) -> list[str]:
    """One item of a list for each piece of evidence: source, where in it, quote."""
    return [
        ": ".join(filter(None, (_place(item), code(item.quote) if item.quote else ""))) for item in evidence
    ]


def _place(item: Evidence) -> str:
    return " ".join(code(part) for part in (item.source, item.where) if part)


def _fixes(fixes: tuple[Fix, ...]) -> Iterator[str]:
    yield ""
    yield "**Fix**"
    for fix in fixes:
        yield ""
        yield (
            prose(fix.text)
            if fix.kind == "advice"
            else fenced(fix.text, "sh" if fix.kind == "command" else "")
        )
        if fix.effect:
            yield ""
            yield prose(fix.effect)


def _list(title: str, items: list[str]) -> Iterator[str]:
    if not items:
        return
    yield ""
    if title:
        yield f"**{title}**"
        yield ""
    for item in items:
        yield f"- {item.replace(chr(10), ' ')}"
