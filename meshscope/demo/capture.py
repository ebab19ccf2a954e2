"""Writes a bundle of a running demo mesh, in the layout that every command reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import yaml

from meshscope.demo.mesh import DemoMesh, Proxy, concurrently
from meshscope.demo.spec import Json

_NOW = {
    "config_dump.json": "config_dump?include_eds",
    "clusters.json": "clusters?format=json",
    "certs.json": "certs",
    "server_info.json": "server_info",
    "stats.txt": "stats",
    "metrics.prom": "stats/prometheus",
}
_BEFORE = {"before.prom": "stats/prometheus", "before.clusters.json": "clusters?format=json"}


def capture(mesh: DemoMesh, path: Path, seconds: float = 3.0) -> Path:
    """Watch the mesh for `seconds`, then write what it shows to the directory `path`, which must not exist.

    The bundle holds both ends of the window (`before.*` and the same without), so rates can be read off it.
    """
    path.mkdir(parents=True)
    samples: dict[str, str] = {}
    with concurrently() as each:
        samples.update(_sample(mesh, path, _BEFORE, each))
        mesh.wait(seconds)
        mesh.refresh()
        captured_at = _now()
        _sample(mesh, path, _NOW, each)
    for proxy in mesh.proxies:
        shutil.copyfile(proxy.log, _where(path, proxy) / "proxy.log")
    _copy_objects(mesh.kubernetes_directory, path / "kubernetes")
    if mesh.istiod_directory.is_dir() and mesh.control_plane_up:
        shutil.copytree(mesh.istiod_directory, path / "istiod")
    manifest = {
        "schema": 1,
        "captured_at": captured_at,
        "cluster": mesh.spec.cluster_uid,
        "meshes": ["istio"],
        "samples": dict(sorted(samples.items())),
    }
    (path / "bundle.json").write_text(json.dumps(manifest, indent=1))
    return path


def _sample(
    mesh: DemoMesh,
    path: Path,
    files: dict[str, str],
    each: Callable[[Callable[[Proxy], list[str]], Sequence[Proxy]], list[list[str]]],
) -> dict[str, str]:
    """Ask every proxy; file → the time it was asked. A proxy that doesn't answer leaves no files."""
    moment = _now()

    def ask(proxy: Proxy) -> list[str]:
        where = _where(path, proxy)
        where.mkdir(parents=True, exist_ok=True)
        written: list[str] = []
        for name, question in files.items():
            try:
                (where / name).write_bytes(proxy.get(question))
            except OSError:
                return written
            written.append(str((where / name).relative_to(path)))
        return written

    return {name: moment for names in each(ask, mesh.proxies) for name in names}


def _where(path: Path, proxy: Proxy) -> Path:
    return path / "proxies" / proxy.workload.namespace / proxy.pod.name


def _copy_objects(source: Path, target: Path) -> None:
    target.mkdir()
    for file in sorted(source.glob("*.json")):
        document: Json = json.loads(file.read_bytes())
        text = yaml.dump(document, Dumper=yaml.CSafeDumper, sort_keys=True)
        (target / f"{file.stem}.yaml").write_text(text)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
