"""Reads a running demo mesh: its state file, its Envoys' admin on loopback, their logs."""

from __future__ import annotations

import ipaddress
import os
import stat
import tempfile
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from meshscope.model.findings import Unavailable
from meshscope.model.names import ProxyId
from meshscope.sources import layout
from meshscope.sources.admin import ask
from meshscope.sources.bundle import read_kubernetes
from meshscope.sources.files import Directory, read_regular
from meshscope.sources.source import Capture, Part, Read, SourceError

SAMPLE_INTERVAL_S = 2.0
"""Long enough for a call that fails once a second to show in the counters' difference."""
_CONCURRENT = 16
_MAX_STATE_BYTES = 1024**2
_MAX_LOG_BYTES = 16 * 1024**2
"""Some ten thousands of lines; what is failing now stands at a log's end."""

_SAMPLED = {Part.METRICS: Part.BEFORE_METRICS, Part.CLUSTERS: Part.BEFORE_CLUSTERS}
"""What is read twice, and the part that holds the earlier reading."""


class DemoProxy(msgspec.Struct, frozen=True):
    """A sidecar: where its admin listens and where it logs."""

    namespace: str
    pod: str
    admin: str
    log: str

    @property
    def id(self) -> ProxyId:
        return ProxyId(self.namespace, self.pod)


class Demo(msgspec.Struct, frozen=True):
    """A running demo mesh, as its state file tells (`meshscope/demo-PID.json` in the runtime directory)."""

    schema: int
    pid: int
    cluster: str
    directory: str
    proxies: tuple[DemoProxy, ...]
    kubernetes: str
    istiod: str = ""


def running_demos() -> list[Demo]:
    """The demo meshes that this user runs, by process id. Another user's state files are not believed."""
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / "meshscope"
    found = (_state(path) for path in folder.glob("demo-*.json"))
    return sorted((demo for demo in found if demo and _is_running(demo)), key=lambda demo: demo.pid)


def open_demo(pid: int | None = None, *, interval_s: float = SAMPLE_INTERVAL_S) -> DemoSource:
    """The running demo mesh, or that of `pid`. Raises SourceError: 3 where none answers, 2 where it is ambiguous."""
    demos = [demo for demo in running_demos() if pid is None or demo.pid == pid]
    if not demos:
        which = f"no demo mesh with process id {pid} is running" if pid else "no demo mesh is running"
        raise SourceError(f"{which}; start one with: meshscope demo", exit_code=3)
    if len(demos) > 1:
        pids = ", ".join(str(demo.pid) for demo in demos)
        raise SourceError(f"several demo meshes are running (process ids {pids}); say which one")
    return DemoSource(demos[0], interval_s)


def _state(path: Path) -> Demo | None:
    """A state file's content; None where it isn't this user's own, or isn't one."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
                return None
            demo = msgspec.json.decode(file.read(_MAX_STATE_BYTES), type=Demo)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return demo if demo.schema == 1 and all(_is_loopback(proxy.admin) for proxy in demo.proxies) else None


def _is_loopback(admin: str) -> bool:
    try:
        url = urlsplit(admin)
        return (
            url.scheme == "http" and bool(url.port) and ipaddress.ip_address(url.hostname or "").is_loopback
        )
    except ValueError:
        return False


def _is_running(demo: Demo) -> bool:
    try:
        os.kill(demo.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # The process id went to another user's process.
    return True


class DemoSource:
    """A source that asks live. Counters are read twice: on opening, and once after the interval when asked for.

    Safe to read from several threads.
    """

    def __init__(self, demo: Demo, interval_s: float = SAMPLE_INTERVAL_S) -> None:
        self._demo = demo
        self._proxies = {proxy.id: proxy for proxy in demo.proxies}
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._sampled = datetime.now(UTC)
        self._sampled_monotonic = time.monotonic()
        self._before = self._sample()
        self._after: dict[tuple[ProxyId, Part], bytes | Unavailable] = {}
        self._captured_at: datetime | None = None
        if self._before and all(isinstance(answer, Unavailable) for answer in self._before.values()):
            raise SourceError(f"none of the proxies of the demo mesh {demo.pid} answers", exit_code=3)

    @property
    def capture(self) -> Capture:
        captured_at = self._settle()
        samples = {
            layout.part_path(proxy, before): self._sampled
            for proxy in self._proxies
            for before in _SAMPLED.values()
        }
        return Capture(captured_at, self._demo.cluster, ("istio",), samples)

    def proxies(self) -> tuple[ProxyId, ...]:
        return tuple(sorted(self._proxies))

    def read(self, proxy: ProxyId, part: Part) -> bytes | Unavailable:
        known = self._proxies.get(proxy)
        if known is None:
            return Unavailable(layout.part_path(proxy, part), "the demo mesh has no such proxy")
        for sampled, before in _SAMPLED.items():
            if part is before:
                answer = self._before[proxy, sampled]
                if isinstance(answer, Unavailable):
                    return msgspec.structs.replace(answer, what=layout.part_path(proxy, before))
                return answer
            if part is sampled:
                self._settle()
                return self._after[proxy, sampled]
        if part is Part.LOG:
            self._settle()
            return _log(known)
        return ask(known.admin, part, layout.part_path(proxy, part))

    def kubernetes(self) -> Read | Unavailable:
        try:
            return read_kubernetes(Directory(Path(self._demo.kubernetes), "kubernetes/"))
        except SourceError as error:
            return Unavailable("Kubernetes objects", str(error), "see whether the demo mesh still runs")

    def control_planes(self) -> tuple[str, ...]:
        files = self._istiod()
        if isinstance(files, Unavailable):
            return ()
        return tuple(sorted({pod for name in files.paths if (pod := layout.control_plane_of(name))}))

    def read_control_plane(self, pod: str, path: str) -> bytes | Unavailable:
        files = self._istiod()
        return files if isinstance(files, Unavailable) else files.read(layout.istiod_path(pod, path))

    def close(self) -> None:
        """Nothing is held open."""

    def _istiod(self) -> Directory | Unavailable:
        if not self._demo.istiod:
            return Unavailable("istiod", "the demo mesh has none")
        try:
            return Directory(Path(self._demo.istiod), "istiod/")
        except SourceError as error:
            return Unavailable("istiod", str(error), "see whether the demo mesh still runs")

    def _settle(self) -> datetime:
        """Takes the second sample when the interval is over, once; what is read later is of that time."""
        with self._lock:
            if self._captured_at is None:
                time.sleep(max(0.0, self._sampled_monotonic + self._interval_s - time.monotonic()))
                self._after = self._sample()
                self._captured_at = datetime.now(UTC)
            return self._captured_at

    def _sample(self) -> dict[tuple[ProxyId, Part], bytes | Unavailable]:
        """The counters of all proxies at one time, as far as they answer."""
        wanted = [(proxy, part) for part in _SAMPLED for proxy in self._proxies]
        with ThreadPoolExecutor(_CONCURRENT) as pool:
            answers: Iterable[bytes | Unavailable] = pool.map(
                lambda key: ask(self._proxies[key[0]].admin, key[1], layout.part_path(*key)), wanted
            )
            return dict(zip(wanted, answers, strict=True))


def _log(proxy: DemoProxy) -> bytes | Unavailable:
    """The log's end, from the beginning of a line."""
    try:
        data = read_regular(proxy.log)
    except OSError as error:
        what = layout.part_path(proxy.id, Part.LOG)
        return Unavailable(
            what, f"it can't be read: {error.strerror or error}", "see whether the demo mesh runs"
        )
    return data if len(data) <= _MAX_LOG_BYTES else data[-_MAX_LOG_BYTES:].partition(b"\n")[2]
