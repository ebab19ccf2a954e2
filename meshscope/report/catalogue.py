"""Writes catalogues for a terminal: of rules, of the demo's faults, and what a rule or a cause means."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby

from meshscope.report.documents import Faults, Rules
from meshscope.report.styled import Line, paint
from meshscope.rules.causes import CAUSES
from meshscope.rules.documentation import parse
from meshscope.rules.rule import LoadedRule

_READABLE = 100
"""Prose in longer lines is hard to read."""


def render(document: Rules, *, color: bool = False) -> str:
    """The catalogue as a table: code, severity, cause, title."""
    width = max((len(entry.cause) for entry in document.rules), default=0)
    return paint(
        (
            [
                (f"{entry.code}  ", "bold"),
                (f"{entry.severity:<8}", ""),
                (f"{entry.cause:<{width}}  ", "cyan"),
                (entry.title, ""),
            ]
            for entry in document.rules
        ),
        color,
    )


def faults(document: Faults, *, color: bool = False) -> str:
    """The demo's faults by section; those that can't be made on loopback with the reason."""
    return paint(_faults(document), color)


def _faults(document: Faults) -> Iterator[Line]:
    width = max((len(entry.name) for entry in document.faults), default=0)
    for position, (section, entries) in enumerate(groupby(document.faults, key=lambda entry: entry.section)):
        if position:
            yield []
        yield [(section, "bold")]
        for entry in entries:
            if entry.available:
                yield [(f"  {entry.name:<{width}}  ", "cyan"), (entry.title, "")]
            else:
                yield [(f"  {entry.name:<{width}}  not on loopback: {entry.reason}", "dim")]


def explain(
    causes: Sequence[str], rules: Sequence[LoadedRule], *, width: int = 80, color: bool = False
) -> str:
    """What these causes mean, and the documentation of these rules."""
    return paint(_explanation(causes, rules, min(max(width, 40), _READABLE)), color)


def _explanation(causes: Sequence[str], rules: Sequence[LoadedRule], width: int) -> Iterator[Line]:
    for cause in causes:
        meaning = CAUSES[cause]
        yield [(cause, "bold cyan"), (f"  {meaning.title}.", "")]
        blame = f", on the side of: {meaning.who}" if meaning.who else ""
        yield [(f"{meaning.section}{blame}", "dim")]
        if not any(loaded.rule.cause == cause for loaded in rules):
            yield []
            yield [("No rule of this version finds it.", "")]
    for loaded in rules:
        yield []
        yield from _rule(loaded, width)


def _rule(loaded: LoadedRule, width: int) -> Iterator[Line]:
    rule = loaded.rule
    documentation = parse(loaded.documentation)
    yield [(rule.code, "bold"), (f"  {rule.title} ({rule.severity}, {rule.mesh}, since {rule.since})", "")]
    if rule.also_known_as:
        yield [(f"also known as {', '.join(rule.also_known_as)}", "dim")]
    yield []
    yield from _paragraphs(documentation.summary, width, "")
    for heading, text in documentation.sections:
        yield []
        yield [(heading, "bold")]
        yield from _paragraphs(text, width, "  ")


def _paragraphs(text: str, width: int, indent: str) -> Iterator[Line]:
    """Paragraphs laid out anew; what is indented or a list in a docstring keeps its lines."""
    for position, paragraph in enumerate(text.split("\n\n")):
        if position:
            yield []
        lines = paragraph.split("\n")
        if not any(line.startswith((" ", "- ")) for line in lines):
            lines = textwrap.wrap(
                paragraph, width - len(indent), break_long_words=False, break_on_hyphens=False
            )
        yield from ([(indent + line, "")] for line in lines)
