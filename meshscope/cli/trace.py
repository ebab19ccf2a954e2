"""`meshscope trace`: the way of one request through the proxies, hop by hop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from cyclopts import Parameter

from meshscope.cli.exits import CommandError, Exit
from meshscope.cli.output import Style, stdout_style, write_stdout
from meshscope.cli.reach import Reach

if TYPE_CHECKING:
    from meshscope.report.documents import Trace


def trace(
    source: Annotated[str, Parameter(name="FROM", help="Who calls: [KIND/]NAME[.NAMESPACE], or 'outside'.")],
    method: Annotated[str, Parameter(name="METHOD", help="The method; left out for tcp://HOST:PORT.")],
    url: Annotated[str, Parameter(name="URL", help="http://HOST:PORT/PATH, or tcp://HOST:PORT.")] = "",
    /,
    *,
    header: Annotated[
        list[str] | None,
        Parameter(
            name=("--header", "-H"),
            negative=(),
            help="A header of the request; repeatable.",
            metavar="'NAME: VALUE'",
        ),
    ] = None,
    output: Annotated[
        Literal["text", "json", "yaml"], Parameter(name=("--output", "-o"), help="The form of the answer.")
    ] = "text",
    reach: Reach | None = None,
) -> int:
    """The way of one request through what the proxies hold: each decision, and the object behind it.

    Nothing is sent. The exit code is 1 where the request fails on any branch.
    """
    reach = reach or Reach()
    if not url and "://" in method:
        method, url = "", method
    _check_url(method, url)
    headers = tuple(map(_header, header or ()))
    with reach.opened() as opened:
        from meshscope.cli.selection import selector, understood
        from meshscope.facts.mesh import Mesh
        from meshscope.report.documents import trace_of
        from meshscope.walk.trace import trace as follow

        mesh = Mesh(opened)
        with understood():
            caller = str(selector(source, reach.namespace) or source)
            walks = follow(mesh, caller, method, url, headers, reach.namespace)
        document = trace_of(walks, mesh.captured_at)
    write_stdout(_render(document, output, stdout_style(no_color=reach.no_color)))
    outcomes = {branch.outcome for walk in document.walks for branch in walk.branches}
    return Exit.FINDINGS if "fail" in outcomes else Exit.OK


def _check_url(method: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise CommandError(f"{url!r} is no URL: {error}") from error
    is_tcp = parts.scheme == "tcp"
    if parts.scheme not in {"http", "https", "tcp"} or is_tcp == bool(method):
        raise CommandError("trace takes FROM METHOD URL with http or https, or FROM tcp://HOST:PORT")
    if not parts.hostname or (is_tcp and port is None) or any(char.isspace() for char in method + url):
        raise CommandError(f"{url!r} must name a host{', and a port' if is_tcp else ''}, without spaces")


def _header(text: str) -> tuple[str, str]:
    name, separator, value = text.partition(":")
    if not separator or not name.strip() or "\n" in text or "\r" in text:
        raise CommandError(f"-H takes 'NAME: VALUE'; got {text!r}")
    return name.strip().lower(), value.strip()


def _render(document: Trace, format: str, style: Style) -> str:
    match format:
        case "json":
            from meshscope.report import json

            return json.render(document)
        case "yaml":
            from meshscope.report import yaml

            return yaml.render(document)
    from meshscope.report import trace as text

    return text.render(document, width=style.width, color=style.color)
