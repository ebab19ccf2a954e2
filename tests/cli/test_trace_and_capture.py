"""`meshscope trace` follows a request through a bundle; `meshscope capture` keeps one that answers alike."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from meshscope.cli.exits import Exit
from meshscope.report.schema import schema

from .conftest import Meshscope

DENIED = ("trace", "reviews-v2.bookinfo", "GET", "http://ratings:9080/ratings/0")


def test_a_trace_ends_where_the_request_does(meshscope: Meshscope, denied: Path) -> None:
    ran = meshscope(*DENIED, "--bundle", denied)
    assert ran.code == Exit.FINDINGS
    assert ran.stdout.startswith("✗ fails at authorization")
    assert "AuthorizationPolicy.security.istio.io/bookinfo/ratings-deny" in ran.stdout


def test_a_trace_as_json_keeps_to_the_schema(meshscope: Meshscope, denied: Path) -> None:
    document = json.loads(meshscope(*DENIED, "--bundle", denied, "-o", "json").stdout)
    jsonschema.validate(document, schema("trace"))
    (branch,) = document["walks"][0]["branches"]
    assert branch["hops"][-1]["cause"] == "deny-policy"


def test_all_branches_have_their_share(meshscope: Meshscope, denied: Path) -> None:
    ran = meshscope(
        "trace",
        "productpage-v1",
        "GET",
        "http://reviews:9080/",
        "-n",
        "bookinfo",
        "--bundle",
        denied,
        "-o",
        "json",
    )
    assert ran.code == Exit.OK
    branches = json.loads(ran.stdout)["walks"][0]["branches"]
    assert sum(branch["share"] for branch in branches) == pytest.approx(1)
    assert len(branches) == 3


def test_tcp_has_no_method(meshscope: Meshscope, denied: Path) -> None:
    ran = meshscope("trace", "reviews-v2.bookinfo", "tcp://ratings:9080", "--bundle", denied, "-o", "json")
    walk = json.loads(ran.stdout)["walks"][0]
    assert walk["method"] == ""
    assert walk["url"].startswith("tcp://ratings")


def test_a_caller_outside_the_mesh(meshscope: Meshscope, denied: Path) -> None:
    arguments = (
        "trace",
        "outside",
        "GET",
        "http://reviews.bookinfo:9080/",
        "-n",
        "bookinfo",
        "--bundle",
        denied,
    )
    assert "the caller has no sidecar" in meshscope(*arguments).stdout


def test_an_unknown_caller_is_wrong_usage(meshscope: Meshscope, denied: Path) -> None:
    ran = meshscope("trace", "nobody", "GET", "http://reviews:9080/", "--bundle", denied)
    assert ran.code == Exit.USAGE
    assert "nothing is called nobody" in ran.stderr


@pytest.mark.parametrize("name", ["kept", "kept.tar.zst", "kept.tar.gz"])
def test_a_captured_bundle_answers_as_its_source(
    meshscope: Meshscope, denied: Path, tmp_path: Path, name: str
) -> None:
    kept = tmp_path / name
    assert meshscope("capture", "-o", kept, "--bundle", denied).code == Exit.OK
    question = ("diagnose", "-o", "json", "--bundle")
    first, second = (json.loads(meshscope(*question, bundle).stdout) for bundle in (denied, kept))
    assert [(f["fingerprint"], f["title"]) for f in second["findings"]] == [
        (f["fingerprint"], f["title"]) for f in first["findings"]
    ]


def test_capture_overwrites_with_force_only(meshscope: Meshscope, denied: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.tar.gz"
    kept.write_text("precious")
    refused = meshscope("capture", "-o", kept, "--bundle", denied)
    assert refused.code == Exit.USAGE
    assert "--force" in refused.stderr
    assert kept.read_text() == "precious"
    assert meshscope("capture", "-o", kept, "--bundle", denied, "--force").code == Exit.OK
    assert meshscope("diagnose", "--bundle", kept).code == Exit.FINDINGS
