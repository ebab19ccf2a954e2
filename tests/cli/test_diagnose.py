"""`meshscope diagnose` on bundles of a real Istio: one document, exit codes, files."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import msgspec
import pytest
import yaml

from meshscope.cli.diagnose import FORMATS, exit_code
from meshscope.cli.exits import Exit
from meshscope.model.findings import Finding, Report, Unknown
from meshscope.report.schema import schema

from .conftest import Meshscope


def test_the_verdict_comes_first(meshscope: Meshscope, denied: Path) -> None:
    ran = meshscope("diagnose", "--bundle", denied)
    assert ran.code == Exit.FINDINGS
    assert "AuthorizationPolicy bookinfo/ratings-deny" in ran.stdout.splitlines()[0]
    assert ran.stderr == ""


def test_a_healthy_mesh_exits_with_0(meshscope: Meshscope, healthy: Path) -> None:
    ran = meshscope("diagnose", "--bundle", healthy)
    assert ran.code == Exit.OK
    assert ran.stdout.startswith("No failure found")


@pytest.mark.parametrize("format", FORMATS)
def test_the_exit_code_is_the_same_in_every_format(meshscope: Meshscope, denied: Path, format: str) -> None:
    ran = meshscope("diagnose", "--bundle", denied, "-o", format)
    assert ran.code == Exit.FINDINGS
    assert "deny-policy" in ran.stdout


def test_json_is_one_document_that_keeps_to_the_schema(meshscope: Meshscope, denied: Path) -> None:
    ran = meshscope("diagnose", "--bundle", denied, "-o", "json")
    document = json.loads(ran.stdout)
    jsonschema.validate(document, schema("report"))
    assert document["findings"][0]["cause"] == "deny-policy"


def test_yaml_says_the_same_as_json(meshscope: Meshscope, denied: Path) -> None:
    as_json = json.loads(meshscope("diagnose", "--bundle", denied, "-o", "json").stdout)
    assert yaml.safe_load(meshscope("diagnose", "--bundle", denied, "-o", "yaml").stdout) == as_json


def test_from_and_to_narrow_the_question(meshscope: Meshscope, denied: Path) -> None:
    ran = meshscope("diagnose", "reviews-v2", "ratings", "-n", "bookinfo", "--bundle", denied, "-o", "json")
    document = json.loads(ran.stdout)
    assert document["scope"]["from"] == "reviews-v2.bookinfo"
    assert document["findings"][0]["cause"] == "deny-policy"


def test_a_question_about_calls_that_work_finds_nothing(meshscope: Meshscope, denied: Path) -> None:
    ran = meshscope("diagnose", "productpage-v1.bookinfo", "details.bookinfo", "--bundle", denied)
    assert ran.code == Exit.OK


def test_several_files_beside_the_answer(meshscope: Meshscope, denied: Path, tmp_path: Path) -> None:
    wanted = {format: tmp_path / f"report.{format}" for format in FORMATS}
    options = [option for format, path in wanted.items() for option in ("--out", f"{format}={path}")]
    ran = meshscope("diagnose", "--bundle", denied, "-o", "json", *options)
    assert ran.code == Exit.FINDINGS
    assert wanted["json"].read_text() == ran.stdout
    assert wanted["markdown"].read_text().startswith("## ")
    assert sorted(tmp_path.iterdir()) == sorted(wanted.values())


def test_a_file_keeps_its_mode_and_its_link(meshscope: Meshscope, denied: Path, tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    meshscope("diagnose", "--bundle", denied, "--out", f"json={link}")
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert json.loads(target.read_text())["schema"] == 1


def test_a_file_that_cannot_be_written_is_wrong_usage(meshscope: Meshscope, denied: Path) -> None:
    ran = meshscope("diagnose", "--bundle", denied, "--out", "json=/proc/nothing")
    assert ran.code == Exit.USAGE
    assert "can't write" in ran.stderr


def test_a_device_is_written_to_not_replaced(meshscope: Meshscope, denied: Path) -> None:
    assert meshscope("diagnose", "--bundle", denied, "--out", "json=/dev/null").code == Exit.FINDINGS
    assert Path("/dev/null").is_char_device()


def test_a_bundle_with_nothing_in_it_reached_nothing(meshscope: Meshscope, tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text('{"schema": 1, "captured_at": "2026-01-01T00:00:00Z"}')
    assert meshscope("diagnose", "--bundle", tmp_path).code == Exit.UNREACHABLE


def test_an_output_that_is_no_terminal_gets_no_colour(meshscope: Meshscope, denied: Path) -> None:
    assert "\x1b" not in meshscope("diagnose", "--bundle", denied).stdout


def _report(*severities: str, unknown: bool = False) -> Report:
    finding = {
        "code": "MS-C000", "cause": "c", "confidence": 1.0, "subject": "s", "affected": (), "title": "t",
        "explanation": "e", "caused_by": (), "evidence": (), "fix": (), "also_known_as": (), "fingerprint": "f",
    }  # fmt: skip
    return Report(
        schema=1,
        tool={},
        captured_at="",
        scope={},
        findings=tuple(msgspec.convert({**finding, "severity": s}, Finding) for s in severities),
        ruled_out=(),
        unknown=(Unknown("w", "y", "r"),) if unknown else (),
    )


@pytest.mark.parametrize(
    ("severities", "fail_on", "expected"),
    [
        (("error",), "error", Exit.FINDINGS),
        (("warning",), "error", Exit.OK),
        (("info", "warning"), "warning", Exit.FINDINGS),
        (("info",), "warning", Exit.OK),
        (("info",), "info", Exit.FINDINGS),
        (("error",), "never", Exit.OK),
        ((), "info", Exit.OK),
    ],
)
def test_fail_on(severities: tuple[str, ...], fail_on: str, expected: Exit) -> None:
    assert exit_code(_report(*severities), fail_on, strict=False) == expected  # type: ignore[arg-type]


def test_incomplete_evidence_matters_with_strict_only() -> None:
    assert exit_code(_report(unknown=True), "error", strict=False) == Exit.OK
    assert exit_code(_report(unknown=True), "error", strict=True) == Exit.INCOMPLETE


def test_findings_come_before_incomplete_evidence() -> None:
    assert exit_code(_report("error", unknown=True), "error", strict=True) == Exit.FINDINGS
