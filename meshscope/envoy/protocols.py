"""Which HTTP version a cluster speaks to its hosts, and how big headers may be."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from meshscope.envoy.config_dump import Cluster

HEADERS_LIMIT_KB = 60
"""Envoy's own limit on all headers of a message together, where configuration sets no other."""

_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


class _Options(msgspec.Struct, frozen=True):
    explicit_http_config: dict[str, Any] = {}
    use_downstream_protocol_config: dict[str, Any] | None = None


def upstream_protocol(cluster: Cluster) -> Literal["http1", "http2", "downstream"]:
    """What the cluster speaks: HTTP/1.1 or HTTP/2 always, or whatever the request came in (`downstream`)."""
    if cluster.http2_protocol_options is not None:
        return "http2"
    raw = cluster.typed_extension_protocol_options.get(_OPTIONS)
    if raw is None:
        return "http1"
    try:
        options = msgspec.json.decode(raw, type=_Options)
    except msgspec.DecodeError:
        return "http1"
    if options.use_downstream_protocol_config is not None:
        return "downstream"
    return "http2" if "http2_protocol_options" in options.explicit_http_config else "http1"
