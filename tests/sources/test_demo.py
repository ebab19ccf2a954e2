"""A demo mesh is found by its own user's state file, asked by GET of known paths, and sampled twice."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from meshscope.model.findings import Unavailable
from meshscope.model.names import ProxyId
from meshscope.sources import admin
from meshscope.sources.demo import open_demo, running_demos
from meshscope.sources.source import Part, SourceError

PROXY = ProxyId("shop", "cart-1")
OTHER = ProxyId("shop", "gone-1")


class _Admin(BaseHTTPRequestHandler):
    """Answers a counter that grows with every question, and remembers the questions."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/server_info":
            return  # Closes without an answer.
        if self.path == "/certs":
            self.send_error(503)
            return
        body = f"{self.path} {sum(path == self.path for path in self.asked)}".encode()
        self.send_response(200)
        self.end_headers()
        if self.path == "/stats":
            for _ in range(50):
                self.wfile.write(b".")
                self.wfile.flush()
                time.sleep(0.1)
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Tests are quiet."""


@pytest.fixture
def asked() -> list[str]:
    _Admin.asked = []
    return _Admin.asked


@pytest.fixture
def server(asked: list[str]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Admin) as listening:
        listening.daemon_threads = True
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str) -> dict[str, Any]:
    """A state file's content, with one proxy that answers and one that doesn't."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "meshscope").mkdir()
    (tmp_path / "kubernetes").mkdir()
    (tmp_path / "kubernetes" / "a.json").write_text(
        '{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}'
    )
    (tmp_path / "istiod" / "istiod-1").mkdir(parents=True)
    (tmp_path / "istiod" / "istiod-1" / "syncz.json").write_text("[]")
    (tmp_path / "log").write_text("one\ntwo\n")
    return {
        "schema": 1,
        "pid": os.getpid(),
        "cluster": "uid",
        "directory": str(tmp_path),
        "proxies": [
            {"namespace": "shop", "pod": "cart-1", "admin": server, "log": str(tmp_path / "log")},
            {
                "namespace": "shop",
                "pod": "gone-1",
                "admin": "http://127.0.0.1:1",
                "log": str(tmp_path / "no"),
            },
        ],
        "kubernetes": str(tmp_path / "kubernetes"),
        "istiod": str(tmp_path / "istiod"),
    }


def write(tmp_path: Path, state: dict[str, Any], name: str = "demo-1.json") -> Path:
    path = tmp_path / "meshscope" / name
    path.write_text(json.dumps(state))
    return path


def test_what_a_running_mesh_answers(tmp_path: Path, state: dict[str, Any], asked: list[str]) -> None:
    write(tmp_path, state)
    started = datetime.now(UTC)
    source = open_demo(interval_s=0.2)
    assert source.proxies() == (PROXY, OTHER)
    assert source.read(PROXY, Part.BEFORE_METRICS) == b"/stats/prometheus 1"
    assert source.read(PROXY, Part.METRICS) == b"/stats/prometheus 2"
    assert source.read(PROXY, Part.BEFORE_CLUSTERS) == b"/clusters?format=json 1"
    assert source.read(PROXY, Part.CLUSTERS) == b"/clusters?format=json 2"
    assert source.read(PROXY, Part.CONFIG_DUMP) == b"/config_dump?include_eds 1"
    assert source.read(PROXY, Part.LOG) == b"one\ntwo\n"
    before = source.capture.samples["proxies/shop/cart-1/before.prom"]
    assert started <= before
    assert (source.capture.captured_at - before).total_seconds() >= 0.2
    assert source.capture.cluster == "uid"
    read = source.kubernetes()
    assert not isinstance(read, Unavailable)
    assert [found.metadata.name for found in read.objects] == ["a"]
    assert source.control_planes() == ("istiod-1",)
    assert source.read_control_plane("istiod-1", "syncz.json") == b"[]"
    assert set(asked) <= set(admin.PATHS.values())


def test_what_cant_be_had_is_a_value(tmp_path: Path, state: dict[str, Any]) -> None:
    write(tmp_path, state)
    source = open_demo(interval_s=0)
    for proxy, part in [
        (OTHER, Part.CONFIG_DUMP),
        (OTHER, Part.METRICS),
        (OTHER, Part.BEFORE_METRICS),
        (OTHER, Part.LOG),
        (PROXY, Part.CERTS),
        (PROXY, Part.SERVER_INFO),
        (PROXY, Part.ENV),
        (PROXY, Part.IDENTITY),
        (ProxyId("shop", "unheard-of"), Part.LOG),
    ]:
        answer = source.read(proxy, part)
        assert isinstance(answer, Unavailable)
        assert answer.what.endswith(part.value)
    assert isinstance(source.read_control_plane("istiod-1", "absent"), Unavailable)


def test_a_deadline_holds_for_the_whole_answer(server: str) -> None:
    started = time.monotonic()
    answer = admin.ask(server, Part.STATS, "stats", deadline_s=0.3)
    assert isinstance(answer, Unavailable)
    assert "within 0.3 s" in answer.why
    assert time.monotonic() - started < 2


def test_none_of_several_is_guessed(tmp_path: Path, state: dict[str, Any]) -> None:
    write(tmp_path, state)
    write(tmp_path, {**state, "pid": os.getppid()}, "demo-2.json")
    with pytest.raises(SourceError, match="several") as raised:
        open_demo()
    assert raised.value.exit_code == 2
    assert open_demo(os.getpid(), interval_s=0).proxies()


def test_none_is_running(tmp_path: Path, state: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match="meshscope demo") as raised:
        open_demo()
    assert raised.value.exit_code == 3


def test_none_answers(tmp_path: Path, state: dict[str, Any]) -> None:
    write(tmp_path, {**state, "proxies": state["proxies"][1:]})
    with pytest.raises(SourceError, match="none of the proxies") as raised:
        open_demo()
    assert raised.value.exit_code == 3


@pytest.mark.parametrize(
    "change",
    [
        {"pid": 2**22 + 1},
        {"schema": 2},
        {"proxies": [{"namespace": "a", "pod": "b", "admin": "http://192.0.2.1:15000", "log": ""}]},
        {"proxies": [{"namespace": "a", "pod": "b", "admin": "http://example.com:15000", "log": ""}]},
        {"proxies": [{"namespace": "a", "pod": "b", "admin": "file:///etc/passwd", "log": ""}]},
        {"proxies": "none"},
    ],
)
def test_a_state_file_that_is_stale_or_strange(
    tmp_path: Path, state: dict[str, Any], change: dict[str, Any]
) -> None:
    write(tmp_path, {**state, **change})
    assert running_demos() == []


def test_a_state_file_that_is_no_file_or_not_ours(
    tmp_path: Path, state: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = write(tmp_path, state)
    assert [demo.pid for demo in running_demos()] == [os.getpid()]
    moved = ours.rename(tmp_path / "elsewhere.json")
    ours.symlink_to(moved)
    os.mkfifo(ours.parent / "demo-2.json")
    (ours.parent / "demo-3.json").write_text("{")
    assert running_demos() == []
    ours.unlink()
    moved.rename(ours)
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    assert running_demos() == []
