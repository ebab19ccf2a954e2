"""The published schemas are those of the types, and every document keeps to them."""

from __future__ import annotations

import json as stdlib_json
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest

from meshscope.model.findings import Report
from meshscope.report import json
from meshscope.report.documents import rules_of, trace_of
from meshscope.report.schema import DOCUMENTS, schema
from meshscope.walk.hops import Walk


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_committed_schema_is_the_generated_one(repository: Path, name: str) -> None:
    committed = stdlib_json.loads((repository / "docs" / "schema" / f"{name}.schema.json").read_text())
    assert committed == schema(name)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_schema_is_a_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(name))


def test_a_report_keeps_to_the_schema(report: Report) -> None:
    jsonschema.validate(stdlib_json.loads(json.render(report)), schema("report"))


def test_a_trace_keeps_to_the_schema(walk: Walk) -> None:
    document = trace_of((walk,), datetime(2026, 1, 1, tzinfo=UTC))
    jsonschema.validate(stdlib_json.loads(json.render(document)), schema("trace"))


def test_the_catalogue_keeps_to_the_schema() -> None:
    from meshscope.rules.catalogue import catalogue

    jsonschema.validate(stdlib_json.loads(json.render(rules_of(catalogue()))), schema("rules"))


def test_the_schema_refuses_a_severity_that_does_not_exist(report: Report) -> None:
    document = stdlib_json.loads(json.render(report))
    document["findings"][0]["severity"] = "fatal"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema("report"))
