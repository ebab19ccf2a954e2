"""`meshscope demo`: faults by name, one diagnosis, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from meshscope.cli.exits import Exit
from meshscope.report.schema import schema

from .conftest import Meshscope


def test_the_list_says_what_can_be_made(meshscope: Meshscope) -> None:
    ran = meshscope("demo", "--list")
    assert ran.code == Exit.OK
    assert "  deny-policy " in ran.stdout


def test_the_list_as_json_keeps_to_the_schema(meshscope: Meshscope) -> None:
    document = json.loads(meshscope("demo", "--list", "-o", "json").stdout)
    jsonschema.validate(document, schema("faults"))
    assert all(entry["available"] or entry["reason"] for entry in document["faults"])


def test_an_unknown_fault_is_wrong_usage(meshscope: Meshscope) -> None:
    ran = meshscope("demo", "--fault", "deny-polcy")
    assert ran.code == Exit.USAGE
    assert "did you mean deny-policy?" in ran.stderr


def test_a_bundle_that_is_there_is_not_overwritten(meshscope: Meshscope, tmp_path: Path) -> None:
    ran = meshscope("demo", "--keep-bundle", tmp_path)
    assert ran.code == Exit.USAGE
    assert "exists" in ran.stderr


@pytest.mark.slow
def test_once_diagnoses_keeps_the_bundle_and_leaves_nothing(meshscope: Meshscope, tmp_path: Path) -> None:
    kept = tmp_path / "kept.tar.zst"
    ran = meshscope("demo", "--fault", "deny-policy", "--once", "--keep-bundle", kept, "-o", "json")
    assert ran.code == Exit.FINDINGS
    assert json.loads(ran.stdout)["findings"][0]["cause"] == "deny-policy"
    assert "Envoys ready" in ran.stderr
    again = json.loads(meshscope("diagnose", "--bundle", kept, "-o", "json").stdout)
    assert again["findings"][0]["cause"] == "deny-policy"
    assert not list((tmp_path / "meshscope").glob("demo-*.json"))


@pytest.mark.slow
def test_a_running_mesh_is_found_and_read_and_ends_with_its_process(meshscope: Meshscope) -> None:
    command = [sys.executable, "-m", "meshscope", "demo", "--fault", "deny-policy"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        try:
            assert process.stderr is not None
            assert any("Ctrl-C ends it" in line for line in process.stderr)
            found = meshscope("diagnose", "-o", "json")
        finally:
            process.send_signal(signal.SIGTERM)
    assert found.code == Exit.FINDINGS
    assert "reading the running demo mesh" in found.stderr
    assert json.loads(found.stdout)["findings"][0]["cause"] == "deny-policy"
    assert meshscope("diagnose").code == Exit.UNREACHABLE
