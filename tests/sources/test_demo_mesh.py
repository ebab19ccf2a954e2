"""A real demo mesh is read live, and what is captured of it reads back the same."""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshscope.demo.bookinfo import bookinfo
from meshscope.demo.mesh import DemoMesh
from meshscope.model.findings import Unavailable
from meshscope.sources.bundle import open_bundle
from meshscope.sources.demo import open_demo, running_demos
from meshscope.sources.source import Part
from meshscope.store.bundle import write_bundle

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the demo mesh needs Linux"),
]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoMesh]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        with DemoMesh(bookinfo()) as running:
            running.start()
            yield running
        assert running_demos() == []


def test_every_proxy_answers_with_every_part(mesh: DemoMesh) -> None:
    source = open_demo(interval_s=1.0)
    assert {str(proxy) for proxy in source.proxies()} == {
        f"{proxy.workload.namespace}/{proxy.pod.name}" for proxy in mesh.proxies
    }
    for proxy in source.proxies():
        for part in set(Part) - {Part.ENV, Part.IDENTITY}:
            assert isinstance(source.read(proxy, part), bytes), (proxy, part)
        assert source.read(proxy, Part.BEFORE_METRICS) != source.read(proxy, Part.METRICS)
    read = source.kubernetes()
    assert not isinstance(read, Unavailable)
    assert read.problems == ()
    assert {"Pod", "Service", "Deployment", "PeerAuthentication"} <= {found.kind for found in read.objects}
    assert source.capture.cluster == mesh.spec.cluster_uid
    (istiod,) = source.control_planes()
    assert isinstance(source.read_control_plane(istiod, "syncz.json"), bytes)


def test_what_is_captured_reads_back(mesh: DemoMesh, tmp_path: Path) -> None:
    live = open_demo(interval_s=0.5)
    write_bundle(live, tmp_path / "bundle.tar.zst")
    kept = open_bundle(tmp_path / "bundle.tar.zst")
    assert kept.problems == ()
    assert kept.capture == live.capture
    assert kept.proxies() == live.proxies()
    for proxy in kept.proxies():
        for part in (Part.METRICS, Part.BEFORE_METRICS, Part.CLUSTERS, Part.BEFORE_CLUSTERS):
            assert kept.read(proxy, part) == live.read(proxy, part)
    assert kept.control_planes() == live.control_planes()
    kept.close()


def test_the_private_keys_of_the_mesh_stay_where_they_are(mesh: DemoMesh, tmp_path: Path) -> None:
    write_bundle(open_demo(interval_s=0), tmp_path / "bundle")
    keys = {
        found
        for path in mesh.directory.glob("proxies/*/*/secret/*.json")
        for found in re.findall(rb'"private_key":\s*\{\s*"inline_bytes":\s*"([^"]+)"', path.read_bytes())
    }
    assert len(keys) == len(mesh.proxies)
    written = b"".join(path.read_bytes() for path in (tmp_path / "bundle").rglob("*") if path.is_file())
    assert b"PRIVATE KEY" not in written
    for key in keys:
        assert key not in written
        # The first lines of all keys of a kind are alike: the end is the key's own.
        assert base64.b64decode(key).splitlines()[-2] not in written
