"""Starts a mesh with faults in it, for the command line and for tests."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from meshscope.demo.bookinfo import bookinfo
from meshscope.demo.capture import capture
from meshscope.demo.faults import find
from meshscope.demo.mesh import DemoMesh
from meshscope.demo.spec import MeshSpec

AccessLog = Literal["text", "json"]
Stats = Literal["all", "default"]


@contextlib.contextmanager
def demo_mesh(
    faults: Sequence[str] = (),
    *,
    access_log: AccessLog = "text",
    stats: Stats = "all",
    change: Callable[[MeshSpec], None] | None = None,
) -> Iterator[DemoMesh]:
    """A running mesh with these faults, showing them already. `change` alters the spec last of all.

    `stats` "default" keeps only what Istio's default inclusion keeps. Raises UnknownFaultError,
    DemoUnavailableError and DemoFailedError.
    """
    chosen = [find(name) for name in faults]
    spec = bookinfo()
    spec.access_log, spec.stats = access_log, stats
    with DemoMesh(spec) as mesh:
        for item in chosen:
            item.change(spec)
        if change:
            change(spec)
        mesh.start()
        for item in chosen:
            if item.after_start:
                item.after_start(mesh)
        mesh.wait(max([item.settle_seconds for item in chosen], default=0.0))
        yield mesh


def bundle_for(
    faults: Sequence[str],
    path: Path,
    *,
    seconds: float = 3.0,
    access_log: AccessLog = "text",
    stats: Stats = "all",
) -> Path:
    """A bundle of a mesh with these faults in the new directory `path`, seen over `seconds`."""
    with demo_mesh(faults, access_log=access_log, stats=stats) as mesh:
        return capture(mesh, path, seconds)


def run(
    faults: Sequence[str] = (),
    *,
    once: bool = False,
    seconds: float = 3.0,
    say: Callable[[str], None] = lambda _: None,
    diagnose: Callable[[Path], int] = lambda _: 0,
) -> int:
    """The life of `meshscope demo`: start, watch, let `diagnose` judge the bundle, stay until interrupted.

    `say` gets the narration, a line at a time. The answer is what `diagnose` returned: the exit code.
    With `once` the mesh ends after the diagnosis. The bundle goes with the mesh: `diagnose` copies what is to stay.
    """
    # A shell starts background jobs with SIGINT ignored; `kill -INT` is to end the mesh all the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    say(f"starting bookinfo on loopback{' with ' + ', '.join(faults) if faults else ''} …")
    with demo_mesh(faults) as mesh:
        say(
            f"{len(mesh.proxies)} Envoys ready in {mesh.start_seconds:.1f} s; watching {seconds:g} s of traffic"
        )
        code = diagnose(capture(mesh, mesh.directory / "bundle", seconds))
        if not once:
            say(f"running; Ctrl-C ends it. In another terminal: meshscope diagnose --demo {mesh.pid}")
            say("admin interfaces:")
            for proxy in mesh.proxies:
                say(f"  {proxy.admin}  {proxy.key}")
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    mesh.wait(2)
                    mesh.refresh()
        return code
