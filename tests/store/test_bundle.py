"""What was captured reads back as it was; a bundle is written whole or not at all."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from meshscope.model.findings import Unavailable
from meshscope.model.kubernetes import KubernetesObject, ObjectMeta
from meshscope.model.names import ProxyId
from meshscope.sources.bundle import BundleSource, open_bundle
from meshscope.sources.source import Capture, Part, Read
from meshscope.store.bundle import StoreError, write_bundle

RECORDINGS = Path(__file__).parent.parent / "data" / "istio"
PROXY = ProxyId("shop", "cart-1")
FORMS = ["bundle", "bundle.tar", "bundle.tar.gz", "bundle.tgz", "bundle.tar.zst"]
SECRET = "hunter2Hunter2hunter2"


class Answers:
    """A source of fixed answers."""

    def __init__(
        self, proxies: tuple[ProxyId, ...] = (PROXY,), parts: dict[Part, bytes] | None = None
    ) -> None:
        self._proxies = proxies
        self._parts = {Part.CONFIG_DUMP: b'{"configs": []}', Part.LOG: b"a\n"} if parts is None else parts
        self.objects: tuple[KubernetesObject, ...] = ()

    @property
    def capture(self) -> Capture:
        at = datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)
        samples = {"proxies/shop/cart-1/before.prom": at, "proxies/shop/cart-1/proxy.log": at}
        return Capture(at, "uid", ("istio",), samples)

    def proxies(self) -> tuple[ProxyId, ...]:
        return self._proxies

    def read(self, proxy: ProxyId, part: Part) -> bytes | Unavailable:
        return self._parts.get(part) or Unavailable(part.value, "no answer")

    def kubernetes(self) -> Read | Unavailable:
        return Read(self.objects) if self.objects else Unavailable("Kubernetes objects", "forbidden")

    def control_planes(self) -> tuple[str, ...]:
        return ("istiod-1", "../istiod-2")

    def read_control_plane(self, pod: str, path: str) -> bytes | Unavailable:
        known = {"syncz.json": b"[]", "config_dump/shop.cart-1.json": b"{}"}
        return known.get(path) or Unavailable(path, "no answer")

    def close(self) -> None:
        """Nothing is held open."""


def anything_left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if "partial" in path.name]


@pytest.mark.parametrize("name", FORMS)
def test_what_was_captured_reads_back(tmp_path: Path, name: str) -> None:
    written = write_bundle(Answers(), tmp_path / name)
    source = open_bundle(tmp_path / name)
    assert source.problems == ()
    assert source.capture == Capture(
        datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC),
        "uid",
        ("istio",),
        {"proxies/shop/cart-1/proxy.log": datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)},
    )
    assert source.proxies() == (PROXY,)
    assert source.read(PROXY, Part.CONFIG_DUMP) == b'{"configs": []}'
    assert source.read_control_plane("istiod-1", "config_dump/shop.cart-1.json") == b"{}"
    assert source.control_planes() == ("istiod-1",)
    assert written.proxies == 1
    assert written.files == 5
    assert Unavailable("Kubernetes objects", "forbidden") in written.problems
    assert any("istiod-2" in problem.what for problem in written.problems)
    assert anything_left(tmp_path) == []
    source.close()


def everything(source: BundleSource) -> dict[str, object]:
    read = source.kubernetes()
    assert not isinstance(read, Unavailable)
    parts = {
        f"{proxy}/{part.value}": source.read(proxy, part)
        for proxy in source.proxies()
        for part in Part
    }  # fmt: skip
    objects = {str(found.ref): (found.spec, found.status, found.metadata.labels) for found in read.objects}
    return {**parts, **objects, "capture": source.capture, "istiod": source.control_planes()}


@pytest.mark.parametrize("name", ["bundle", "bundle.tar.zst"])
def test_a_recording_written_again_is_the_same(tmp_path: Path, name: str) -> None:
    recorded = open_bundle(RECORDINGS / "authz-deny.tar.gz")
    write_bundle(recorded, tmp_path / name)
    again = open_bundle(tmp_path / name)
    assert everything(again) == everything(recorded)
    recorded.close()
    again.close()


@pytest.mark.parametrize("name", ["bundle.tar", "bundle.tar.gz", "bundle.tar.zst"])
def test_the_same_capture_gives_the_same_bytes(tmp_path: Path, name: str) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_bundle(Answers(), tmp_path / folder / name)
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("name", FORMS)
def test_nothing_is_overwritten_unless_forced(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_bundle(Answers(), path)
    inode = path.stat().st_ino
    with pytest.raises(StoreError, match="--force"):
        write_bundle(Answers(), path)
    assert path.stat().st_ino == inode
    written = write_bundle(Answers(parts={Part.STATS: b"a: 1\n"}), path, force=True)
    assert written.proxies == 1
    source = open_bundle(path)
    assert source.read(PROXY, Part.STATS) == b"a: 1\n"
    assert isinstance(source.read(PROXY, Part.LOG), Unavailable)
    assert anything_left(tmp_path) == []
    source.close()


def test_force_replaces_nothing_but_its_like(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    (tmp_path / "folder.tar.gz").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "home")
    for name in ("home", "folder.tar.gz", "file", "link"):
        with pytest.raises(StoreError):
            write_bundle(Answers(), tmp_path / name, force=True)
    assert (tmp_path / "home" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("name", FORMS)
def test_a_failure_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    class Breaks(Answers):
        def control_planes(self) -> tuple[str, ...]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_bundle(Breaks(), tmp_path / name)
    with pytest.raises(StoreError) as raised:
        write_bundle(Answers(proxies=()), tmp_path / name)
    assert raised.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"

    class Meanwhile(Answers):
        def control_planes(self) -> tuple[str, ...]:
            path.write_text("somebody else's")
            return ()

    with pytest.raises(StoreError, match="exists"):
        write_bundle(Meanwhile(), path)
    assert path.read_text() == "somebody else's"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such folder"):
        write_bundle(Answers(), tmp_path / "absent" / "bundle.tar.gz")


@pytest.mark.parametrize("name", FORMS)
def test_only_the_owner_may_read_it(tmp_path: Path, name: str) -> None:
    write_bundle(Answers(), tmp_path / name)
    for path in (tmp_path / name, *(path for path in tmp_path.rglob("*") if path.is_file())):
        assert path.stat().st_mode & 0o077 == 0


def test_hostile_names_never_become_paths(tmp_path: Path) -> None:
    hostile = (
        ProxyId("..", "../out"),
        ProxyId("shop", ".."),
        ProxyId("shop", "/etc"),
        ProxyId("", "x"),
        ProxyId("a\0b", "x"),
        ProxyId("shop", "p" * 300),
    )
    source = Answers(proxies=(*hostile, PROXY))
    source.objects = (
        KubernetesObject("v1", "Pod", ObjectMeta("a", "../../out"), {"apiVersion": "v1", "kind": "Pod"}),
    )
    (tmp_path / "inner").mkdir()
    written = write_bundle(source, tmp_path / "inner" / "bundle")
    assert written.proxies == 1
    assert os.listdir(tmp_path) == ["inner"]
    assert sorted(path.name for path in (tmp_path / "inner" / "bundle" / "kubernetes").iterdir()) == [
        "_cluster.json"
    ]


@pytest.mark.parametrize("name", ["bundle", "bundle.tar"])
def test_secrets_never_reach_a_bundle(tmp_path: Path, name: str) -> None:
    source = Answers(
        parts={
            Part.CONFIG_DUMP: f'{{"private_key": {{"inline_string": "{SECRET}"}}}}'.encode(),
            Part.CLUSTERS: f'{{"private_key": {{"inline_string": "{SECRET}'.encode(),
            Part.ENV: f'{{"API_TOKEN": "{SECRET}"}}'.encode(),
            Part.LOG: f'{{"authorization": "Bearer {SECRET}"}}\n'.encode(),
            Part.METRICS: f'm{{cookie="{SECRET}"}} 1\n'.encode(),
            Part.IDENTITY: f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n".encode(),
        }
    )
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"a": SECRET}}
    source.objects = (KubernetesObject("v1", "Secret", ObjectMeta("a"), body),)
    written = write_bundle(source, tmp_path / name)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not any(SECRET.encode() in path.read_bytes() for path in files)
    assert any(
        "clusters.json" in problem.what and "isn't JSON" in problem.why for problem in written.problems
    )
