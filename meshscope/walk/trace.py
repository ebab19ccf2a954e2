"""The request walk on its own: one request as a person writes it, from every workload that FROM names."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from meshscope.envoy.request import HttpRequest
from meshscope.facts.edges import qualified
from meshscope.facts.mesh import Mesh
from meshscope.facts.select import parse_selector, select
from meshscope.walk.hops import Walk
from meshscope.walk.walk import Call, walk

DEFAULT_PORTS = {"http": 80, "https": 443}


class Destination(msgspec.Struct, frozen=True):
    """A URL's parts; `path` is with its query, `netloc` as written."""

    scheme: str
    netloc: str
    host: str
    port: int
    path: str


def parse_url(url: str) -> Destination:
    """`[http[s]://]HOST[:PORT][/PATH]` or `tcp://HOST:PORT`; raises ValueError with what is wrong."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "http", url
    if scheme not in {*DEFAULT_PORTS, "tcp"}:
        raise ValueError(f"unknown scheme {scheme!r}: use http://, https:// or tcp://")
    parts = urlsplit(f"//{rest}")
    if not parts.hostname:
        raise ValueError(f"{url!r} has no host")
    port = parts.port or DEFAULT_PORTS.get(scheme)
    if port is None:
        raise ValueError("tcp:// needs a port")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Destination(scheme, parts.netloc, parts.hostname, port, path)


def trace(
    mesh: Mesh,
    source: str,
    method: str,
    url: str,
    headers: tuple[tuple[str, str], ...] = (),
    namespace: str = "",
) -> tuple[Walk, ...]:
    """One walk for each workload that FROM names; raises SelectionError or ValueError for what can't be read.

    Short host names are looked up from the caller's namespace, from `namespace` where it has none.
    """
    caller = select(mesh, parse_selector(source))
    to = parse_url(url)
    lowered = tuple((name.lower(), value) for name, value in headers)
    authority = dict(lowered).get("host") or to.netloc
    request = (
        None if to.scheme == "tcp" else HttpRequest(method.upper(), authority, to.path, lowered, to.scheme)
    )
    return tuple(
        walk(
            mesh,
            Call(
                workload,
                proxies[0] if proxies else None,
                qualified(mesh, to.host, workload.namespace or namespace),
                to.port,
                request,
            ),
        )
        for workload, proxies in caller.callers(mesh).items()
    )
