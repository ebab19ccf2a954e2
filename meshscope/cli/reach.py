"""Which mesh a command reads: the flags that all commands share, and the source they lead to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from meshscope.cli.durations import seconds
from meshscope.cli.exits import CommandError, Exit
from meshscope.cli.output import say

if TYPE_CHECKING:
    from meshscope.sources.source import Source

ONLY_DEMO = "only"
"""What a bare `--demo` stands for: the one demo mesh that runs."""

_NO_CLUSTER = (
    "this version of meshscope reads bundles and the demo mesh, not live clusters yet:"
    " give --bundle PATH, or start one with 'meshscope demo'"
)
_SOURCE = Group("Which mesh", sort_key=10)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Reach:
    """The flags of every command that reads a mesh."""

    bundle: Annotated[
        Path | None,
        Parameter(group=_SOURCE, help="A bundle: a directory, .tar.zst or .tar.gz.", metavar="PATH"),
    ] = None
    demo: Annotated[
        str | None,
        Parameter(group=_SOURCE, help="The running demo mesh, or the one of this process.", metavar="[PID]"),
    ] = None
    namespace: Annotated[
        str, Parameter(name=("--namespace", "-n"), group=_SOURCE, help="The namespace of names without one.")
    ] = ""
    context: Annotated[str, Parameter(group=_SOURCE, help="A context of the kubeconfig (live clusters).")] = (
        ""
    )
    kubeconfig: Annotated[
        Path | None, Parameter(group=_SOURCE, help="The kubeconfig (live clusters).", metavar="PATH")
    ] = None
    request_timeout: Annotated[
        str,
        Parameter(group=_SOURCE, help="The time that one call may take (live clusters).", metavar="DURATION"),
    ] = "10s"
    no_color: Annotated[bool, Parameter(negative=(), help="No colours, as with NO_COLOR set.")] = False

    @contextmanager
    def opened(self) -> Iterator[Source]:
        """The source that the flags name, closed at the end."""
        from meshscope.sources.source import SourceError

        try:
            source = self._open()
        except SourceError as error:
            raise CommandError(str(error), error.exit_code) from error
        try:
            yield source
        finally:
            source.close()

    def _open(self) -> Source:
        seconds("--request-timeout", self.request_timeout)
        given = [flag for flag, value in self._sources() if value]
        if len(given) > 1:
            raise CommandError(f"{' and '.join(given)} name two meshes: give one of them")
        if self.context or self.kubeconfig:
            raise CommandError(_NO_CLUSTER, Exit.UNREACHABLE)
        if self.bundle is not None:
            from meshscope.sources.bundle import open_bundle

            return open_bundle(self.bundle)
        from meshscope.sources.demo import open_demo

        return open_demo(self._demo_pid())

    def _sources(self) -> tuple[tuple[str, object], ...]:
        return (
            ("--bundle", self.bundle),
            ("--demo", self.demo),
            ("--context or --kubeconfig", self.context or self.kubeconfig),
        )

    def _demo_pid(self) -> int:
        if self.demo is None:
            return _only_demo(_NO_CLUSTER, announce=True)
        if self.demo == ONLY_DEMO:
            return _only_demo("no demo mesh is running: start one with 'meshscope demo'", announce=False)
        if not self.demo.isascii() or not self.demo.isdigit():
            raise CommandError(f"--demo takes the process id of a running demo mesh; got {self.demo!r}")
        return int(self.demo)


def _only_demo(when_none: str, *, announce: bool) -> int:
    from meshscope.sources.demo import running_demos

    running = running_demos()
    if not running:
        raise CommandError(when_none, Exit.UNREACHABLE)
    if len(running) > 1:
        pids = ", ".join(str(demo.pid) for demo in running)
        raise CommandError(f"several demo meshes are running: choose one with --demo PID ({pids})")
    if announce:
        say(f"reading the running demo mesh (process {running[0].pid}); --bundle reads another")
    return running[0].pid
