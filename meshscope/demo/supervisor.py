"""The process all others of a demo mesh hang on: whatever ends its parent, it leaves nothing behind.

It is run as a script with nothing but the standard library. Commands come as JSON lines on standard
input, answers and events go as JSON lines to standard output:

    → {"spawn": NAME, "argv": […], "log": PATH}        ← {"spawned": NAME, "pid": N}
    → {"signal": NAME, "number": N}
                                                       ← {"exited": NAME, "code": N}

The first line out is {"block": N}: the loopback network 127.N.0.0/16, ours as long as we live, held by a
listening socket, which no crash can leave behind. The end of standard input ends everything.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_LOCK_PORT = 15999
_LIBC = ctypes.CDLL(None, use_errno=True)


class Supervisor:
    """Owns the children, the directory and the state file."""

    def __init__(self, directory: Path, state_directory: Path) -> None:
        self._directory = directory
        self._state = state_directory / f"demo-{os.getpid()}.json"
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._parent = os.getppid()
        self._lock: socket.socket | None = None
        self._pending = b""
        self._wakers = socket.socketpair()
        for end in self._wakers:
            end.setblocking(False)

    def run(self) -> None:
        """Serve the parent until it ends or closes the pipe; then clean up."""
        try:
            self._say({"block": self._take_block()})
            self._serve()
        finally:
            self._end()

    def _serve(self) -> None:
        selector = selectors.DefaultSelector()
        wake, waker = self._wakers
        signal.set_wakeup_fd(waker.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: sys.exit(0))
        # Ctrl-C reaches the whole terminal; the parent decides, and closing its pipe tells us.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ, "commands")
        selector.register(wake, selectors.EVENT_READ, "children")
        while os.getppid() == self._parent:
            for key, _ in selector.select(timeout=1.0):
                if key.data == "children":
                    wake.recv(4096)
                    self._reap()
                elif not self._read():
                    return

    def _read(self) -> bool:
        data = os.read(sys.stdin.fileno(), 1 << 16)
        if not data:
            return False
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            self._obey(json.loads(line))
        return True

    def _obey(self, command: dict[str, Any]) -> None:
        if "spawn" in command:
            name = command["spawn"]
            with Path(command["log"]).open("ab") as log:
                child = subprocess.Popen(
                    command["argv"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._directory,
                    preexec_fn=_die_with(os.getpid()),
                )
            self._children[name] = child
            self._say({"spawned": name, "pid": child.pid})
        elif "signal" in command:
            target = self._children.get(command["signal"])
            if target and target.poll() is None:
                target.send_signal(command["number"])

    def _reap(self) -> None:
        for name, child in list(self._children.items()):
            if child.poll() is not None:
                del self._children[name]
                self._say({"exited": name, "code": child.returncode})

    def _take_block(self) -> int:
        start = 64 + os.getpid() % 128
        for offset in range(128):
            block = 64 + (start - 64 + offset) % 128
            lock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                lock.bind((f"127.{block}.0.1", _LOCK_PORT))
                lock.listen(1)
            except OSError:
                lock.close()
                continue
            self._lock = lock
            return block
        raise SystemExit("no free loopback network: 128 demo meshes are running")

    def _say(self, message: dict[str, Any]) -> None:
        try:
            os.write(sys.stdout.fileno(), json.dumps(message).encode() + b"\n")
        except OSError:
            return  # The parent is gone; the pipe's end tells the rest.

    def _end(self) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for child in self._children.values():
            child.kill()
        deadline = time.monotonic() + 5
        for child in self._children.values():
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue
        shutil.rmtree(self._directory, ignore_errors=True)
        self._state.unlink(missing_ok=True)
        try:
            self._state.parent.rmdir()
        except OSError:
            return  # Another mesh's state file lives there.


def _die_with(supervisor: int) -> Callable[[], None]:
    """What the child does before exec: its own session, and SIGKILL when the supervisor dies."""

    def before_exec() -> None:
        os.setsid()
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != supervisor:
            os._exit(1)

    return before_exec


if __name__ == "__main__":
    Supervisor(Path(sys.argv[1]), Path(sys.argv[2])).run()
