"""Decides whether a pod should have got a sidecar, and which of its ports bypass the one it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from meshscope.istio.kubernetes import Objects
from meshscope.model.kubernetes import KubernetesObject

EXCLUDED_INBOUND = "traffic.sidecar.istio.io/excludeInboundPorts"
INCLUDED_INBOUND = "traffic.sidecar.istio.io/includeInboundPorts"
INJECT = "sidecar.istio.io/inject"

_NEVER = frozenset({"kube-system", "kube-public", "kube-node-lease", "local-path-storage"})
"""Namespaces that Istio's webhook leaves alone."""


class Injection(Struct, frozen=True):
    """Whether the webhook gives a sidecar to such a pod, were it made now, and what says so."""

    verdict: Literal["wanted", "opted out", "not wanted"]
    why: str


def injection(objects: Objects, pod: KubernetesObject) -> Injection:
    """By the namespace's and the pod's labels, as the webhook's selectors read them."""
    name = pod.metadata.namespace
    if name in _NEVER or pod.spec.get("hostNetwork") is True or pod.metadata.labels.get("istio") == "pilot":
        return Injection("not wanted", "the webhook leaves such pods alone")
    namespace = objects.namespace(name)
    labels = namespace.metadata.labels if namespace is not None else {}
    asked = pod.metadata.labels.get(INJECT, pod.metadata.annotations.get(INJECT, "")).lower()
    whole = labels.get("istio-injection", "")
    revision = labels.get("istio.io/rev", "")
    wanted = whole == "enabled" or bool(revision and not whole)
    by = f"istio-injection={whole}" if whole else f"istio.io/rev={revision}"
    if asked in {"false", "n", "no", "off"}:
        verdict: Literal["opted out", "not wanted"] = "opted out" if wanted else "not wanted"
        return Injection(verdict, f"the pod says {INJECT}: {asked}")
    if whole == "disabled":
        return Injection("not wanted", f"namespace {name} has {by}")
    if wanted:
        return Injection("wanted", f"namespace {name} has {by}")
    if asked == "true" or pod.metadata.labels.get("istio.io/rev"):
        return Injection("wanted", f"the pod has the label {INJECT if asked else 'istio.io/rev'}")
    return Injection("not wanted", f"namespace {name} doesn't ask for it")


def skipped_by(annotations: Mapping[str, str], port: int) -> str:
    """The annotation by which inbound traffic of a port bypasses the sidecar, as KEY: VALUE; "" where it doesn't."""
    excluded = annotations.get(EXCLUDED_INBOUND, "")
    if _lists(excluded, port):
        return f"{EXCLUDED_INBOUND}: {excluded}"
    included = annotations.get(INCLUDED_INBOUND)
    if included is not None and included.strip() != "*" and not _lists(included, port):
        return f"{INCLUDED_INBOUND}: {included or '(empty)'}"
    return ""


def _lists(ports: str, port: int) -> bool:
    return str(port) in {entry.strip() for entry in ports.split(",")}
