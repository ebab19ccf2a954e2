"""Finds the EnvoyFilters that bear on a pod, and which of them put a given filter into its proxy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meshscope.istio.kubernetes import Objects, dicts, selects, strings
from meshscope.istio.names import NETWORKING
from meshscope.model.kubernetes import KubernetesObject


def applying(objects: Objects, pod: KubernetesObject) -> tuple[KubernetesObject, ...]:
    """The EnvoyFilters of the root and of the pod's own namespace that select it."""
    namespaces = dict.fromkeys((objects.root_namespace, pod.metadata.namespace))
    return tuple(
        found
        for namespace in namespaces
        for found in objects.of("EnvoyFilter", NETWORKING, namespace)
        if selects(strings(_mapped(found.spec.get("workloadSelector")).get("labels")), pod.metadata.labels)
    )


def inbound_filters(
    objects: Objects, pod: KubernetesObject
) -> Iterator[tuple[KubernetesObject, dict[str, Any]]]:
    """Each HTTP filter that an EnvoyFilter adds to what the pod serves, with the object behind it."""
    for found in applying(objects, pod):
        for patch in dicts(found.spec.get("configPatches")):
            context = str(_mapped(patch.get("match")).get("context") or "ANY")
            change = _mapped(patch.get("patch"))
            if (
                patch.get("applyTo") == "HTTP_FILTER"
                and context in ("ANY", "SIDECAR_INBOUND")
                and change.get("operation") not in ("REMOVE", "MERGE")
            ):
                yield found, _mapped(change.get("value"))


def filter_type(value: dict[str, Any]) -> str:
    """The type of the filter in a patch's value (without `type.googleapis.com/`), else its name."""
    config = _mapped(value.get("typed_config"))
    named = config.get("type_url") or config.get("@type") or value.get("name") or ""
    return str(named).rpartition("/")[2]


def filter_config(value: dict[str, Any]) -> dict[str, Any]:
    """The filter's configuration in a patch's value, out of its TypedStruct."""
    config = _mapped(value.get("typed_config"))
    return _mapped(config.get("value")) if "type_url" in config else config


def _mapped(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
