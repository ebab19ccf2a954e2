"""Tells which protocol Istio takes a Service's port for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HTTP = frozenset({"http", "http2", "h2c", "grpc", "grpc-web"})
BYTES = frozenset({"tcp", "tls", "https", "mongo", "mysql", "redis"})
"""Protocols of which the proxies see no request: TLS that they don't end, and what isn't HTTP."""


def protocol(port: Mapping[str, Any]) -> str:
    """`http`, `grpc`, `tcp`, … by appProtocol, else by the name up to its first dash; "" where Istio finds out itself.

    An appProtocol of Kubernetes' own (`kubernetes.io/h2c`) counts by its last part. UDP isn't the mesh's.
    """
    if port.get("protocol") == "UDP":
        return "udp"
    given = port.get("appProtocol")
    if isinstance(given, str) and given:
        word = given.rpartition("/")[2].lower()
    else:
        name = str(port.get("name") or "").lower()
        word = "grpc-web" if name.startswith("grpc-web") else name.partition("-")[0]
    return word if word in HTTP | BYTES else ""
