"""Whatever a mesh's names, paths and logs hold comes out harmless in every format."""

from __future__ import annotations

import json as stdlib_json
import re
import sys
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import yaml as pyyaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from meshscope.envoy.request import HttpRequest
from meshscope.model.findings import CausedBy, Edge, Evidence, Finding, Fix, Report, RuledOut, Unknown
from meshscope.model.names import ObjectRef, ProxyId
from meshscope.report import json, markdown, text, trace, yaml
from meshscope.report.documents import trace_of
from meshscope.report.safe import harmless, one_line, well_formed
from meshscope.walk.hops import Branch, Hop, Stage, Walk

NASTY = (
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "\u202egnp.exe",
    "\u2066a\u2069\u200e\u200f\u061c",
    "zero\u200bwidth\ufeff",
    "\ud800 lone",
    "\U000e0041\U000e0042 tags",
    "[bold red]markup[/] [link=http://evil]x[/link]",
    "<script>alert(1)</script><img src=x onerror=y>",
    "](http://evil) ![x](http://evil/x.png)",
    "`` ` ``` ~~~ |pipe| # heading",
    "\n# heading\n- item\n> quote\n```\nfence",
    "\r\nHTTP/1.1 200",
    "http://evil.example www.evil.example",
    "a\u2028b\u2029c\x85d\x0be\x0cf",
    "- [ ] task",
    "1. one",
    "    code",
    "&lt;b&gt; &#x202e;",
    "\\",
    "",
    "null",
    "*anchor",
    "&a !!python/object",
    "{}",
    "\t\t",
)
hostile = st.one_of(st.sampled_from(NASTY), st.text(max_size=12)).flatmap(
    lambda first: st.sampled_from(NASTY).map(lambda second: first + second)
)


def _struct(type_: type[Any], /, **given: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = [name for name in type_.__struct_fields__ if name not in given]
    return st.builds(type_, **given, **dict.fromkeys(names, hostile))


def _few(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(items, max_size=2).map(tuple)


evidence = _struct(Evidence)
findings = _struct(
    Finding,
    severity=st.sampled_from(["error", "warning", "info"]),
    confidence=st.floats(0, 1),
    affected=_few(st.one_of(hostile, _struct(Edge, port=st.none() | st.integers(1, 65535)))),
    caused_by=_few(_struct(CausedBy, evidence=_few(evidence))),
    evidence=_few(evidence),
    fix=_few(_struct(Fix, kind=st.sampled_from(["command", "patch", "advice"]))),
    also_known_as=_few(hostile),
)
reports = _struct(
    Report,
    schema=st.just(1),
    tool=st.dictionaries(hostile, hostile, max_size=2),
    scope=st.dictionaries(hostile, st.one_of(hostile, st.lists(hostile, max_size=2)), max_size=2),
    findings=_few(findings),
    ruled_out=_few(_struct(RuledOut)),
    unknown=_few(_struct(Unknown)),
)
references = st.none() | _struct(ObjectRef)
hops = _struct(
    Hop,
    stage=st.sampled_from(Stage),
    outcome=st.sampled_from(["pass", "fail", "unknown"]),
    proxy=st.none() | _struct(ProxyId),
    kubernetes=references,
    evidence=_few(evidence),
    detail=st.just({}),
)
walks = _struct(
    Walk,
    request=_struct(HttpRequest, headers=_few(st.tuples(hostile, hostile))),
    port=st.integers(1, 65535),
    branches=st.lists(
        st.builds(Branch, st.floats(0, 1), st.lists(hops, max_size=3).map(tuple)), min_size=1, max_size=2
    ).map(tuple),
)


COLOUR = re.compile(r"\[[0-9;]+m")


def is_clean(rendered: str) -> bool:
    return not any(_acts_or_hides(char) for char in rendered if char != "\n")


def _acts_or_hides(char: str) -> bool:
    """By Unicode's own tables; of its format characters a few Arabic, Syriac and Kaithi signs are visible."""
    is_sign = re.search("NUMBER SIGN|ABBREVIATION MARK$", unicodedata.name(char, "")) is not None
    visible = is_sign or unicodedata.bidirectional(char) == "AN"
    category = unicodedata.category(char)
    return category in {"Cc", "Cs", "Zl", "Zp"} or (category == "Cf" and not visible)


@pytest.mark.parametrize("render", [text.render, json.render, yaml.render, markdown.render])
@given(report=reports)
def test_no_format_lets_a_control_or_bidi_character_through(
    render: Callable[[Report], str], report: Report
) -> None:
    rendered = render(report)
    assert is_clean(rendered)
    rendered.encode()


@given(report=reports)
def test_verbose_text_neither(report: Report) -> None:
    assert is_clean(text.render(report, verbose=True))


@given(report=reports)
def test_coloured_text_holds_no_sequence_but_colours(report: Report) -> None:
    plain = text.render(report)
    colored = text.render(report, color=True)
    for piece in colored.split("\x1b")[1:]:
        assert COLOUR.match(piece)
    assert is_clean(colored.replace("\x1b", ""))
    assert len(colored.splitlines()) == len(plain.splitlines())


@given(report=reports)
def test_json_parses_back_to_the_report(report: Report) -> None:
    assert stdlib_json.loads(json.render(report)) == _as_lists(msgspec.to_builtins(well_formed(report)))


@given(report=reports)
def test_yaml_parses_back_to_the_report(report: Report) -> None:
    assert _as_lists(pyyaml.safe_load(yaml.render(report))) == _as_lists(
        msgspec.to_builtins(well_formed(report))
    )


def _as_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_lists(item) for key, item in value.items()}
    return [_as_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


@given(report=reports)
def test_yaml_has_no_anchors(report: Report) -> None:
    events = pyyaml.parse(yaml.render(report), Loader=pyyaml.SafeLoader)
    assert not any(getattr(event, "anchor", None) for event in events)


@given(report=reports)
def test_markdown_links_embeds_and_is_no_html(report: Report) -> None:
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown.render(report))
    found = {token.type for token in tokens} | {
        child.type for token in tokens for child in token.children or ()
    }
    assert not found & {"link_open", "image", "html_block", "html_inline", "table_open", "s_open", "hr"}
    assert not found & {"blockquote_open", "ordered_list_open", "code_block"}
    titled = sum(1 for position, item in enumerate(report.findings) if position or item.severity == "info")
    assert sum(token.type == "heading_open" for token in tokens) == 1 + titled


@given(report=reports)
def test_a_field_of_one_line_stays_one_line(report: Report) -> None:
    for finding in harmless(report).findings:
        assert "\n" not in finding.title + finding.subject + "".join(item.quote for item in finding.evidence)


@given(walk=walks)
def test_traces_are_as_harmless(walk: Walk) -> None:
    document = trace_of((walk,), datetime(2026, 1, 1, tzinfo=UTC))
    for rendered in (trace.render(document), json.render(document), yaml.render(document)):
        assert is_clean(rendered)
    stdlib_json.loads(json.render(document))


def test_every_character_that_acts_or_hides_is_written_out() -> None:
    for code in range(sys.maxunicode + 1):
        assert is_clean(one_line(chr(code))), hex(code)


def test_hostile_text_stays_recognisable(report: Report) -> None:
    finding = msgspec.structs.replace(report.findings[0], title="pod\x1b[2J \u202egnp")
    rendered = text.render(msgspec.structs.replace(report, findings=(finding,)))
    assert rendered.splitlines()[0] == "pod\\x1b[2J \\u202egnp"


def test_rich_markup_is_text(report: Report) -> None:
    finding = msgspec.structs.replace(report.findings[0], title="[bold red]x[/] :boom:")
    rendered = text.render(msgspec.structs.replace(report, findings=(finding,)), color=True)
    assert "[bold red]x[/] :boom:" in rendered


@pytest.mark.parametrize(
    "secret",
    [
        "authorization: Bearer c2VjcmV0LXRva2Vu",
        "Authorization: Basic c2VjcmV0LXRva2Vu",
        "cookie: session=c2VjcmV0LXRva2Vu",
        "-----BEGIN RSA PRIVATE KEY-----\nc2VjcmV0LXRva2Vu\n-----END RSA PRIVATE KEY-----",
        "eyJhbGciOiJSUzI1NiJ9.c2VjcmV0LXRva2Vu.c2lnbmF0dXJl",
    ],
)
def test_credentials_reach_no_format(report: Report, secret: str) -> None:
    quoted = Evidence("log", "line 1", f"before {secret}")
    finding = msgspec.structs.replace(report.findings[0], evidence=(quoted,))
    leaking = msgspec.structs.replace(report, findings=(finding,))
    for render in (text.render, json.render, yaml.render, markdown.render):
        rendered = render(leaking)
        assert "c2VjcmV0LXRva2Vu" not in rendered
        assert "before" in rendered


def test_a_secret_header_of_a_traced_request_is_not_shown(walk: Walk) -> None:
    document = trace_of((walk,), datetime(2026, 1, 1, tzinfo=UTC))
    for rendered in (trace.render(document), json.render(document)):
        assert "abcdefghijkl" not in rendered
        assert "jason" in rendered
