"""Which Istio and which Envoy a proxy is, by its bootstrap."""

from __future__ import annotations

from typing import Any

from meshscope.envoy.config_dump import ConfigDump

_LABELS = (("build.label", "-"), ("revision.status", "/"), ("build.type", "/"), ("ssl.version", "/"))


def versions(config: ConfigDump) -> tuple[tuple[str, str], ...]:
    """What is known of the versions, as (name, value)."""
    node = config.bootstrap.node
    sha = _text(node.metadata, "ISTIO_PROXY_SHA")
    found = (
        ("Istio Version", _text(node.metadata, "ISTIO_VERSION")),
        ("Istio Proxy Version", sha.partition(":")[2] or sha),
        ("Envoy Version", _envoy(node.user_agent_build_version)),
    )
    return tuple((name, value) for name, value in found if value)


def _envoy(build: dict[str, Any]) -> str:
    """`1.40.0/Clean/RELEASE/BoringSSL`."""
    version = _mapping(build, "version")
    if not version:
        return ""
    numbers = (version.get(key, 0) for key in ("major_number", "minor_number", "patch"))
    labels = _mapping(build, "metadata")
    rest = (f"{separator}{text}" for key, separator in _LABELS if (text := _text(labels, key)))
    return ".".join(map(str, numbers)) + "".join(rest)


def _mapping(found: dict[str, Any], key: str) -> dict[str, Any]:
    value = found.get(key)
    return value if isinstance(value, dict) else {}


def _text(found: dict[str, Any], key: str) -> str:
    value = found.get(key)
    return value if isinstance(value, str) else ""
