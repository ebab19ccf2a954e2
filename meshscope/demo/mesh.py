"""A running demo mesh: real Envoys and small applications under one supervisor, changeable while it runs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from meshscope.demo import state
from meshscope.demo.authority import Authorities
from meshscope.demo.envoy_binary import envoy_path
from meshscope.demo.kubernetes import kubernetes_objects
from meshscope.demo.pilot import ProxyConfig, proxy_config
from meshscope.demo.pilot.registry import Registry
from meshscope.demo.spec import Json, MeshSpec, Pod, Workload
from meshscope.demo.syncz import Delivery, syncz
from meshscope.demo.workplace import workplace


class DemoFailedError(Exception):
    """The demo mesh didn't come up; the text says which part and quotes its log."""


@dataclass(frozen=True)
class Proxy:
    """One running sidecar. `admin` is a base URL, `log` the file of its standard output."""

    workload: Workload
    pod: Pod
    directory: Path
    admin: str

    @property
    def key(self) -> str:
        return f"{self.workload.namespace}/{self.pod.name}"

    @property
    def log(self) -> Path:
        return self.directory / "proxy.log"

    def get(self, path: str, timeout: float = 10.0) -> bytes:
        """The admin interface's answer. Raises OSError where the proxy doesn't answer."""
        with _OPENER.open(f"{self.admin}/{path}", timeout=timeout) as answer:
            return bytes(answer.read())


# No proxy of the environment may come between: the admin ports are loopback.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class DemoMesh:
    """A mesh and everything it consists of.

    Use it as a context manager: entering reserves its addresses (so `spec.pod_ip` holds), `start` starts
    it, leaving ends and removes everything.
    """

    def __init__(self, spec: MeshSpec) -> None:
        self.spec = spec
        self.proxies: list[Proxy] = []
        self.control_plane_up = True
        self.start_seconds = 0.0
        self._envoy = envoy_path()
        self._authorities = Authorities(spec.started)
        self._generation = 0
        self._version = 0
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._frozen: set[str] = set()
        self._exits: dict[str, int] = {}
        self._pids: dict[str, int] = {}
        self._written: dict[Path, str] = {}
        self._deliveries: dict[str, Delivery] = {}
        self.directory = Path(tempfile.mkdtemp(prefix="meshscope-demo-"))

    @property
    def pid(self) -> int:
        """The process that names the running mesh to others: its supervisor's."""
        assert self._supervisor is not None
        return self._supervisor.pid

    @property
    def kubernetes_directory(self) -> Path:
        return self.directory / "kubernetes"

    @property
    def istiod_directory(self) -> Path:
        return self.directory / "istiod"

    def __enter__(self) -> DemoMesh:
        try:
            self._start_supervisor()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything and wait until every proxy is ready; traffic flows afterwards."""
        began = time.monotonic()
        self._write_workplace(traffic=False)
        self._spawn(
            "stage",
            [sys.executable, "-m", "meshscope.demo.stage", str(self.directory / "stage.json")],
            self.directory / "stage.log",
        )
        self._write_configuration()
        self._await(lambda: (self.directory / "REST").exists(), "the demo's control plane did not start")
        for workload, pod in self.spec.proxies():
            self._start_proxy(workload, pod)
        self._await_ready()
        self._await_generation()
        self._write_workplace(traffic=True)
        self._await_generation()
        self._await_acknowledged(5)
        self.start_seconds = time.monotonic() - began
        self.refresh()

    def apply(self, change: Callable[[MeshSpec], None] | None = None) -> None:
        """Bring the running mesh to its changed spec. Proxies can't be added or taken away this way.

        Returns when every proxy runs the new configuration, or after 1.5 s where one refuses it.
        """
        if change:
            change(self.spec)
        self._write_configuration()
        self._write_workplace(traffic=True)
        self._await_generation()
        self._await_acknowledged(1.5)
        self.refresh()

    def freeze(self, *workloads: str) -> None:
        """Withhold all later configuration from these workloads' proxies: they stay as they are."""
        self._frozen |= {proxy.key for name in workloads for proxy in self.proxies_of(name)}
        self._write_workplace(traffic=True)
        self._await_generation()

    def set_control_plane(self, *, up: bool) -> None:
        """Let the stand-in for istiod answer the proxies' ADS streams, or not."""
        self.control_plane_up = up
        self.apply()

    def refresh(self) -> None:
        """Write anew what other processes read: Kubernetes objects, istiod's view, the state file."""
        _write_objects(self.kubernetes_directory, kubernetes_objects(self.spec))
        istiod = next((item for item in self.spec.workloads if item.app == "istiod" and item.pods), None)
        if not self.control_plane_up:
            shutil.rmtree(self.istiod_directory, ignore_errors=True)
        elif istiod:
            view = syncz(self.proxies, self._deliveries, self._acknowledged())
            where = self.istiod_directory / istiod.pods[0].name
            where.mkdir(parents=True, exist_ok=True)
            _replace(where / "syncz.json", json.dumps(view))
        if self._supervisor:
            state.write(self._supervisor.pid, self.directory, self.spec, self.proxies)

    def proxy(self, name: str) -> Proxy:
        """The (first) proxy of a workload or pod."""
        return self.proxies_of(name)[0]

    def proxies_of(self, name: str) -> list[Proxy]:
        """The proxies of a workload or pod, at least one."""
        found = [
            proxy
            for proxy in self.proxies
            if name in (proxy.pod.name, proxy.key, proxy.workload.name, proxy.workload.key)
        ]
        if not found:
            raise KeyError(f"no proxy {name} in the demo mesh")
        return found

    def outcomes(self) -> dict[str, Json]:
        """What the callers saw since the start: flow → {"sent", "answers": {status: n}, "errors": {kind: n}}."""
        try:
            found: dict[str, Json] = json.loads((self.directory / "outcomes.json").read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def _acknowledged(self) -> dict[str, str]:
        """File of a resource → the version its proxy runs."""
        try:
            found: dict[str, str] = json.loads((self.directory / "acknowledged.json").read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def signal_proxy(self, name: str, number: int) -> None:
        """Send a signal to a sidecar, such as SIGKILL to have nothing listen at the endpoint."""
        self._command({"signal": self.proxy(name).key, "number": number})

    def wait(self, seconds: float) -> None:
        """Let traffic flow; fails when a part of the mesh died meanwhile."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._check_alive()
            time.sleep(min(0.2, left))

    def stop(self) -> None:
        """End every process and remove every file."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor:
            if supervisor.stdin:
                with contextlib.suppress(OSError):
                    supervisor.stdin.close()
            try:
                supervisor.wait(timeout=10)
            except subprocess.TimeoutExpired:
                supervisor.kill()
                supervisor.wait()
            self._remove_files(supervisor.pid)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _remove_files(self, pid: int) -> None:
        state.remove(pid)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _start_supervisor(self) -> None:
        script = Path(__file__).with_name("supervisor.py")
        self._supervisor = subprocess.Popen(
            [sys.executable, "-I", str(script), str(self.directory), str(state.directory())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # The stage is a part of this very package, wherever that was imported from.
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert self._supervisor.stdout
        first = self._supervisor.stdout.readline()
        if not first:
            raise DemoFailedError("the demo mesh's supervisor did not start")
        self.spec.block = json.loads(first)["block"]
        threading.Thread(target=self._listen, args=(self._supervisor,), daemon=True).start()

    def _listen(self, supervisor: subprocess.Popen[bytes]) -> None:
        assert supervisor.stdout
        for line in supervisor.stdout:
            event = json.loads(line)
            if "exited" in event:
                self._exits[event["exited"]] = event["code"]
            elif "spawned" in event:
                self._pids[event["spawned"]] = event["pid"]
        # The supervisor is gone: where it was killed, removing the files is left to us.
        self._remove_files(supervisor.pid)

    def _command(self, command: Json) -> None:
        if not self._supervisor or not self._supervisor.stdin:
            raise DemoFailedError("the demo mesh is not running")
        self._supervisor.stdin.write(json.dumps(command).encode() + b"\n")
        self._supervisor.stdin.flush()

    def _spawn(self, name: str, argv: Sequence[str], log: Path) -> None:
        self._command({"spawn": name, "argv": list(argv), "log": str(log)})

    def _start_proxy(self, workload: Workload, pod: Pod) -> None:
        directory = self._proxy_directory(workload, pod)
        proxy = Proxy(workload, pod, directory, f"http://{self.spec.pod_ip(pod)}:15000")
        self.proxies.append(proxy)
        flags = ["--disable-hot-restart", "--concurrency", "1", "--file-flush-interval-msec", "50"]
        flags += ["--log-level", "warning", "--component-log-level", "misc:error"]
        flags += ["--drain-time-s", "45", "--skip-deprecated-logs", "--allow-unknown-static-fields"]
        self._spawn(proxy.key, [str(self._envoy), "-c", str(directory / "bootstrap.json"), *flags], proxy.log)

    def _proxy_directory(self, workload: Workload, pod: Pod) -> Path:
        return self.directory / "proxies" / workload.namespace / pod.name

    def _await_ready(self) -> None:
        deadline = time.monotonic() + 30
        waiting = list(self.proxies)
        while waiting:
            waiting = [proxy for proxy in waiting if not _is_ready(proxy)]
            self._check_alive()
            if waiting and time.monotonic() > deadline:
                names = ", ".join(proxy.key for proxy in waiting)
                raise DemoFailedError(f"not ready after 30 s: {names}\n{_tail(waiting[0].log)}")
            time.sleep(0.03)

    def _await_acknowledged(self, seconds: float) -> None:
        """Wait until every proxy runs what it was sent; one that refuses doesn't hold up more than that."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            running = self._acknowledged()
            states = [
                delivery.settle(running)
                for key, delivery in self._deliveries.items()
                if key not in self._frozen
            ]
            if all(states):
                return
            time.sleep(0.03)

    def _await_generation(self) -> None:
        applied = self.directory / "applied"

        def is_applied() -> bool:
            return applied.exists() and int(applied.read_text()) >= self._generation

        self._await(is_applied, "the demo's applications did not start")

    def _await(self, happened: Callable[[], bool], complaint: str) -> None:
        deadline = time.monotonic() + 15
        while not happened():
            self._check_alive()
            if time.monotonic() > deadline:
                raise DemoFailedError(f"{complaint}\n{_tail(self.directory / 'stage.log')}")
            time.sleep(0.02)

    def _check_alive(self) -> None:
        if "stage" in self._exits:
            raise DemoFailedError(f"the demo's applications died\n{_tail(self.directory / 'stage.log')}")
        for proxy in self.proxies:
            code = self._exits.get(proxy.key)
            if code is not None and code != -signal.SIGKILL:
                raise DemoFailedError(f"the proxy of {proxy.key} ended with {code}\n{_tail(proxy.log)}")
        if self._supervisor and self._supervisor.poll() is not None:
            raise DemoFailedError(f"the demo's supervisor ended with {self._supervisor.returncode}")

    def _write_workplace(self, *, traffic: bool) -> None:
        self._generation += 1
        wanted = workplace(
            self.spec, self._generation, self.directory, xds_up=self.control_plane_up, traffic=traffic
        )
        wanted["frozen"] = sorted(self._frozen)
        _replace(self.directory / "stage.json", json.dumps(wanted))

    def _write_configuration(self) -> None:
        self._version += 1
        version = f"{datetime.now(UTC).strftime('%Y-%m-%dT%H:%M:%SZ')}/{self._version}"
        registry = Registry(self.spec)
        for workload, pod in self.spec.proxies():
            directory = self._proxy_directory(workload, pod)
            config = proxy_config(registry, self._authorities, workload, pod, self.directory)
            self._deliver(f"{workload.namespace}/{pod.name}", directory, config, version)

    def _deliver(self, key: str, directory: Path, config: ProxyConfig, version: str) -> None:
        """Write what changed; what a resource refers to before the resource itself."""
        delivery = self._deliveries.setdefault(key, Delivery())
        resources: list[tuple[str, str, list[Json]]] = [
            *(("secret", name, [secret]) for name, secret in config.secrets.items()),
            *(("endpoint", name, [assignment]) for name, assignment in config.endpoints.items()),
            *(("route", name, [route]) for name, route in config.routes.items()),
            ("cluster", "all", list(config.clusters.values())),
            ("listener", "all", list(config.listeners.values())),
        ]
        for kind, name, content in resources:
            relative = f"{key}/{kind}/{name.replace('/', '_')}.json"
            if self._resource(self.directory / "proxies" / relative, content, version):
                delivery.sent(kind, relative, version)
        if not (directory / "bootstrap.json").exists():
            _replace(directory / "bootstrap.json", json.dumps(config.bootstrap))

    def _resource(self, path: Path, resources: list[Json], version: str) -> bool:
        """Write a discovery response unless the resources are what is there; whether it was written."""
        text = json.dumps(resources)
        if self._written.get(path) == text:
            return False
        self._written[path] = text
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, f'{{"version_info":{json.dumps(version)},"resources":{text}}}')
        return True


@contextlib.contextmanager
def concurrently(limit: int = 8) -> Iterator[Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]]:
    """A bounded map over threads for admin calls."""
    with ThreadPoolExecutor(limit) as pool:
        yield lambda function, items: list(pool.map(function, items))


def _is_ready(proxy: Proxy) -> bool:
    """Live, or up and waiting for a secret that the spec withholds from it for good."""
    certificate = proxy.workload.certificate_of(proxy.pod)
    try:
        return proxy.get("ready", timeout=2).startswith(b"LIVE")
    except urllib.error.HTTPError:
        delivered = certificate.delivered and certificate.roots_delivered
        return not delivered and certificate.fetch_timeout == "0s"
    except OSError:
        return False


def _write_objects(directory: Path, spaces: dict[str, list[Json]]) -> None:
    directory.mkdir(exist_ok=True)
    for namespace, items in spaces.items():
        document = {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items}
        _replace(directory / f"{namespace}.json", json.dumps(document))


def _replace(path: Path, text: str) -> None:
    """Write so that a reader, Envoy's watcher among them, sees the old or the new file whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)


def _tail(path: Path, lines: int = 15) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(no log)"
