"""`meshscope diagnose`: what fails, why, how meshscope knows, and how to fix it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from meshscope.cli.durations import seconds
from meshscope.cli.exits import Exit
from meshscope.cli.output import PLAIN, Style, parse_file_outputs, stdout_style, write_files, write_stdout
from meshscope.cli.reach import Reach

if TYPE_CHECKING:
    from meshscope.model.findings import Report

Format = Literal["text", "json", "yaml", "markdown"]
FORMATS: tuple[Format, ...] = ("text", "json", "yaml", "markdown")
Threshold = Literal["error", "warning", "info", "never"]
_AT_OR_ABOVE: dict[Threshold, tuple[str, ...]] = {
    "error": ("error",),
    "warning": ("error", "warning"),
    "info": ("error", "warning", "info"),
    "never": (),
}


def diagnose(
    source: Annotated[
        str, Parameter(name="FROM", help="Who calls: [KIND/]NAME[.NAMESPACE], or 'outside'.")
    ] = "",
    target: Annotated[str, Parameter(name="TO", help="Who is called: [KIND/]NAME[.NAMESPACE].")] = "",
    /,
    *,
    output: Annotated[Format, Parameter(name=("--output", "-o"), help="The form of the answer.")] = "text",
    out: Annotated[
        list[str] | None,
        Parameter(negative=(), help="Write another form to a file, too; repeatable.", metavar="FORMAT=PATH"),
    ] = None,
    fail_on: Annotated[
        Threshold, Parameter(help="The lowest severity that makes the exit code 1.")
    ] = "error",
    strict: Annotated[
        bool, Parameter(negative=(), help="Exit with 4 where anything couldn't be seen.")
    ] = False,
    require_mtls: Annotated[bool, Parameter(negative=(), help="Permitted plaintext is a warning.")] = False,
    since: Annotated[
        str, Parameter(help="How far back the proxies' logs count, as in 5m.", metavar="DURATION")
    ] = "",
    verbose: Annotated[bool, Parameter(negative=(), help="Text in full: all evidence, every edge.")] = False,
    reach: Reach | None = None,
) -> int:
    """What fails between FROM and TO, root cause first; without them, everything that fails."""
    reach = reach or Reach()
    files = parse_file_outputs(out or (), FORMATS)
    since_s = seconds("--since", since) if since else None
    with reach.opened() as opened:
        from meshscope.cli.selection import selector, understood
        from meshscope.diagnose.diagnose import diagnose as find
        from meshscope.facts.mesh import Mesh

        mesh = Mesh(opened)
        with understood():
            report = find(
                mesh,
                selector(source, reach.namespace),
                selector(target, reach.namespace),
                require_mtls=require_mtls,
                since_s=since_s,
            )
        nothing_reached = not mesh.proxies and not mesh.has_kubernetes
    write_files(files, lambda format: render(report, format, PLAIN))
    write_stdout(render(report, output, stdout_style(no_color=reach.no_color, verbose=verbose)))
    return Exit.UNREACHABLE if nothing_reached else exit_code(report, fail_on, strict=strict)


def render(report: Report, format: str, style: Style) -> str:
    """The report in one of FORMATS."""
    match format:
        case "json":
            from meshscope.report import json

            return json.render(report)
        case "yaml":
            from meshscope.report import yaml

            return yaml.render(report)
        case "markdown":
            from meshscope.report import markdown

            return markdown.render(report)
    from meshscope.report import text

    return text.render(report, width=style.width, color=style.color, verbose=style.verbose)


def exit_code(report: Report, fail_on: Threshold, *, strict: bool) -> Exit:
    """What the findings say; the same whatever the form of the answer."""
    if any(finding.severity in _AT_OR_ABOVE[fail_on] for finding in report.findings):
        return Exit.FINDINGS
    return Exit.INCOMPLETE if strict and report.unknown else Exit.OK
