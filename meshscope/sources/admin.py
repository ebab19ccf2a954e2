"""Asks an Envoy's admin: GET of the paths that only read, each with a deadline."""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from meshscope.model.findings import Unavailable
from meshscope.sources.files import MAX_FILE_BYTES
from meshscope.sources.source import Part

PATHS: Mapping[Part, str] = {
    Part.CONFIG_DUMP: "/config_dump?include_eds",
    Part.CLUSTERS: "/clusters?format=json",
    Part.CERTS: "/certs",
    Part.SERVER_INFO: "/server_info",
    Part.STATS: "/stats",
    Part.METRICS: "/stats/prometheus",
}
"""All that is ever asked. Other paths of the admin change state even by GET (Envoy: administration interface)."""
DEADLINE_S = 10.0
_CHUNK = 1024**2


def ask(base: str, part: Part, what: str, deadline_s: float = DEADLINE_S) -> bytes | Unavailable:
    """The answer of the admin at `base` (http://HOST:PORT); `what` names it where it can't be had."""
    path = PATHS.get(part)
    if path is None:
        return Unavailable(what, "an Envoy doesn't have it", "it is read of Linkerd proxies only")
    try:
        return _get(base, path, time.monotonic() + deadline_s)
    except TimeoutError:
        return Unavailable(
            what, f"{base}{path} didn't answer within {deadline_s:g} s", "see whether the proxy runs"
        )
    except (OSError, http.client.HTTPException) as error:
        return Unavailable(
            what, f"{base}{path}: {error or type(error).__name__}", "see whether the proxy runs"
        )


def _get(base: str, path: str, deadline: float) -> bytes:
    url = urlsplit(base)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=_left(deadline))
    try:
        connection.request("GET", path)
        socket = connection.sock
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise http.client.HTTPException(f"answered {response.status} {response.reason}")
        chunks: list[bytes] = []
        size = 0
        while True:
            # The socket's own timeout is that of one read; the deadline is that of the whole answer.
            socket.settimeout(_left(deadline))
            chunk = response.read1(_CHUNK)
            if not chunk:
                return b"".join(chunks)
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_FILE_BYTES:
                raise http.client.HTTPException(f"answers more than {MAX_FILE_BYTES // 1024**2} MiB")
    finally:
        connection.close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
