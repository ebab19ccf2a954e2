"""What every format looks like, as files that are reviewed as text."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from meshscope.model.findings import Report
from meshscope.report import json, markdown, text, trace, yaml
from meshscope.report.documents import trace_of
from meshscope.walk.hops import Walk

Golden = Callable[[str, str], None]
RENDERERS = {"txt": text.render, "json": json.render, "yaml": yaml.render, "md": markdown.render}


@pytest.mark.parametrize("suffix", RENDERERS)
def test_a_report_with_everything(report: Report, golden: Golden, suffix: str) -> None:
    golden(f"report.{suffix}", RENDERERS[suffix](report))


@pytest.mark.parametrize("suffix", RENDERERS)
def test_a_report_without_findings(healthy: Report, golden: Golden, suffix: str) -> None:
    golden(f"healthy.{suffix}", RENDERERS[suffix](healthy))


def test_everything_at_length(report: Report, golden: Golden) -> None:
    golden("report.verbose.txt", text.render(report, verbose=True))


def test_a_trace_with_two_branches(walk: Walk, golden: Golden) -> None:
    document = trace_of((walk,), datetime(2026, 1, 2, 10, 12, tzinfo=UTC))
    golden("trace.txt", trace.render(document))
    golden("trace.json", json.render(document))
