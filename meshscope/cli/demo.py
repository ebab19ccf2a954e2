"""`meshscope demo`: a mesh of real Envoys on this machine, with faults to choose from."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from meshscope.cli.diagnose import Format, exit_code, render
from meshscope.cli.exits import CommandError, Exit
from meshscope.cli.output import Style, say, stdout_style, write_stdout

if TYPE_CHECKING:
    from cyclopts.completion import CompletionContext


def _names(context: CompletionContext) -> dict[str, str]:
    """The faults that can be made, for the shell's completion."""
    from meshscope.demo.faults import catalogue

    return {entry.name: entry.title for entry in catalogue() if entry.available}


def demo(
    *,
    fault: Annotated[
        list[str] | None,
        Parameter(negative=(), completer=_names, help="A fault of --list; repeatable.", metavar="NAME"),
    ] = None,
    list_: Annotated[bool, Parameter(name="--list", negative=(), help="The faults there are.")] = False,
    once: Annotated[bool, Parameter(negative=(), help="End after the diagnosis.")] = False,
    keep_bundle: Annotated[
        Path | None, Parameter(help="Keep what was diagnosed as a bundle, as capture does.", metavar="PATH")
    ] = None,
    output: Annotated[Format, Parameter(name=("--output", "-o"), help="The form of the answer.")] = "text",
    verbose: Annotated[bool, Parameter(negative=(), help="Text in full: all evidence, every edge.")] = False,
    no_color: Annotated[bool, Parameter(negative=(), help="No colours, as with NO_COLOR set.")] = False,
) -> int:
    """Start bookinfo on real Envoys, diagnose it, and keep it running until Ctrl-C.

    Nothing but loopback is used, and nothing is left behind.
    """
    style = stdout_style(no_color=no_color, verbose=verbose)
    if list_:
        write_stdout(_listing(output, style))
        return Exit.OK
    faults = tuple(dict.fromkeys(fault or ()))
    _check(faults)
    if keep_bundle is not None:
        from meshscope.cli.capture import check_name

        check_name(keep_bundle)
        if keep_bundle.exists():
            raise CommandError(f"--keep-bundle: {str(keep_bundle)!r} exists; name another place")

    def judge(bundle: Path) -> int:
        return _diagnosed(bundle, keep_bundle, output, style)

    from meshscope.demo.envoy_binary import DemoUnavailableError
    from meshscope.demo.mesh import DemoFailedError
    from meshscope.demo.show import run

    try:
        return run(faults, once=once, say=say, diagnose=judge)
    except DemoUnavailableError as error:
        raise CommandError(str(error)) from error
    except DemoFailedError as error:
        first, *rest = str(error).splitlines()
        raise CommandError(first, Exit.UNREACHABLE, tuple(rest)) from error


def _diagnosed(bundle: Path, keep_bundle: Path | None, output: Format, style: Style) -> int:
    from meshscope.diagnose.diagnose import diagnose
    from meshscope.facts.mesh import Mesh
    from meshscope.sources.bundle import open_bundle

    source = open_bundle(bundle)
    try:
        report = diagnose(Mesh(source))
        if keep_bundle is not None:
            from meshscope.cli.capture import write

            write(source, keep_bundle, force=False)
    finally:
        source.close()
    write_stdout(render(report, output, style))
    return exit_code(report, "error", strict=False)


def _check(names: tuple[str, ...]) -> None:
    """Refuses what isn't a fault, or one that can't be made here, before anything is started."""
    from meshscope.demo.faults import catalogue

    entries = {entry.name: entry for entry in catalogue()}
    for name in names:
        if name not in entries:
            close = difflib.get_close_matches(name, entries, 1)
            suggestion = f"did you mean {close[0]}?" if close else "'meshscope demo --list' lists them."
            raise CommandError(f"{name!r} is no fault: {suggestion}")
        if not entries[name].available:
            raise CommandError(f"the fault {name} can't be made on loopback: {entries[name].reason}")


def _listing(output: Format, style: Style) -> str:
    from meshscope.demo.faults import catalogue
    from meshscope.report.documents import FaultEntry, faults_of

    document = faults_of(
        FaultEntry(entry.name, entry.title, entry.section, entry.available, entry.reason)
        for entry in catalogue()
    )
    match output:
        case "json":
            from meshscope.report import json

            return json.render(document)
        case "yaml":
            from meshscope.report import yaml

            return yaml.render(document)
        case "markdown":
            raise CommandError("--list knows text, json and yaml")
    from meshscope.report import catalogue as text

    return text.faults(document, color=style.color)
