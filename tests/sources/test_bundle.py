"""A bundle is read alike whether it is a directory or an archive, and says what it lacks."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
import zstandard

from meshscope.model.findings import Unavailable
from meshscope.model.names import ProxyId
from meshscope.sources import files as files_module
from meshscope.sources.bundle import open_bundle
from meshscope.sources.source import Part, SourceError

RECORDINGS = Path(__file__).parent.parent / "data" / "istio"
RECORDED = sorted(json.loads((RECORDINGS / "causes.json").read_text()))

PROXY = ProxyId("shop", "cart-1")
DESCRIPTION = {"schema": 1, "captured_at": "2026-01-02T03:04:05Z", "cluster": "c1", "meshes": ["istio"]}
TREE: dict[str, bytes] = {
    "bundle.json": json.dumps(DESCRIPTION).encode(),
    "kubernetes/shop.yaml": b"apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\n",
    "proxies/shop/cart-1/config_dump.json": b'{"configs": []}',
    "proxies/shop/cart-1/proxy.log": b"",
    "proxies/shop/api-2/stats.txt": b"a: 1\n",
    "istiod/istiod-1/syncz.json": b"[]",
    "golden/notes.txt": b"not of the format",
}

Write = Callable[[Path, Mapping[str, bytes]], Path]


def as_directory(place: Path, tree: Mapping[str, bytes]) -> Path:
    root = place / "bundle"
    for name, data in tree.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def tar_of(tree: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in tree.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), 1_700_000_000
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def as_tar(place: Path, tree: Mapping[str, bytes]) -> Path:
    path = place / "bundle.tar"
    path.write_bytes(tar_of(tree))
    return path


def as_gzip(place: Path, tree: Mapping[str, bytes]) -> Path:
    import gzip

    path = place / "bundle.tgz"
    path.write_bytes(gzip.compress(tar_of(tree)))
    return path


def as_zstandard(place: Path, tree: Mapping[str, bytes]) -> Path:
    path = place / "bundle.tar.zst"
    path.write_bytes(zstandard.compress(tar_of(tree)))
    return path


FORMS: list[Write] = [as_directory, as_tar, as_gzip, as_zstandard]
forms = pytest.mark.parametrize("write", FORMS, ids=lambda write: write.__name__)


@forms
@pytest.mark.parametrize("prefix", ["", "./", "incident-7/", "./incident-7/"])
def test_every_form_answers_alike(tmp_path: Path, write: Write, prefix: str) -> None:
    source = open_bundle(write(tmp_path, {prefix + name: data for name, data in TREE.items()}))
    assert source.capture.captured_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert source.capture.cluster == "c1"
    assert source.problems == ()
    assert source.proxies() == (ProxyId("shop", "api-2"), PROXY)
    assert source.read(PROXY, Part.CONFIG_DUMP) == b'{"configs": []}'
    assert source.read(PROXY, Part.LOG) == b""
    assert source.control_planes() == ("istiod-1",)
    assert source.read_control_plane("istiod-1", "syncz.json") == b"[]"
    read = source.kubernetes()
    assert not isinstance(read, Unavailable)
    assert [str(found.ref) for found in read.objects] == ["Service/shop/cart"]
    source.close()


@pytest.mark.parametrize("name", RECORDED)
def test_recordings_list_their_proxies(name: str) -> None:
    source = open_bundle(RECORDINGS / f"{name}.tar.gz")
    workloads = {proxy.pod.rsplit("-", 2)[0] for proxy in source.proxies()}
    assert workloads == {
        "client",
        "productpage-v1",
        "details-v1",
        "ratings-v1",
        "reviews-v1",
        "reviews-v2",
        "reviews-v3",
    }
    assert {proxy.namespace for proxy in source.proxies()} == {"bookinfo"}
    for proxy in source.proxies():
        for part in (Part.CONFIG_DUMP, Part.CLUSTERS, Part.CERTS, Part.STATS, Part.METRICS, Part.LOG):
            assert isinstance(source.read(proxy, part), bytes)
    read = source.kubernetes()
    assert not isinstance(read, Unavailable)
    assert read.problems == ()
    assert {"Pod", "Service", "Deployment", "Namespace"} <= {found.kind for found in read.objects}
    assert source.capture.meshes == ("istio",)
    source.close()


@forms
def test_what_is_missing_is_a_value(tmp_path: Path, write: Write) -> None:
    source = open_bundle(write(tmp_path, {"proxies/shop/cart-1/certs.json": b"{}"}))
    missing = source.read(PROXY, Part.STATS)
    assert isinstance(missing, Unavailable)
    assert missing.what == "proxies/shop/cart-1/stats.txt"
    assert isinstance(source.read(ProxyId("..", "../.."), Part.STATS), Unavailable)
    assert isinstance(source.kubernetes(), Unavailable)
    assert isinstance(source.read_control_plane("..", "../../bundle.json"), Unavailable)
    source.close()


@forms
def test_the_newest_log_line_tells_when_it_was_captured(tmp_path: Path, write: Write) -> None:
    log = (
        b'[2026-02-01T10:00:00.000Z] "GET /at/2026-03-01T00:00:00Z HTTP/1.1" 200\n'
        b'{"a": 1, "start_time": "2026-02-01T10:00:07.500Z"}\n'
        b"[9999-01-01T00:00:00.000Z] not yet\n"
    )
    source = open_bundle(write(tmp_path, {"proxies/shop/cart-1/proxy.log": log}))
    assert source.capture.captured_at == datetime(2026, 2, 1, 10, 0, 7, 500_000, tzinfo=UTC)
    assert any("when the bundle was captured" in problem.what for problem in source.problems)
    source.close()


@pytest.mark.parametrize("write", [as_tar, as_gzip, as_zstandard])
def test_without_logs_the_files_times_tell(tmp_path: Path, write: Write) -> None:
    source = open_bundle(write(tmp_path, {"proxies/shop/cart-1/certs.json": b"{}"}))
    assert source.capture.captured_at == datetime.fromtimestamp(1_700_000_000, UTC)
    source.close()


@pytest.mark.parametrize(
    "description",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"captured_at": 7}',
        b'{"captured_at": "yesterday"}',
        b'{"captured_at": "2026-01-02T03:04:05"}',
        b'{"captured_at": "0001-01-01T00:00:00+23:59"}',
        b"[" * 100_000,
        b'{"schema": "x"}',
    ],
)
def test_a_broken_description_is_named_and_guessed(tmp_path: Path, description: bytes) -> None:
    source = open_bundle(as_directory(tmp_path, {**TREE, "bundle.json": description}))
    assert any("bundle.json" in problem.what + problem.why for problem in source.problems)
    assert source.capture.captured_at <= datetime.now(UTC)
    source.close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="newer"):
        open_bundle(as_directory(tmp_path, {"bundle.json": b'{"schema": 2}'}))


@forms
@pytest.mark.parametrize("tree", [{}, {"readme.md": b"x"}, {"a/bundle.json": b"{}", "b/bundle.json": b"{}"}])
def test_what_is_no_bundle_says_so(tmp_path: Path, write: Write, tree: Mapping[str, bytes]) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(SourceError, match="not a bundle") as raised:
        open_bundle(write(tmp_path, tree))
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("name", ["absent", "a/b/c", "a\0b", "\udcff"])
def test_no_such_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="no such bundle") as raised:
        open_bundle(tmp_path / name)
    assert raised.value.exit_code == 2


def test_a_path_that_no_system_has(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="can't be read"):
        open_bundle(tmp_path / ("x" * 5000))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + b"x" * 600, b"text", b"\x00" * 2048])
def test_a_file_that_is_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(SourceError, match="not a bundle"):
        open_bundle(tmp_path / "file")


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    root = as_directory(tmp_path, TREE)
    os.mkfifo(root / "proxies/shop/cart-1/certs.json")
    os.mkfifo(tmp_path / "fifo")
    source = open_bundle(root)
    assert isinstance(source.read(PROXY, Part.CERTS), Unavailable)
    assert any("certs.json" in problem.what for problem in source.problems)
    with pytest.raises(SourceError, match="not a bundle"):
        open_bundle(tmp_path / "fifo")


def test_links_are_followed_within_the_bundle_only(tmp_path: Path) -> None:
    root = as_directory(tmp_path, TREE)
    (tmp_path / "secret").write_bytes(b"secret")
    proxy = root / "proxies/shop/cart-1"
    (proxy / "certs.json").symlink_to(tmp_path / "secret")
    (proxy / "clusters.json").symlink_to("config_dump.json")
    (proxy / "stats.txt").symlink_to("absent")
    (root / "proxies/shop/loop").symlink_to("..")
    (root / "istiod/outside").symlink_to(tmp_path)
    source = open_bundle(root)
    assert isinstance(source.read(PROXY, Part.CERTS), Unavailable)
    assert source.read(PROXY, Part.CLUSTERS) == b'{"configs": []}'
    assert {problem.what for problem in source.problems} == {
        "proxies/shop/cart-1/certs.json",
        "proxies/shop/cart-1/stats.txt",
        "proxies/shop/loop",
        "istiod/outside",
    }
    assert source.control_planes() == ("istiod-1",)


def test_a_file_too_large_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "MAX_FILE_BYTES", 8)
    source = open_bundle(as_directory(tmp_path, TREE))
    refused = source.read(PROXY, Part.CONFIG_DUMP)
    assert isinstance(refused, Unavailable)
    assert "larger" in refused.why
    assert source.read(ProxyId("shop", "api-2"), Part.STATS) == b"a: 1\n"


def test_too_many_files_are_no_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "MAX_FILES", 3)
    with pytest.raises(SourceError, match="more than 3"):
        open_bundle(as_directory(tmp_path, TREE))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_the_right_to_read_is_named(tmp_path: Path) -> None:
    root = as_directory(tmp_path, TREE)
    (root / "proxies/shop/cart-1/config_dump.json").chmod(0)
    refused = open_bundle(root).read(PROXY, Part.CONFIG_DUMP)
    assert isinstance(refused, Unavailable)
    assert "ermission" in refused.why


def test_of_two_readings_of_an_object_the_newer_counts(tmp_path: Path) -> None:
    def service(version: str, port: int) -> bytes:
        return (
            "apiVersion: v1\nkind: Service\n"
            f"metadata: {{name: a, namespace: b, resourceVersion: '{version}'}}\n"
            f"spec: {{port: {port}}}\n"
        ).encode()

    tree = {
        f"kubernetes/{name}.yaml": service(*of)
        for name, of in {"x": ("9", 1), "y": ("10", 2), "z": ("8", 3)}.items()
    }
    read = open_bundle(as_directory(tmp_path, tree)).kubernetes()
    assert not isinstance(read, Unavailable)
    assert [found.spec for found in read.objects] == [{"port": 2}]
