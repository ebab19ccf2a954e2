"""The verdicts on recordings of a real Istio, whole and with parts missing."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from meshscope.diagnose.diagnose import diagnose
from meshscope.facts.mesh import Mesh
from meshscope.facts.select import parse_selector
from meshscope.model.findings import Report
from meshscope.sources.bundle import open_bundle

RECORDINGS = Path(__file__).parent.parent / "data" / "istio"
CAUSES: dict[str, dict[str, str]] = json.loads((RECORDINGS / "causes.json").read_text())


def verdict(path: Path, *names: str) -> Report:
    source = open_bundle(path)
    try:
        selectors = [parse_selector(name) for name in names]
        return diagnose(Mesh(source), *selectors)
    finally:
        source.close()


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All recordings as directories."""
    base = tmp_path_factory.mktemp("recordings")
    for name in CAUSES:
        with tarfile.open(RECORDINGS / f"{name}.tar.gz") as archive:
            archive.extractall(base / name, filter="data")
    return base


@pytest.mark.parametrize("name", sorted(CAUSES))
def test_the_recording_s_cause_is_named_first(name: str) -> None:
    report = verdict(RECORDINGS / f"{name}.tar.gz")
    serious = [finding for finding in report.findings if finding.severity != "info"]
    if CAUSES[name]["cause"] == "none":
        assert serious == []
    else:
        assert serious[0].cause == CAUSES[name]["cause"]
        assert len(serious) == 1
        assert serious[0].confidence >= 0.85


def test_from_and_to_narrow_the_question(unpacked: Path) -> None:
    denied = verdict(unpacked / "authz-deny", "reviews-v2", "svc/ratings")
    assert [finding.cause for finding in denied.findings] == ["deny-policy"]
    assert [str(edge) for edge in denied.findings[0].affected] == [
        "reviews-v2.bookinfo → ratings.bookinfo:9080"
    ]
    fine = verdict(unpacked / "authz-deny", "client", "svc/ratings")
    assert [finding for finding in fine.findings if finding.severity != "info"] == []


def test_from_and_to_read_two_proxies_only(unpacked: Path) -> None:
    report = verdict(unpacked / "authz-deny", "reviews-v2", "ratings-v1")
    assert report.scope["proxies"] == 2


@pytest.mark.parametrize("side", ["reviews", "ratings"])
def test_one_side_s_proxy_is_enough_for_a_denial(unpacked: Path, tmp_path: Path, side: str) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(unpacked / "authz-deny", bundle)
    for proxy in (bundle / "proxies" / "bookinfo").glob(f"{side}-*"):
        shutil.rmtree(proxy)
    report = verdict(bundle)
    assert "deny-policy" in [finding.cause for finding in report.findings] or report.unknown


def test_a_healthy_mesh_without_kubernetes_objects_gives_nothing(unpacked: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(unpacked / "healthy-fullstats", bundle)
    shutil.rmtree(bundle / "kubernetes")
    report = verdict(bundle)
    assert [finding for finding in report.findings if finding.severity != "info"] == []
    assert report.scope["edges"] > 0
