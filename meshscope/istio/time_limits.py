"""The time limits that Kubernetes objects mean a caller's proxy to have for a host: for proxies that can't be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from meshscope.envoy.config_dump import seconds
from meshscope.istio.kubernetes import Objects, dicts
from meshscope.istio.names import NETWORKING
from meshscope.model.kubernetes import KubernetesObject
from meshscope.model.names import ObjectRef

Limit = Literal["timeout", "per_try_timeout", "idle_timeout", "max_stream_duration"]

_PATCHED: dict[str, Limit] = {
    "timeout": "timeout",
    "per_try_timeout": "per_try_timeout",
    "idle_timeout": "idle_timeout",
    "stream_idle_timeout": "idle_timeout",
    "max_stream_duration": "max_stream_duration",
}
"""The fields of Envoy's routes and connection managers that an EnvoyFilter can set."""


class Intended(msgspec.Struct, frozen=True):
    """A limit in seconds, as the object wrote it, and the VirtualService or EnvoyFilter that sets it."""

    limit: Limit
    seconds: float
    written: str
    owner: ObjectRef


def intended_limits(objects: Objects, host: str, limit: Limit) -> Iterator[Intended]:
    """The limits of this kind for calls to `host` (an FQDN); callers are not told apart by namespace or labels."""
    for service in objects.of("VirtualService", NETWORKING):
        if any(_names(service, written, host) for written in service.spec.get("hosts") or ()):
            for route in dicts(service.spec.get("http")):
                retries = route.get("retries")
                found: dict[Limit, Any] = {
                    "timeout": route.get("timeout"),
                    "per_try_timeout": retries.get("perTryTimeout") if isinstance(retries, dict) else None,
                }
                yield from _limits(limit, found.get(limit), service.ref)
    for envoy_filter in objects.of("EnvoyFilter", NETWORKING):
        for patch in dicts(envoy_filter.spec.get("configPatches")):
            if _concerns(patch, host):
                for written in _fields(patch.get("patch"), limit):
                    yield from _limits(limit, written, envoy_filter.ref)


def _limits(limit: Limit, written: Any, owner: ObjectRef) -> Iterator[Intended]:
    found = seconds(written) if isinstance(written, str) else None
    if found:
        yield Intended(limit, found, written, owner)


def _names(service: KubernetesObject, written: Any, host: str) -> bool:
    """Whether a host of a VirtualService, short names being of its own namespace, is this FQDN."""
    if not isinstance(written, str):
        return False
    if written.startswith("*"):
        return host.endswith(written[1:])
    return written == host or (
        "." not in written and host.startswith(f"{written}.{service.metadata.namespace}.svc.")
    )


def _concerns(patch: dict[str, Any], host: str) -> bool:
    """Whether a patch is of what proxies send, and of no other host."""
    match = patch.get("match")
    if not isinstance(match, dict):
        return True
    if match.get("context") not in (None, "ANY", "SIDECAR_OUTBOUND"):
        return False
    routes = match.get("routeConfiguration")
    virtual_host = routes.get("vhost") if isinstance(routes, dict) else None
    name = virtual_host.get("name") if isinstance(virtual_host, dict) else None
    return not isinstance(name, str) or name.rpartition(":")[0] == host


def _fields(node: Any, limit: Limit) -> Iterator[Any]:
    """The values of the fields anywhere in a patch that set this limit."""
    if isinstance(node, dict):
        for key, value in node.items():
            if _PATCHED.get(key) == limit and isinstance(value, str):
                yield value
            else:
                yield from _fields(value, limit)
    elif isinstance(node, list):
        for value in node:
            yield from _fields(value, limit)
