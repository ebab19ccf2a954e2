"""`meshscope proxy-status`: which proxies have got their configuration, and which refused it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from meshscope.cli.exits import CommandError, Exit
from meshscope.cli.output import say, stdout_style, write_stdout
from meshscope.cli.reach import Reach

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshscope.envoy.config_dump import ConfigDump
    from meshscope.facts.mesh import Mesh
    from meshscope.model.names import ProxyId
    from meshscope.report.proxy_status import ProxyDrift, ProxyStatuses

Format = Literal["text", "short", "wide", "json", "yaml"]
_FEW = 10


def proxy_status(
    pod: Annotated[
        str,
        Parameter(
            name="POD",
            help="[KIND/]NAME[.NAMESPACE]: how this proxy differs from what istiod means it to have.",
        ),
    ] = "",
    /,
    *,
    output: Annotated[
        Format,
        Parameter(name=("--output", "-o"), help="The form of the answer; wide has a column for each type."),
    ] = "text",
    verbose: Annotated[bool, Parameter(negative=(), help="The same as -o wide.")] = False,
    reach: Reach | None = None,
) -> int:
    """Which proxies have got their configuration, and which refused it: what failed comes first.

    The columns are istioctl's; -o wide adds each type's state and age, the words of refusals, and proxies that no
    istiod knows. The exit code is 1 where POD differs from what istiod means it to have.
    """
    reach = reach or Reach()
    form: Format = "wide" if verbose and output in ("text", "short") else output
    with reach.opened() as opened:
        from meshscope.facts.mesh import Mesh

        mesh = Mesh(opened)
        if pod:
            drift = _drift(mesh, pod, reach.namespace)
        else:
            statuses = _statuses(mesh)
    if pod:
        write_stdout(_render_drift(drift, form, no_color=reach.no_color))
        return Exit.FINDINGS if drift.differences else Exit.OK
    write_stdout(_render(statuses, form, no_color=reach.no_color))
    return Exit.OK


def _statuses(mesh: Mesh) -> ProxyStatuses:
    from meshscope.facts.control_planes import injected, istiods
    from meshscope.istio.proxy_status import proxy_statuses
    from meshscope.report.proxy_status import statuses_of

    answers, problems = istiods(mesh)
    for problem in problems:
        say(f"{problem.what}: {problem.why}")
    if not answers:
        raise CommandError(
            "no istiod's sync status can be read",
            Exit.UNREACHABLE,
            ("it is istiod/POD/syncz.json of a bundle: istiod's answer of /debug/syncz",),
        )
    return statuses_of(proxy_statuses(answers, injected(mesh), mesh.captured_at), problems, mesh.captured_at)


def _render(document: ProxyStatuses, form: Format, *, no_color: bool) -> str:
    from meshscope.istio.proxy_status import remarks
    from meshscope.report import proxy_status as text

    match form:
        case "json":
            from meshscope.report import json

            return json.render(document)
        case "yaml":
            from meshscope.report import yaml

            return yaml.render(document)
    if form != "wide":
        _narrate(remarks(document.proxies))
    return text.render(document, wide=form == "wide", color=stdout_style(no_color=no_color).color)


def _narrate(said: Sequence[str]) -> None:
    """What the established columns hide mustn't stay hidden from a person."""
    from meshscope.report.safe import shorten

    for line in said[:_FEW]:
        say(shorten(line, 400))
    if len(said) > _FEW:
        say(f"and {len(said) - _FEW} more like these: -o wide lists all")


# --- one proxy ----------------------------------------------------------------------------------------------


def _drift(mesh: Mesh, text: str, namespace: str) -> ProxyDrift:
    from meshscope.cli.selection import one_proxy, unreachable
    from meshscope.istio.drift import drift
    from meshscope.model.findings import Unavailable
    from meshscope.report.proxy_status import drift_of

    proxy = one_proxy(mesh, text, namespace)
    held = proxy.config
    if isinstance(held, Unavailable):
        raise unreachable(held)
    istiod, meant = _meant(mesh, proxy.id)
    found = drift(meant, held)
    for problem in found.problems[:_FEW]:
        say(f"{proxy.id}: {problem.where} can't be read: {problem.why}")
    return drift_of(found, f"{proxy.id.pod}.{proxy.id.namespace}", istiod, mesh.captured_at)


def _meant(mesh: Mesh, proxy: ProxyId) -> tuple[str, ConfigDump]:
    """What the istiod that the proxy is connected to means it to have."""
    import msgspec

    from meshscope.envoy.config_dump import ConfigDumpError
    from meshscope.istio.drift import read_meant
    from meshscope.model.findings import Unavailable
    from meshscope.sources.layout import istiod_config_dump

    refused = CommandError(
        f"there is nothing to compare {proxy} with: istiod's config dump of it wasn't captured",
        Exit.UNREACHABLE,
        (f"in a bundle it is istiod/POD/{istiod_config_dump(proxy)}",),
    )
    for istiod in mesh.source.control_planes():
        raw = mesh.source.read_control_plane(istiod, istiod_config_dump(proxy))
        if isinstance(raw, Unavailable):
            continue
        try:
            return istiod, read_meant(raw)
        except (ConfigDumpError, msgspec.DecodeError) as error:
            refused = CommandError(
                f"{istiod}'s config dump of {proxy} can't be read: {error}", Exit.UNREACHABLE
            )
    raise refused


def _render_drift(document: ProxyDrift, form: Format, *, no_color: bool) -> str:
    match form:
        case "json":
            from meshscope.report import json

            return json.render(document)
        case "yaml":
            from meshscope.report import yaml

            return yaml.render(document)
    from meshscope.report.proxy_status import render_drift

    return render_drift(document, color=stdout_style(no_color=no_color).color)
