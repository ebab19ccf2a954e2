"""Decodes Envoy's /server_info: its version, its state and since when it runs."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from meshscope.envoy.config_dump import DecodeProblem, Node, decode_json, seconds


class ServerInfo(Struct, frozen=True):
    """`state` is LIVE, DRAINING, PRE_INITIALIZING or INITIALIZING; `version` is Envoy's build string."""

    version: str = ""
    state: str = ""
    uptime_s: float | None = None
    node: Node = Node()

    @property
    def envoy_version(self) -> str:
        """The release (`1.40.0`), "" where the build string has another shape."""
        parts = self.version.split("/")
        return parts[1] if len(parts) == 5 else ""


class _Answer(Struct, frozen=True):
    version: str | None = None
    state: str = "LIVE"
    uptime_current_epoch: str = ""
    node: Node = Node()


def read_server_info(raw: bytes) -> ServerInfo | DecodeProblem:
    """Reads the answer; `state` is absent in it where it has the enum's first value, LIVE."""
    try:
        answer = decode_json(raw, _Answer)
    except msgspec.DecodeError as error:
        return DecodeProblem("server_info", str(error))
    if answer.version is None:
        return DecodeProblem("server_info", "no `version`: not an answer of /server_info")
    return ServerInfo(answer.version, answer.state, seconds(answer.uptime_current_epoch), answer.node)
