"""Each cause, made with real Envoys, is named first: with everything there, and under each condition.

A cause's mesh runs once, and every condition is a change to what was captured. The unrelated fault runs live beside
it, because two faults may hide each other.
"""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshscope.demo import catalogue
from meshscope.diagnose.diagnose import diagnose
from meshscope.facts.mesh import Mesh
from meshscope.model.findings import Edge, Finding, Report
from meshscope.sources.bundle import open_bundle
from tests.catalogue.captures import UNRELATED, captured
from tests.catalogue.dimensions import DIMENSIONS, a_day_later
from tests.catalogue.expectations import UNDECIDABLE

pytestmark = pytest.mark.slow

FAULTS = tuple(
    pytest.param(entry.name, marks=pytest.mark.xdist_group(entry.name))
    for entry in catalogue()
    if entry.available
)
"""One worker takes all of a fault's tests, or the others would wait for its capture."""


@pytest.fixture(scope="session")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that all workers share."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if base.name.startswith("popen-") else base) / "captures"
    shared.mkdir(exist_ok=True)
    return shared


CURRENT_STATE = frozenset(
    {
        "client-secret-not-delivered",
        "server-secret-not-delivered",
        "control-plane-down",
        "proxy-config-stale",
        "listener-rejected",
        "cluster-rejected",
        "route-rejected",
    }
)
"""What a proxy holds (or lacks) is wrong at the very moment of the capture, traffic or none."""


def verdict(bundle: Path) -> Report:
    source = open_bundle(bundle)
    try:
        return diagnose(Mesh(source))
    finally:
        source.close()


@cache
def verdict_on_everything(bundle: Path) -> Report:
    """The verdict on a capture as it is, which every condition of the same fault starts from."""
    return verdict(bundle)


def told(report: Report) -> str:
    """The report in short, for a failing test's message."""
    lines = [f"{f.severity} {f.cause} {f.confidence} {f.title}" for f in report.findings]
    lines += [f"ruled out {ruled.cause}: {ruled.why}" for ruled in report.ruled_out]
    return "\n".join(lines + [f"unknown {u.what}: {u.why}" for u in report.unknown]) or "nothing"


def edges_of(finding: Finding) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(edge) for edge in finding.affected[:1] if isinstance(edge, Edge)]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("condition", DIMENSIONS)
def test_the_cause_is_named_first(fault: str, condition: str, captures: Path, tmp_path: Path) -> None:
    bundle = captured(captures, fault)
    whole = verdict_on_everything(bundle)
    named = next((finding for finding in whole.findings if finding.cause == fault), None)
    assert named is not None, told(whole)
    changed = tmp_path / "bundle"
    shutil.copytree(bundle, changed)
    DIMENSIONS[condition](changed, edges_of(named))
    report = verdict(changed)
    undecidable = UNDECIDABLE.get((fault, condition))
    if undecidable is None:
        assert report.findings, told(report)
        assert report.findings[0].cause == fault, told(report)
        return
    for cause in undecidable.causes:
        fitting = [finding for finding in report.findings if finding.cause == cause]
        assert fitting, told(report)
        assert fitting[0].confidence <= 0.6, told(report)
    assert undecidable.causes or report.unknown, told(report)
    allowed = {fault, *undecidable.true}
    assert not [
        f for f in report.findings if f.confidence > 0.6 and f.severity == "error" and f.cause not in allowed
    ], told(report)


@pytest.mark.parametrize("fault", FAULTS)
def test_an_unrelated_fault_hides_nothing(fault: str, captures: Path) -> None:
    report = verdict(captured(captures, fault, unrelated=True))
    elsewhere = [f for f in report.findings if any("payments" in str(edge) for edge in f.affected)]
    # A fault of the whole mesh, as an expired root is, hits the other edge as well and stays ours.
    others = [f for f in elsewhere if f.cause != fault or all("payments" in str(e) for e in f.affected)]
    ours = [f for f in report.findings if f not in others]
    assert ours, told(report)
    assert ours[0].cause == fault, told(report)
    assert others, told(report)
    assert others[0].cause == UNRELATED, told(report)


@pytest.mark.parametrize("fault", FAULTS)
def test_yesterday_s_failures_raise_nothing(fault: str, captures: Path, tmp_path: Path) -> None:
    changed = tmp_path / "bundle"
    shutil.copytree(captured(captures, fault), changed)
    a_day_later(changed, [])
    report = verdict(changed)
    wrong = [f for f in report.findings if f.severity == "error" and f.cause not in CURRENT_STATE]
    assert wrong == [], told(report)


@pytest.mark.parametrize("condition", DIMENSIONS)
def test_a_healthy_mesh_gives_nothing(condition: str, captures: Path, tmp_path: Path) -> None:
    changed = tmp_path / "bundle"
    shutil.copytree(captured(captures), changed)
    DIMENSIONS[condition](changed, [{"source": "productpage-v1.bookinfo", "destination": "reviews.bookinfo"}])
    report = verdict(changed)
    assert [finding for finding in report.findings if finding.severity != "info"] == [], told(report)
