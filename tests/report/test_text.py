"""The text form is short, and what is there to be copied is whole."""

from __future__ import annotations

import re

import msgspec

from meshscope.model.findings import Report
from meshscope.report import text
from meshscope.report.safe import encodable

ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-9;]*m")


def test_the_first_line_is_the_verdict(report: Report) -> None:
    assert text.render(report).splitlines()[0] == report.findings[0].title


def test_without_an_error_or_warning_the_verdict_is_that_nothing_fails(report: Report) -> None:
    only_notice = msgspec.structs.replace(report, findings=report.findings[1:], unknown=())
    assert text.render(only_notice).splitlines()[0] == "No failure found."


def test_what_was_not_seen_qualifies_the_verdict(report: Report) -> None:
    blind = msgspec.structs.replace(report, findings=())
    assert text.render(blind).splitlines()[0] == "No failure found in what could be seen."


def test_that_no_call_was_seen_qualifies_the_verdict(report: Report) -> None:
    silent = msgspec.structs.replace(report, findings=(), unknown=(), scope={**report.scope, "edges": 0})
    assert text.render(silent).splitlines()[0] == "No failure found, nor any call seen."


def test_of_many_edges_five_are_named(report: Report) -> None:
    rendered = text.render(report)
    assert rendered.count("caller-") == 5
    assert "and 35 more" in rendered


def test_verbose_names_all(report: Report) -> None:
    assert text.render(report, verbose=True).count("caller-") == 40


def test_a_command_is_on_one_line_and_a_patch_at_the_margin(report: Report) -> None:
    lines = text.render(report, width=60).splitlines()
    assert any(line.endswith(report.findings[0].fix[1].text) for line in lines)
    assert "EOF" in lines


def test_a_finding_without_evidence_is_called_a_guess(report: Report) -> None:
    guess = msgspec.structs.replace(report.findings[0], evidence=())
    assert "a guess" in text.render(msgspec.structs.replace(report, findings=(guess,)))


def test_colour_changes_nothing_but_colour(report: Report) -> None:
    colored = text.render(report, color=True)
    assert "\x1b[" in colored
    stripped = [line.rstrip() for line in ESCAPE_SEQUENCE.sub("", colored).splitlines()]
    assert stripped == text.render(report).splitlines()


def test_an_output_without_unicode_gets_ascii(report: Report) -> None:
    plain = encodable(text.render(report), "ISO-8859-1")
    assert plain.isascii()
    assert "->" in plain


def test_unicode_stays_where_the_output_takes_it(report: Report) -> None:
    assert encodable("→", "UTF-8") == "→"
