"""`meshscope proxy-config`: what one proxy holds, in the tables that istioctl's users know."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from cyclopts import Parameter

from meshscope.cli.exits import CommandError, Exit
from meshscope.cli.output import say, stdout_style, write_stdout
from meshscope.cli.reach import Reach

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from cyclopts.completion import CompletionContext

    from meshscope.envoy.config_dump import ConfigDump, DecodeProblem, MessageKind, Rejected
    from meshscope.istio.tables.endpoints import EndpointFilter
    from meshscope.istio.tables.table import Table
    from meshscope.sources.source import Source

Format = Literal["text", "short", "wide", "json", "yaml"]

KINDS = {
    "cluster": ("clusters", "c"),
    "listener": ("listeners", "l"),
    "route": ("routes", "r"),
    "endpoint": ("endpoints", "ep"),
    "eds": (),
    "secret": ("secrets", "s"),
    "bootstrap": ("bootstraps", "b"),
    "ecds": (),
    "all": ("a",),
}
"""What can be shown, with the other names for it."""

_FILTERS = {
    "fqdn": ("cluster", "all"),
    "port": ("cluster", "listener", "endpoint", "eds", "all"),
    "subset": ("cluster", "all"),
    "direction": ("cluster", "all"),
    "address": ("listener", "endpoint", "eds", "all"),
    "type": ("listener", "all"),
    "name": ("route", "all"),
    "cluster": ("endpoint", "eds", "all"),
    "status": ("endpoint", "eds", "all"),
}
_FEW = 5


class Filters(NamedTuple):
    """The filters as they were given; each applies to the kinds that know it."""

    fqdn: str = ""
    port: int | None = None
    subset: str = ""
    direction: str = ""
    address: str = ""
    type: str = ""
    name: str = ""
    cluster: str = ""
    status: str = ""


class _Asked(NamedTuple):
    """What one proxy is asked for."""

    kind: str
    filters: Filters
    format: Format
    no_color: bool


def _kinds(context: CompletionContext) -> tuple[str, ...]:
    """What can be shown, for the shell's completion."""
    return tuple(KINDS)


def proxy_config(
    kind: Annotated[
        str,
        Parameter(
            name="KIND",
            completer=_kinds,
            help="cluster, listener, route, endpoint, eds, secret, bootstrap, ecds or all.",
        ),
    ],
    pod: Annotated[str, Parameter(name="POD", help="The proxy: [KIND/]NAME[.NAMESPACE].")] = "",
    /,
    *,
    fqdn: Annotated[str, Parameter(help="Clusters: part of the host.", metavar="HOST")] = "",
    port: Annotated[int | None, Parameter(help="Clusters, listeners, endpoints: the port.")] = None,
    subset: Annotated[str, Parameter(help="Clusters: part of the subset.")] = "",
    direction: Annotated[
        Literal["inbound", "outbound", "inbound-vip"] | None, Parameter(help="Clusters: the direction.")
    ] = None,
    address: Annotated[str, Parameter(help="Listeners, endpoints: the address.")] = "",
    type: Annotated[str, Parameter(help="Listeners: HTTP, TCP, HTTP+TCP or UNKNOWN.")] = "",
    name: Annotated[str, Parameter(help="Routes: the configuration's name.")] = "",
    cluster: Annotated[str, Parameter(help="Endpoints: the cluster's name.")] = "",
    status: Annotated[str, Parameter(help="Endpoints: HEALTHY, UNHEALTHY, …")] = "",
    output: Annotated[
        Format | None,
        Parameter(
            name=("--output", "-o"),
            help="The form of the answer; wide has further columns, json and yaml are Envoy's own messages.",
        ),
    ] = None,
    verbose: Annotated[bool, Parameter(negative=(), help="The same as -o wide.")] = False,
    file: Annotated[
        Path | None,
        Parameter(
            name=("--file", "-f"),
            help="Envoy's answer of /config_dump (for endpoint: of /clusters?format=json); - is stdin.",
            metavar="PATH",
            allow_leading_hyphen=True,
        ),
    ] = None,
    reach: Reach | None = None,
) -> int:
    """What one proxy holds: KIND is cluster, listener, route, endpoint, eds, secret, bootstrap, ecds or all.

    Columns and filters are istioctl's; -o wide adds how far each resource came and the objects behind it.
    """
    reach = reach or Reach()
    shown = _kind(kind)
    filters = Filters(fqdn, port, subset, direction or "", address, type, name, cluster, status)
    _check_filters(shown, filters)
    if bool(pod) == bool(file):
        raise CommandError("proxy-config takes KIND and either POD or --file PATH")
    fallback: Format = "json" if shown == "bootstrap" else "text"
    asked = _Asked(shown, filters, output or ("wide" if verbose else fallback), reach.no_color)
    if file is not None:
        write_stdout(_of_file(file, asked))
    else:
        with reach.opened() as opened:
            write_stdout(_of_pod(opened, pod, reach.namespace, asked))
    return Exit.OK


# --- what was asked -----------------------------------------------------------------------------------------


def _kind(text: str) -> str:
    for kind, others in KINDS.items():
        if text.lower() in (kind, *others):
            return kind
    if text.lower() in ("log", "o"):
        raise CommandError(
            "meshscope only reads and never sets a log level: 'istioctl proxy-config log' does"
        )
    raise CommandError(f"proxy-config shows {', '.join(KINDS)}; got {text!r}")


def _check_filters(kind: str, filters: Filters) -> None:
    for flag, kinds in _FILTERS.items():
        if getattr(filters, flag) not in ("", None) and kind not in kinds:
            raise CommandError(f"--{flag} doesn't apply to {kind}, only to {', '.join(kinds)}")


# --- where it comes from ------------------------------------------------------------------------------------


def _of_file(path: Path, asked: _Asked) -> str:
    import sys
    from datetime import UTC, datetime

    from meshscope.envoy.config_dump import ConfigDump, ConfigDumpError

    try:
        raw = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise CommandError(f"{str(path)!r} can't be read: {error.strerror or error}") from error
    if asked.kind == "endpoint":
        return _answer([_endpoints(raw, str(path), asked.filters, Exit.USAGE)], asked)
    try:
        config = ConfigDump(raw)
    except ConfigDumpError as error:
        raise CommandError(f"{str(path)!r} is no config dump: {error}") from error
    return _of_config(config, raw, str(path), datetime.now(UTC), asked)


def _of_pod(source: Source, pod: str, namespace: str, asked: _Asked) -> str:
    from meshscope.cli.selection import one_proxy, unreachable
    from meshscope.facts.mesh import Mesh
    from meshscope.model.findings import Unavailable
    from meshscope.sources.source import Part

    mesh = Mesh(source)
    proxy = one_proxy(mesh, pod, namespace)
    if asked.kind == "endpoint":
        clusters = source.read(proxy.id, Part.CLUSTERS)
        if isinstance(clusters, Unavailable):
            raise unreachable(clusters)
        table = _endpoints(clusters, f"{Part.CLUSTERS.value} of {proxy.id}", asked.filters, Exit.UNREACHABLE)
        return _answer([table], asked)
    config, raw = proxy.config, source.read(proxy.id, Part.CONFIG_DUMP)
    if isinstance(config, Unavailable):
        raise unreachable(config)
    assert isinstance(raw, bytes)
    return _of_config(config, raw, str(proxy.id), mesh.captured_at, asked)


# --- the answer ---------------------------------------------------------------------------------------------


def _endpoints(clusters: bytes, where: str, filters: Filters, exit_code: Exit) -> Table:
    import msgspec

    from meshscope.istio.tables.endpoints import endpoint_table

    try:
        table = endpoint_table(clusters, _endpoint_filter(filters))
    except msgspec.DecodeError as error:
        raise CommandError(f"{where} is no answer of /clusters?format=json: {error}", exit_code) from error
    _narrate(where, table.problems)
    return table


def _of_config(config: ConfigDump, raw: bytes, where: str, at: datetime, asked: _Asked) -> str:
    from meshscope.istio.tables.versions import versions
    from meshscope.report import messages

    if asked.kind == "bootstrap":
        return _bootstrap(config, where, asked)
    if asked.kind == "all" and asked.format in ("json", "yaml"):
        return messages.one_as_json(raw) if asked.format == "json" else messages.one_as_yaml(raw)
    kinds = (
        ("cluster", "listener", "route", "secret", "eds", "ecds") if asked.kind == "all" else (asked.kind,)
    )
    tables = []
    for kind in kinds:
        missing = _missing(config, kind, where)
        if missing is None:
            tables.append(_table(config, kind, asked.filters, at))
        elif asked.kind == "all":
            say(str(missing))
        else:
            raise missing
    problems = [*config.problems, *(problem for table in tables for problem in table.problems)]
    _narrate(where, problems, config.rejected)
    if asked.kind != "all":
        return _answer(tables, asked)
    head = [f"{name}: {value}" for name, value in versions(config)]
    return _answer([table.typed() for table in tables if table.rows or table.kind != "ecds"], asked, head)


def _bootstrap(config: ConfigDump, where: str, asked: _Asked) -> str:
    from meshscope.istio.tables.versions import versions
    from meshscope.report import messages

    if config.bootstrap_message is None:
        raise CommandError(f"the config dump of {where} has no bootstrap", Exit.UNREACHABLE)
    if asked.format in ("json", "yaml"):
        message = b'{"bootstrap":' + bytes(config.bootstrap_message) + b"}"
        return messages.one_as_json(message) if asked.format == "json" else messages.one_as_yaml(message)
    from meshscope.report import tables

    return tables.render((), head=[f"{name}: {value}" for name, value in versions(config)])


_SECTIONS: dict[str, MessageKind] = {
    "cluster": "cluster",
    "listener": "listener",
    "route": "route",
    "secret": "secret",
    "eds": "endpoint",
}


def _missing(config: ConfigDump, kind: str, where: str) -> CommandError | None:
    """Why a table can't be made: the dump lacks its section. Envoy leaves out an empty one of ECDS alone."""
    if kind not in _SECTIONS or config.has(_SECTIONS[kind]):
        return None
    remedy = (
        "it was taken without ?include_eds" if kind == "eds" else "it was taken with a mask, or cut short"
    )
    return CommandError(f"the config dump of {where} has no {kind} section: {remedy}", Exit.UNREACHABLE)


def _table(config: ConfigDump, kind: str, filters: Filters, at: datetime) -> Table:
    match kind:
        case "cluster":
            from meshscope.istio.tables.clusters import ClusterFilter, cluster_table

            only = ClusterFilter(filters.fqdn, filters.port, filters.subset, filters.direction)
            return cluster_table(config, only)
        case "listener":
            from meshscope.istio.tables.listeners import ListenerFilter, listener_table

            return listener_table(config, ListenerFilter(filters.address, filters.port, filters.type))
        case "route":
            from meshscope.istio.tables.routes import RouteFilter, route_table

            return route_table(config, RouteFilter(filters.name))
        case "secret":
            from meshscope.istio.tables.secrets import secret_table

            return secret_table(config, at)
        case "eds":
            from meshscope.istio.tables.endpoints import eds_table

            return eds_table(config, _endpoint_filter(filters))
    from meshscope.istio.tables.extensions import extension_table

    return extension_table(config)


def _endpoint_filter(filters: Filters) -> EndpointFilter:
    from meshscope.istio.tables.endpoints import EndpointFilter

    return EndpointFilter(filters.address, filters.port, filters.cluster, filters.status)


def _narrate(where: str, problems: Iterable[DecodeProblem], rejected: Iterable[Rejected] = ()) -> None:
    """What the tables can't show: parts that couldn't be read, and updates that the proxy refused."""
    from meshscope.report.safe import shorten

    said = [f"{where}: {problem.where} can't be read: {problem.why}" for problem in problems]
    for refused in rejected:
        said.append(f"{where} REJECTED {refused.kind} {refused.name}: {shorten(refused.error.details, 400)}")
    for line in said[:_FEW]:
        say(line)
    if len(said) > _FEW:
        say(f"and {len(said) - _FEW} more like these")


def _answer(shown: Sequence[Table], asked: _Asked, head: Sequence[str] = ()) -> str:
    if asked.format in ("json", "yaml"):
        from meshscope.report import messages

        found = [message for table in shown for message in table.messages]
        return messages.as_json(found) if asked.format == "json" else messages.as_yaml(found)
    from meshscope.report import tables

    color = stdout_style(no_color=asked.no_color).color
    return tables.render(shown, head=head, wide=asked.format == "wide", color=color)
